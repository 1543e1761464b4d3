"""What all three tasks share in measuring: features of a split, means with spread over seeds, baselines by chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from facecaption_ml.benchmarks.datasets.data import Pictures, Rows, Source
from facecaption_ml.benchmarks.encoders.features import FeatureCache, PictureFeatures
from facecaption_ml.benchmarks.encoders.models import FrozenModel
from facecaption_ml.benchmarks.options import ProbeProtocol
from facecaption_ml.benchmarks.result import BenchmarkResult, Measurement

KS: Final = (1, 5, 10)
VALIDATION_ROWS: Final = 4_000
"""Validation pictures that an epoch is chosen by, at most; ranking is quadratic."""
CODE_VERSION: Final = "2"
"""Goes up where the same data, model and settings would give other numbers."""


@dataclass(frozen=True)
class Measured:
    """A result and the figures that lie beside it, bytes by file ending such as ``layers.png``."""

    result: BenchmarkResult
    figures: Mapping[str, bytes] = field(default_factory=dict)


def result_of(
    task: str,
    source: Source,
    model: FrozenModel,
    *,
    counts: Mapping[str, int],
    notes: Sequence[str] = (),
    **fields: Any,
) -> BenchmarkResult:
    """A result with what the reader of ``source`` left out and noted, and with the versions; ``fields`` are the others."""
    return BenchmarkResult(
        task,
        model.name,
        source.name,
        counts={**counts, **{f"left out: {reason}": count for reason, count in source.excluded.items()}},
        versions={"data": source.version, "model": model.version, "code": CODE_VERSION},
        notes=[*source.notes, *notes],
        **fields,
    )


@dataclass(frozen=True)
class SplitFeatures:
    """The readable rows of a split, with their features under each view: one for evaluation, ``views`` for training."""

    rows: Rows
    views: Sequence[PictureFeatures]
    unreadable: int

    @classmethod
    def of(
        cls, cache: FeatureCache, pictures: Pictures, rows: Rows, *, layers: bool, views: Sequence[int] = (0,)
    ) -> SplitFeatures:
        by_view = [cache.pictures(pictures, rows.tolist(), layers=layers, view=view) for view in views]
        kept = np.flatnonzero(np.all([features.readable for features in by_view], axis=0))
        if len(kept) == len(rows):
            return cls(rows, by_view, 0)
        some = [
            PictureFeatures(f.pooled[kept], None if f.layers is None else f.layers[kept], f.readable[kept])
            for f in by_view
        ]
        return cls(rows[kept], some, len(rows) - len(kept))


def training_views(protocol: ProbeProtocol) -> Sequence[int]:
    """The numbers of the views that a training goes through: the plain one, or 1 … V."""
    return (0,) if protocol.views == 1 else range(1, protocol.views + 1)


def over_runs(setting: str, metric: str, values: Sequence[float | None], why: str = "") -> Measurement:
    """The mean over runs with its standard deviation; not defined, because of ``why``, where a run's value is not."""
    numbers = [value for value in values if value is not None]
    if not values or len(numbers) < len(values):
        return Measurement(setting, metric, None, None, len(values), why or "not defined")
    spread = stdev(numbers) if len(numbers) > 1 else None
    return Measurement(setting, metric, mean(numbers), spread, len(numbers))


def chance_recall(own: npt.ArrayLike, gallery: int, k: int) -> float:
    """R@k of a random order, mean over queries with ``own`` [N] items each in a gallery: 1 − C(M − own, k) / C(M, k)."""
    counts, sizes = np.unique(np.asarray(own, np.int64), return_counts=True)
    misses = [
        math.prod((gallery - count - place) / (gallery - place) for place in range(k)) if gallery - count >= k else 0.0
        for count in counts.tolist()
    ]
    return float(1 - np.average(misses, weights=sizes))
