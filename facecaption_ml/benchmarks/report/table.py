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


def markdown(tables: Sequence[Table]) -> str:
    """Tables under headings, ending in a newline; what Markdown or HTML would read as markup is escaped."""
    return "\n\n".join(_markdown(table) for table in tables) + "\n"


def _markdown(table: Table) -> str:
    columns = [_cell(column.heading, " · ") for column in table.columns]
    blocks = [f"{_cell(column.block)} · " if column.block else "" for column in table.columns]
    grid = markdown_table(
        [block + heading for block, heading in zip(blocks, columns, strict=True)],
        ([_cell(cell) for cell in row.cells] for row in table.rows),
        "".join("r" if column.numeric else "l" for column in table.columns),
    )
    notes = [f"<sup>{number}</sup> {_escaped(note)}" for number, note in enumerate(table.footnotes, start=1)]
    remarks = ["Note: " + _escaped(remark) for remark in table.remarks]
    return "\n\n".join([f"### {_escaped(table.title)}", grid, *remarks, *notes])


def _cell(cell: Cell, between: str = "<br>") -> str:
    return between.join(_escaped(line) for line in cell.lines) + _marks(cell.notes)


def _marks(notes: Iterable[int]) -> str:
    numbers = ", ".join(str(number) for number in notes)
    return f"<sup>{numbers}</sup>" if numbers else ""


def _escaped(text: str) -> str:
    escaped = _MARKUP.sub(lambda markup: "\\" + markup[0], plain(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
