"""The paper's Tables 2, 3 and 4 from what was measured, with the published numbers beside it and the differences between them.

A table has a block of columns for each data set that has a measured or a published number. Rows that learn nothing stand
first, then the measured models, each with its difference from the published row of the same model on the same data set, then
the published rows, marked as such. ``table.py`` (Markdown) and ``page.py`` (HTML) draw what these functions give.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from facecaption_ml.benchmarks.encoders.registry import MODEL_TITLES
from facecaption_ml.benchmarks.report.layout import TaskLayout, model_order, require_task, task_layouts
from facecaption_ml.benchmarks.report.published import PublishedRow, PublishedTable, published_table
from facecaption_ml.benchmarks.report.table import KIND_WORDS, Cell, Column, Footnotes, Kind, Row, Table
from facecaption_ml.benchmarks.result import BenchmarkResult, Measurement
from facecaption_ml.errors import FaceCaptionError

Key = tuple[str, str, str]
"""Data set, setting and metric: a column."""
Values = Mapping[Key, Measurement]

NOT_MEASURED: Final = "–"
UNDEFINED: Final = "n/a"
_PROVENANCE: Final = ("Model", "Data set", "Versions", "Protocol", "Counts", "Notes")


def benchmark_tables(results: Sequence[BenchmarkResult]) -> list[Table]:
    """A table for each task and, where anything was measured, one of what it was measured with; equal for any order.

    Raises FaceCaptionError for a result of an unknown task, and for two results of one model on one data set: results that
    differ in the training seed belong to ``ablation_table``.
    """
    seen = set()
    for result in results:
        require_task(result)
        if result.key in seen:
            raise FaceCaptionError(
                f"{result.key}: two results of one model on one data set; give ablation_table those of seeds"
            )
        seen.add(result.key)
    by_key = sorted(results, key=lambda result: result.key)
    tables = [_task_table(task, [result for result in by_key if result.task == task]) for task in task_layouts()]
    return [*tables, *([provenance_table(by_key)] if by_key else [])]


def provenance_table(results: Sequence[BenchmarkResult]) -> Table:
    """A row for each result, by task, data set and model; words and counts by name, so that equal results give equal rows."""
    rows = []
    for task, layout in task_layouts().items():
        of_task = [result for result in results if result.task == task]
        for data in layout.data_order(result.data for result in of_task):
            on_data = [result for result in of_task if result.data == data]
            for model in model_order(result.model for result in on_data):
                rows += [_provenance_row(layout.title, result) for result in on_data if result.model == model]
    columns = [Column(Cell((heading,)), False) for heading in _PROVENANCE]
    return Table("provenance", "What the measured rows were made from", columns, rows)


def result_table(result: BenchmarkResult) -> Table:
    """One result beside what its data set has of baselines and published numbers, for a terminal."""
    return _task_table(result.task, [result], only=result.data)


def percent(value: float) -> str:
    """A share of 1 in percent with two decimals, like the paper's numbers."""
    return signed(round(100 * value, 2)).removeprefix("+")


def signed(points: float) -> str:
    """Percentage points with two decimals and a sign, none for zero."""
    text = f"{points:+.2f}".replace("-", "−")
    return "0.00" if text[1:] == "0.00" else text


def value_cell(measurement: Measurement | None, footnotes: Footnotes) -> Cell:
    """A number with its spread; "–" where nothing was measured; "n/a" with the reason as a footnote where it is undefined."""
    if measurement is None:
        return Cell((NOT_MEASURED,))
    if measurement.value is None:
        return Cell((UNDEFINED,), footnotes.numbers(f"Not defined: {measurement.why}."))
    spread = "" if measurement.spread is None else f" ± {percent(measurement.spread)}"
    return Cell((percent(measurement.value) + spread,))


def _task_table(task: str, results: Sequence[BenchmarkResult], only: str = "") -> Table:
    """``only``: a data set, without whose numbers a row is left out; '': all of them."""
    layout, paper = task_layouts()[task], published_table(task)
    footnotes = Footnotes()
    baselines, measured, printed = _baselines(results), _measured(results), _published(paper, only)
    numbers = [*baselines.values(), *measured.values(), *(values for _, values in printed.values())]
    keys = _columns(layout, numbers, {result.data for result in results})
    headings = _headings(keys, layout, paper, results, footnotes)
    rows = [_row("baseline", "Learns nothing", name, values, keys, footnotes) for name, values in baselines.items()]
    by_model = {row.model: values for row, values in printed.values() if row.model}
    for model in model_order(measured):
        name = MODEL_TITLES.get(model, model)
        beyond = footnotes.numbers(*(line for one in results if one.model == model for line in one.departures))
        rows.append(_row("measured", "Measured here", name, measured[model], keys, footnotes, beyond))
        differences = _differences(measured[model], by_model.get(model, {}))
        if differences:
            cells = (Cell((differences.get(key, ""),)) for key in keys)
            rows.append(Row("delta", "Measured here", (Cell((name,)), Cell((KIND_WORDS["delta"],)), *cells)))
    part = f"Published: {paper.source}, {paper.table}"
    for name, (row, values) in printed.items():
        notes = footnotes.numbers(*(note.text for note in paper.notes if name in note.rows))
        rows.append(_row("published", part, row.name, values, keys, footnotes, notes))
    stubs = [Column(Cell((heading,)), False) for heading in ("Model", "Numbers")]
    remarks = [*_remarks(results, any(one.kind == "delta" for one in rows)), *(paper.remarks if printed else ())]
    return Table(task, f"{layout.title} ({paper.table})", [*stubs, *headings], rows, remarks, footnotes.texts)


