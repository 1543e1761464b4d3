"""How a benchmark is measured, and what all three tasks share: protocols, seeds, means with spread, baselines by chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Final

import numpy as np
import numpy.typing as npt

from facecaption_ml.benchmarks.datasets.data import Pictures, Rows
from facecaption_ml.benchmarks.encoders.features import FeatureCache, PictureFeatures
from facecaption_ml.benchmarks.result import BenchmarkResult, Measurement
from facecaption_ml.benchmarks.tasks.probes import ProbeTraining

KS: Final = (1, 5, 10)
VALIDATION_ROWS: Final = 4_000
"""Validation pictures that an epoch is chosen by, at most; ranking is quadratic."""
CODE_VERSION: Final = "1"
"""Goes up where the same data, model and settings would give other numbers."""


@dataclass(frozen=True)
class ProbeProtocol:
    """Settings of a task's probes.

    ``views`` 1: every epoch sees the plain picture; V > 1: epoch e sees random view e mod V, where the authors draw anew in
    every epoch. ``runs`` probes are trained on ``device`` with the seeds ``seed``, ``seed`` + 1, …
    """

    epochs: int
    learning_rate: float
    batch_size: int
    weight_decay: float = 0.05
    runs: int = 3
    seed: int = 0
    views: int = 1
    device: str = "cpu"

    def training(self, run: int) -> ProbeTraining:
        return ProbeTraining(self.epochs, self.learning_rate, self.batch_size, self.weight_decay, self.seed + run)

    def words(self, validated: bool) -> dict[str, str]:
        """For the record of a result."""
        views = (
            "plain" if self.views == 1 else f"{self.views} random views, one an epoch; plain for validation and test"
        )
        return {
            "epochs": str(self.epochs),
            "learning rate": f"{self.learning_rate:g}, cosine to 0",
            "weight decay": f"{self.weight_decay:g}",
            "batch size": str(self.batch_size),
            "runs": str(self.runs),
            "first seed": str(self.seed),
            "views": views,
            "epoch": "best on the validation split" if validated else "last (the data set has no validation split)",
        }


RETRIEVAL: Final = ProbeProtocol(epochs=20, learning_rate=4e-4, batch_size=256)
ATTRIBUTES: Final = ProbeProtocol(epochs=100, learning_rate=0.3, batch_size=256)
SKETCHES: Final = ProbeProtocol(epochs=100, learning_rate=1e-6, batch_size=256)


@dataclass(frozen=True)
class Measured:
    """A result and the pictures that lie beside it, bytes by file ending such as ``layers.png``."""

    result: BenchmarkResult
    pictures: Mapping[str, bytes] = field(default_factory=dict)


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
        found = [cache.pictures(pictures, rows.tolist(), layers=layers, view=view) for view in views]
        kept = np.flatnonzero(np.all([features.readable for features in found], axis=0))
        if len(kept) == len(rows):
            return cls(rows, found, 0)
        some = [_rows_of(features, kept) for features in found]
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


def _rows_of(features: PictureFeatures, rows: npt.NDArray[np.int64]) -> PictureFeatures:
    layers = None if features.layers is None else features.layers[rows]
    return PictureFeatures(features.pooled[rows], layers, features.readable[rows])
