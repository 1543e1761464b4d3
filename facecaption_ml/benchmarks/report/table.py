"""A table before it is drawn, in Markdown here or on a page (``page.py``): columns in blocks, rows of a kind, footnotes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from facecaption_ml.markdown import markdown_table

Kind = Literal["baseline", "measured", "delta", "published"]

KIND_WORDS: Final[dict[Kind, str]] = {
    "baseline": "baseline",
    "measured": "measured",
    "delta": "minus published",
    "published": "published",
}
"""What a row of each kind is called beside its name."""
_NOTHING: Final = {"", "–"}
_SUPERSCRIPT: Final = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_MARKUP: Final = re.compile(r"[\\`*_{}\[\]#|~$!]")


@dataclass(frozen=True)
class Cell:
    """What stands in a cell, line by line, and the numbers of the footnotes on it."""

    lines: tuple[str, ...] = ("",)
    notes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Column:
    """A column under its ``heading``; neighbours with equal ``block`` stand under that together. Numbers are aligned right."""

    heading: Cell
    numeric: bool
    block: Cell | None = None


@dataclass(frozen=True)
class Row:
    """A row with a cell for each column. A ``part`` is a run of rows that a rule sets off from the next."""

    kind: Kind
    part: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table with everything that is shown of it. ``footnotes`` are numbered from 1; ``remarks`` are on the whole table.

    The first column names the row. Raises ValueError for a row that is not as long as the columns.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    remarks: Sequence[str] = ()
    footnotes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row.cells) != len(self.columns):
                raise ValueError(f"{self.name}, row {number}: {len(row.cells)} cells for {len(self.columns)} columns")


@dataclass
class Footnotes:
    """The footnotes of a table while it is made: numbered as they are asked for, the same text once."""

    texts: list[str] = field(default_factory=list)

    def numbers(self, *texts: str) -> tuple[int, ...]:
        """The numbers of texts, in ascending order."""
        self.texts += [text for text in dict.fromkeys(texts) if text not in self.texts]
        return tuple(sorted({self.texts.index(text) + 1 for text in texts}))


def plain(text: str) -> str:
    """A text on one line, without control, formatting, private and unpaired surrogate characters."""
    return " ".join("".join(c for c in text if c.isspace() or unicodedata.category(c)[0] != "C").split())


def by_block(table: Table) -> list[Table]:
    """A table for each block of columns, under the block's name; a table without blocks as it is.

    Each has the columns that stand in no block, the rows with anything in its own, and the footnotes on these; footnotes on
    the block are remarks.
    """
    blocks = list(dict.fromkeys(column.block for column in table.columns if column.block))
    return [_of_block(table, block, number) for number, block in enumerate(blocks, start=1)] or [table]


def _of_block(table: Table, block: Cell, number: int) -> Table:
    chosen = [place for place, column in enumerate(table.columns) if column.block in (None, block)]
    own = [place for place in chosen if table.columns[place].block]
    rows = [row for row in table.rows if any(set(row.cells[place].lines) - _NOTHING for place in own)]
    kept = [table.columns[place].heading for place in chosen] + [row.cells[place] for row in rows for place in chosen]
    notes = sorted({note for cell in kept for note in cell.notes})
    numbers = {note: place for place, note in enumerate(notes, start=1)}

    def renumbered(cell: Cell) -> Cell:
        return Cell(cell.lines, tuple(numbers[note] for note in cell.notes))

    return Table(
        f"{table.name}-{number}",
        f"{table.title}: {', '.join(block.lines)}",
        [Column(renumbered(table.columns[place].heading), table.columns[place].numeric) for place in chosen],
        [Row(row.kind, row.part, tuple(renumbered(row.cells[place]) for place in chosen)) for row in rows],
        [*table.remarks, *(table.footnotes[note - 1] for note in block.notes)],
        [table.footnotes[note - 1] for note in notes],
    )


def markdown(tables: Sequence[Table]) -> str:
    """Tables under headings, ending in a newline; what Markdown or HTML would read as markup is escaped.

    A table with blocks of columns becomes one for each block, so that none is too wide to be read. There is no HTML in it,
    which some readers of Markdown leave out: footnote marks are superscript digits, and lines of a cell stand side by side.
    """
    return "\n\n".join(_markdown(narrow) for table in tables for narrow in by_block(table)) + "\n"


def _markdown(table: Table) -> str:
    grid = markdown_table(
        [_cell(column.heading) for column in table.columns],
        ([_cell(cell) for cell in row.cells] for row in table.rows),
        "".join("r" if column.numeric else "l" for column in table.columns),
    )
    notes = [f"{_marks([number])} {_escaped(note)}" for number, note in enumerate(table.footnotes, start=1)]
    remarks = ["Note: " + _escaped(remark) for remark in table.remarks]
    return "\n\n".join([f"### {_escaped(table.title)}", grid, *remarks, *notes])


def _cell(cell: Cell) -> str:
    text = " · ".join(_escaped(line) for line in cell.lines)
    # Right behind a digit, a mark would read as a power.
    return text + ("\u2009" if text[-1:].isdigit() and cell.notes else "") + _marks(cell.notes)


def _marks(notes: Iterable[int]) -> str:
    return ", ".join(str(number).translate(_SUPERSCRIPT) for number in notes)


def _escaped(text: str) -> str:
    escaped = _MARKUP.sub(lambda markup: "\\" + markup[0], plain(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
