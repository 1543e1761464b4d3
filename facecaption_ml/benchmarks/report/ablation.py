"""Models compared over several training seeds: where their results lie, and mean and standard deviation of every number.

The results of one training lie under ``benchmarks/ablation/<variant>/seed-<n>.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Final

from facecaption_ml.benchmarks.encoders.registry import MODEL_TITLES
from facecaption_ml.benchmarks.report.layout import model_order, require_task, task_layouts
from facecaption_ml.benchmarks.report.regression import from_snapshot
from facecaption_ml.benchmarks.report.table import Cell, Column, Footnotes, Row, Table
from facecaption_ml.benchmarks.report.tables import value_cell
from facecaption_ml.benchmarks.result import PREFIX, BenchmarkResult, Measurement
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.storage.store import Store, StoreError

SEED: Final = "training seed"
_FOLDER: Final = f"{PREFIX}/ablation"
Measure = tuple[str, str, str, str]
"""Task, data set, setting and metric: a row."""


def ablation_key(variant: str, seed: int | str) -> str:
    """The key of the results of one training."""
    return f"{_FOLDER}/{variant}/seed-{seed}.json"


def read_ablation(store: Store) -> list[BenchmarkResult]:
    """The results of every training that is there. Raises StoreError naming an object that cannot be read."""
    results: list[BenchmarkResult] = []
    for key in (key for key in store.keys(f"{_FOLDER}/") if key.endswith(".json")):
        try:
            results += from_snapshot(store.read_bytes(key))
        except FaceCaptionError as error:
            raise StoreError(f"{store.uri(key)}: {error}") from error
    return results


def ablation_table(results: Sequence[BenchmarkResult]) -> Table:
    """A row for each number, a column for each model: its mean ± sample standard deviation over ``protocol["training seed"]``.

    A single seed has no spread; a number that is undefined or absent for some seeds is the mean of the others, with a
    footnote, and one undefined for all is "n/a" with the reason. Equal for any order of the results. Raises FaceCaptionError
    for a result without a training seed, of an unknown task, or that stands twice.
    """
    layouts = task_layouts()
    by_model = _by_model(results)
    models = model_order(by_model)
    measures = {measure for seeds in by_model.values() for values in seeds.values() for measure in values}
    footnotes, rows = Footnotes(), []
    for task, layout in layouts.items():
        for data in layout.data_order(measure[1] for measure in measures if measure[0] == task):
            for pair in layout.measure_order(measure[2:] for measure in measures if measure[:2] == (task, data)):
                cells = [_cell(by_model[model], (task, data, *pair), footnotes) for model in models]
                names = (Cell((layout.heading(data),)), Cell((pair[0],)), Cell((pair[1],)))
                rows.append(Row("measured", layout.title, (*names, *cells)))
    stubs = [Column(Cell((heading,)), False) for heading in ("Data set", "Setting", "Metric")]
    columns = [Column(Cell((MODEL_TITLES.get(model, model),)), True) for model in models]
    remarks = [
        "All numbers in percent: mean ± sample standard deviation over the models' training seeds.",
        *_seeds(by_model),
    ]
    return Table("ablation", "Ablation over training seeds", [*stubs, *columns], rows, remarks, footnotes.texts)


def _by_model(results: Sequence[BenchmarkResult]) -> dict[str, dict[str, dict[Measure, Measurement]]]:
    """What was measured, by model id and training seed."""
    by_model: dict[str, dict[str, dict[Measure, Measurement]]] = {}
    seen = set()
    for result in results:
        require_task(result)
        if SEED not in result.protocol:
            raise FaceCaptionError(f"{result.key}: its protocol has no {SEED!r}; an ablation compares results by it")
        seed = result.protocol[SEED]
        if (result.key, seed) in seen:
            raise FaceCaptionError(f"{result.key}: two results of training seed {seed}")
        seen.add((result.key, seed))
        values = {(result.task, result.data, m.setting, m.metric): m for m in result.measurements}
        by_model.setdefault(result.model, {}).setdefault(seed, {}).update(values)
    return by_model


def _cell(by_seed: Mapping[str, Mapping[Measure, Measurement]], measure: Measure, footnotes: Footnotes) -> Cell:
    measured = [by_seed[seed][measure] for seed in _ordered(by_seed) if measure in by_seed[seed]]
    values = [one.value for one in measured if one.value is not None]
    if not measured:
        return value_cell(None, footnotes)
    _, _, setting, metric = measure
    if not values:
        reasons = "; ".join(sorted({one.why for one in measured}))
        return value_cell(Measurement(setting, metric, None, why=reasons), footnotes)
    spread = stdev(values) if len(values) > 1 else None
    mean = value_cell(Measurement(setting, metric, fmean(values), spread, len(values)), footnotes)
    if len(values) == len(by_seed):
        return mean
    return Cell(mean.lines, footnotes.numbers(f"Over {len(values)} of {len(by_seed)} training seeds."))


def _seeds(by_model: Mapping[str, Mapping[str, object]]) -> list[str]:
    return [
        f"{MODEL_TITLES.get(model, model)}: training seed{'s' if len(by_model[model]) > 1 else ''} "
        f"{', '.join(_ordered(by_model[model]))}."
        for model in model_order(by_model)
    ]


def _ordered(seeds: Mapping[str, object]) -> list[str]:
    """Whole numbers by size, other names after them."""
    return sorted(seeds, key=lambda seed: (not seed.isdecimal(), int(seed) if seed.isdecimal() else 0, seed))
