"""Tables as GitHub-flavoured Markdown: one heading row, footnotes below."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from facecaption_ml.benchmarks.report.table import Cell, Column, Table, plain

_SPECIAL = re.compile(r"[\\`*_{}\[\]#|~$!]")


def markdown(tables: Sequence[Table]) -> str:
    """Tables under headings, ending in a newline; what Markdown or HTML would read as markup is escaped."""
    return "\n\n".join(_table(table) for table in tables) + "\n"


def _table(table: Table) -> str:
    rule = ["---:" if column.numeric else "---" for column in table.columns]
    head = [_heading(column) for column in table.columns]
    body = [[_cell(cell) for cell in row.cells] for row in table.rows]
    grid = "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *body])
    notes = [f"<sup>{number}</sup> {_text(note)}" for number, note in enumerate(table.footnotes, start=1)]
    remarks = ["Note: " + _text(remark) for remark in table.remarks]
    return "\n\n".join([f"### {_text(table.title)}", grid, *remarks, *notes])


def _heading(column: Column) -> str:
    return " · ".join(_cell(cell) for cell in column.headings)


def _cell(cell: Cell) -> str:
    return "<br>".join(_text(line) for line in cell.lines) + _marks(cell.notes)


def _marks(notes: Iterable[int]) -> str:
    numbers = ", ".join(str(number) for number in notes)
    return f"<sup>{numbers}</sup>" if numbers else ""


def _text(text: str) -> str:
    escaped = _SPECIAL.sub(lambda found: "\\" + found[0], plain(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
