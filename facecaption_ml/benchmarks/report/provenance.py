"""What measured rows were made from: versions, protocol, counts and notes of each result, as a table of words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from facecaption_ml.benchmarks.report.layout import model_order, task_layouts
from facecaption_ml.benchmarks.report.table import Cell, Column, Row, Table
from facecaption_ml.benchmarks.result import BenchmarkResult

_HEADINGS: Final = ("Model", "Data set", "Versions", "Protocol", "Counts", "Notes")


def provenance_table(results: Sequence[BenchmarkResult]) -> Table:
    """A row for each result, by task, data set and model; words and counts by name, so that equal results give equal rows."""
    rows = []
    for task, layout in task_layouts().items():
        of_task = [result for result in results if result.task == task]
        for data in layout.data_order(result.data for result in of_task):
            on_data = [result for result in of_task if result.data == data]
            for model in model_order(result.model for result in on_data):
                rows += [_row(layout.title, result) for result in on_data if result.model == model]
    columns = [Column((Cell((heading,)),), False) for heading in _HEADINGS]
    return Table("provenance", "What the measured rows were made from", columns, rows)


def _row(part: str, result: BenchmarkResult) -> Row:
    counts = {name: f"{count:,}" for name, count in result.counts.items()}
    cells = [
        Cell((result.model,)),
        Cell((result.data,)),
        *(_words(words) for words in (result.versions, result.protocol, counts)),
        Cell(tuple(result.notes) or ("–",)),
    ]
    return Row("measured", part, tuple(cells))


def _words(words: Mapping[str, str]) -> Cell:
    return Cell(tuple(f"{name}: {words[name]}" for name in sorted(words)) or ("–",))
