"""Tables in Markdown, for model and data cards, reports, the documentation and the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

_RULES: Final = {"l": "---", "r": "---:", "c": ":---:"}


def markdown_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], align: str = "", *, padded: bool = False
) -> str:
    """A GitHub-flavoured table, without a line break at its end.

    ``align`` has a letter for each column: l, r (numbers) or c; columns beyond its end are left-aligned. Cells are Markdown
    already: ``escape_cell`` makes one of any text. ``padded`` makes all lines equally long, for reading in a terminal.
    Raises ValueError for a row that is not as long as the columns, and for another letter.
    """
    sides = align.ljust(len(columns), "l")
    if len(sides) > len(columns) or not set(sides) <= _RULES.keys():
        raise ValueError(f"align is {align!r}: at most {len(columns)} letters of {', '.join(_RULES)}")
    body = [list(row) for row in rows]
    for number, row in enumerate(body):
        if len(row) != len(columns):
            raise ValueError(f"row {number} has {len(row)} cells for {len(columns)} columns")
    rule = [_RULES[side] for side in sides]
    lines = [list(columns), rule, *body]
    if padded:
        widths = [max(2, *map(len, cells)) for cells in zip(*[list(columns), *body], strict=True)]
        lines = [
            [_padded(cell, side, width) for cell, side, width in zip(line, sides, widths, strict=True)]
            for line in lines
        ]
        lines[1] = [
            mark.replace("---", "-" * (width - len(mark) + 3)) for mark, width in zip(rule, widths, strict=True)
        ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escape_cell(text: str) -> str:
    """A text as a cell: on one line, its pipes escaped."""
    return text.replace("|", "\\|").replace("\n", " ")


def _padded(cell: str, side: str, width: int) -> str:
    return cell.rjust(width) if side == "r" else cell.center(width) if side == "c" else cell.ljust(width)