def _measured(results: Iterable[BenchmarkResult]) -> dict[str, dict[Key, Measurement]]:
    """By model id."""
    by_model: dict[str, dict[Key, Measurement]] = {}
    for result in results:
        by_model.setdefault(result.model, {}).update(_by_key(result.data, result.measurements))
    return by_model


def _baselines(results: Sequence[BenchmarkResult]) -> dict[str, dict[Key, Measurement]]:
    """By name. Where results of several models do not agree on a baseline, it has a row for each of them."""
    by_name: dict[str, dict[Key, Measurement]] = {}
    for name in sorted({name for result in results for name in result.baselines}):
        by_model: dict[str, dict[Key, Measurement]] = {}
        for result in results:
            values = _by_key(result.data, result.baselines.get(name, ()))
            by_model.setdefault(result.model, {}).update(values)
        merged = {key: value for values in by_model.values() for key, value in values.items()}
        if all(merged[key] == value for values in by_model.values() for key, value in values.items()):
            by_name[name] = merged
            continue
        for model in model_order(model for model, values in by_model.items() if values):
            by_name[f"{name}, beside {MODEL_TITLES.get(model, model)}"] = by_model[model]
    return by_name


def _published(paper: PublishedTable, only: str) -> dict[str, tuple[PublishedRow, dict[Key, Measurement]]]:
    """By printed name, the row on one data set and the values on all."""
    by_name: dict[str, tuple[PublishedRow, dict[Key, Measurement]]] = {}
    for data, rows in paper.data.items():
        for row in rows if not only or data == only else ():
            by_name.setdefault(row.printed, (row, {}))[1].update(_by_key(data, row.measurements))
    return by_name


def _by_key(data: str, measurements: Iterable[Measurement]) -> dict[Key, Measurement]:
    return {(data, measured.setting, measured.metric): measured for measured in measurements}


def _columns(layout: TaskLayout, rows: Sequence[Values], measured: Collection[str]) -> list[Key]:
    """Data sets that something was measured on stand first."""
    keys = {key for values in rows for key in values}
    return [
        (data, *measure)
        for data in sorted(layout.data_order(key[0] for key in keys), key=lambda data: data not in measured)
        for measure in layout.measure_order(key[1:] for key in keys if key[0] == data)
    ]


def _headings(
    keys: Sequence[Key],
    layout: TaskLayout,
    paper: PublishedTable,
    results: Sequence[BenchmarkResult],
    footnotes: Footnotes,
) -> list[Column]:
    columns = []
    for data, setting, metric in keys:
        about = [note for note in paper.notes if data in note.data]
        whole = [note.text for note in about if not note.settings]
        of_setting = [note.text for note in about if setting in note.settings]
        block = Cell((layout.heading(data),), footnotes.numbers(*whole, *_result_notes(data, results)))
        columns.append(Column(Cell((setting, metric), footnotes.numbers(*of_setting)), True, block))
    return columns


def _result_notes(data: str, results: Sequence[BenchmarkResult]) -> list[str]:
    """What results say of their numbers on a data set, naming the models where not all say it."""
    on_data = [result for result in results if result.data == data]
    notes = []
    for text in dict.fromkeys(note for result in on_data for note in result.notes):
        models = model_order(result.model for result in on_data if text in result.notes)
        names = ", ".join(MODEL_TITLES.get(model, model) for model in models)
        notes.append(f"Measured: {text}" if len(models) == len(on_data) else f"Measured, {names}: {text}")
    return notes


def _row(
    kind: Kind,
    part: str,
    name: str,
    values: Values,
    keys: Sequence[Key],
    footnotes: Footnotes,
    notes: tuple[int, ...] = (),
) -> Row:
    cells = (value_cell(values.get(key), footnotes) for key in keys)
    return Row(kind, part, (Cell((name,), notes), Cell((KIND_WORDS[kind],)), *cells))


def _differences(measured: Values, printed: Values) -> dict[Key, str]:
    """Measured − published in percentage points, of the numbers as the table shows them."""
    differences = {}
    for key, number in printed.items():
        own = measured.get(key)
        if own is not None and own.value is not None and number.value is not None:
            differences[key] = signed(round(100 * own.value, 2) - round(100 * number.value, 2))
    return differences


def _remarks(results: Sequence[BenchmarkResult], differences: bool) -> list[str]:
    """How to read the numbers."""
    lines = [f"All numbers in percent; {NOT_MEASURED} was not measured, or is not in the paper."]
    runs = sorted({m.runs for result in results for m in result.measurements if m.spread is not None})
    if runs:
        lines.append(f"± one standard deviation over {' or '.join(str(number) for number in runs)} seeds.")
    if differences:
        lines.append(
            "Minus published: the measured number less the published one of the same model, in percentage points."
        )
    return lines


def _provenance_row(part: str, result: BenchmarkResult) -> Row:
    counts = {name: f"{count:,}" for name, count in result.counts.items()}
    cells = [
        Cell((result.model,)),
        Cell((result.data,)),
        *(_listed(words) for words in (result.versions, result.protocol, counts)),
        Cell(tuple(result.notes) or ("–",)),
    ]
    return Row("measured", part, tuple(cells))


def _listed(words: Mapping[str, str]) -> Cell:
    return Cell(tuple(f"{name}: {words[name]}" for name in sorted(words)) or ("–",))
