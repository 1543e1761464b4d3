"""The order and the headings of the benchmark tables: data sets and models by the registries, the rest by ``tables.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from facecaption_ml.benchmarks.datasets.registry import DATA_SETS, data_sets
from facecaption_ml.benchmarks.encoders.registry import MODEL_TITLES
from facecaption_ml.benchmarks.result import BenchmarkResult
from facecaption_ml.errors import FaceCaptionError


@dataclass(frozen=True)
class TaskLayout:
    """One task's table: its title, heading by data set id, and settings and metrics, all in the order of their columns."""

    title: str
    data: Mapping[str, str]
    settings: Sequence[str]
    metrics: Sequence[str]

    def heading(self, data: str) -> str:
        """A data set's heading; one that is not known here has its own name."""
        return self.data.get(data, data)

    def data_order(self, ids: Iterable[str]) -> list[str]:
        """Data set ids, each once, in the order of the table; others follow by name."""
        return _ordered(ids, list(self.data))

    def measure_order(self, measures: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """(setting, metric), each once, in the order of the columns; others follow by name."""
        pairs = set(measures)
        settings = _ordered((setting for setting, _ in pairs), self.settings)
        metrics = _ordered((metric for _, metric in pairs), self.metrics)
        return [(setting, metric) for setting in settings for metric in metrics if (setting, metric) in pairs]


def task_layouts() -> Mapping[str, TaskLayout]:
    """The layout of each task, in the order of the paper's tables."""
    return {
        task: TaskLayout(data={name: spec.title for name, spec in data_sets(task).items()}, **given)
        for task, given in _stored().items()
    }


def require_task(result: BenchmarkResult) -> None:
    """Raises FaceCaptionError for a result of a task that there is not."""
    if result.task not in _stored():
        tasks = ", ".join(_stored())
        raise FaceCaptionError(f"{result.key}: there is no task {result.task!r}; the tasks are {tasks}")


def model_order(ids: Iterable[str]) -> list[str]:
    """Model ids, each once, in the order of the rows; others, such as a checkpoint folder's, follow by name."""
    return _ordered(ids, list(MODEL_TITLES))


def own_data() -> Sequence[str]:
    """The ids of data sets made here, on which nobody has published anything."""
    return [spec.name for spec in DATA_SETS if not spec.published]


def _ordered(ids: Iterable[str], known: Sequence[str]) -> list[str]:
    names = set(ids)
    return [*(name for name in known if name in names), *sorted(names - set(known))]


@lru_cache(maxsize=1)
def _stored() -> dict[str, Any]:
    return tomllib.loads(files("facecaption_ml.benchmarks.report").joinpath("tables.toml").read_text("utf-8"))
