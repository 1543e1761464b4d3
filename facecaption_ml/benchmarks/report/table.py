"""A table that is not yet Markdown, HTML or LaTeX: headings on several levels, rows of a kind, and numbered footnotes."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

Kind = Literal["baseline", "measured", "delta", "published"]

KIND_WORDS: Final[dict[Kind, str]] = {
    "baseline": "baseline",
    "measured": "measured",
    "delta": "minus published",
    "published": "published",
}
"""What a row of each kind is called beside its name."""


@dataclass(frozen=True)
class Cell:
    """What stands in a cell, line by line, and the numbers of the footnotes on it."""

    lines: tuple[str, ...] = ("",)
    notes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Column:
    """A column under its ``headings``, outermost first; equal headings side by side are one. Numbers are aligned right."""

    headings: tuple[Cell, ...]
    numeric: bool


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


@dataclass(frozen=True)
class Span:
    """A heading as it is drawn: over ``columns`` columns and ``rows`` rows, from column ``start``."""

    cell: Cell
    start: int
    columns: int
    rows: int


def heading_rows(table: Table) -> list[list[Span]]:
    """The headings of a table, one list for each level. A column with fewer levels than others has its last one span them."""
    depth = max(len(column.headings) for column in table.columns)
    return [_level(table.columns, level, depth) for level in range(depth)]


def plain(text: str) -> str:
    """A text on one line, without control, formatting, private and unpaired surrogate characters."""
    return " ".join("".join(c for c in text if c.isspace() or unicodedata.category(c)[0] != "C").split())


def _level(columns: Sequence[Column], level: int, depth: int) -> list[Span]:
    spans: list[Span] = []
    start = 0
    while start < len(columns):
        headings = columns[start].headings
        if level >= len(headings):
            start += 1
            continue
        end = start + 1
        last = level == len(headings) - 1
        while not last and end < len(columns) and columns[end].headings[:-1][: level + 1] == headings[: level + 1]:
            end += 1
        rows = depth - level if last else 1
        spans.append(Span(headings[level], start, end - start, rows))
        start = end
    return spans
