"""Distributions of scores in bounded memory: counted in any order, they give the same numbers to the last digit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

_UNIT: Final = 1 << 30
"""Scores are summed as whole multiples of 2^-30, so that no order of adding them changes a sum."""
QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
SUMMARY_COLUMNS: Final = dict.fromkeys(("mean", "sd", "median", "p05", "p25", "p75", "p95"), pl.Float64)
"""What ``summary_stats`` gives, as columns of a table."""


@dataclass
class ScoreDistribution:
    """Counts of scores in ``bins`` equal bins of ``low`` … ``high``, beside their exact sums.

    Scores outside the range are counted in the first or last bin; mean and sd are of the scores themselves. Mean, sd and
    quantiles are None without a score.
    """

    low: float
    high: float
    bins: int
    counts: npt.NDArray[np.int64] = field(init=False)
    total: int = 0  # sum of the scores, in multiples of 2^-30
    squares: int = 0  # sum of their squares, in multiples of 2^-60

    def __post_init__(self) -> None:
        self.counts = np.zeros(self.bins, np.int64)

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    def add(self, scores: npt.ArrayLike) -> None:
        """Count ``scores`` (any shape). Raises ValueError for one that is not finite."""
        values = np.asarray(scores, np.float64).ravel()
        if not np.isfinite(values).all():
            raise ValueError("scores: NaN and infinity cannot be counted")
        place = np.floor((values - self.low) * (self.bins / (self.high - self.low))).astype(np.int64)
        self.counts += np.bincount(place.clip(0, self.bins - 1), minlength=self.bins)
        whole = [round(value * _UNIT) for value in values.tolist()]
        self.total += sum(whole)
        self.squares += sum(value * value for value in whole)

    @property
    def mean(self) -> float | None:
        return self.total / _UNIT / self.n if self.n else None

    @property
    def sd(self) -> float | None:
        """Standard deviation of the population."""
        n = self.n
        return math.sqrt(max(0, n * self.squares - self.total**2)) / n / _UNIT if n else None

    def quantile(self, share: float) -> float | None:
        """The score below which ``share`` of all lie, within one bin's width (inside the range)."""
        n = self.n
        if not n:
            return None
        cumulated = np.cumsum(self.counts)
        place = int(np.searchsorted(cumulated, max(share * n, 0.5)))
        place = min(place, int(np.flatnonzero(self.counts)[-1]))
        inside = (share * n - (cumulated[place] - self.counts[place])) / self.counts[place]
        return float(self.low + (place + min(max(inside, 0.0), 1.0)) * (self.high - self.low) / self.bins)

    def rebin(self, low: float, high: float, bins: int) -> list[int]:
        """Counts [bins] for a figure; what lies outside is counted in the first or last bin."""
        edges = np.linspace(self.low, self.high, self.bins + 1)
        middles = (edges[:-1] + edges[1:]) / 2
        place = np.floor((middles - low) * (bins / (high - low))).astype(np.int64).clip(0, bins - 1)
        counts = np.zeros(bins, np.int64)
        np.add.at(counts, place, self.counts)
        return counts.tolist()

    def summary_stats(self) -> dict[str, float | None]:
        """As :data:`SUMMARY_COLUMNS`."""
        quantiles = {f"p{round(share * 100):02d}": self.quantile(share) for share in QUANTILES}
        return {"mean": self.mean, "sd": self.sd, "median": quantiles.pop("p50"), **quantiles}


def roc_auc(higher: ScoreDistribution, lower: ScoreDistribution) -> float | None:
    """Area under the ROC curve: the chance that a score of ``higher`` is above one of ``lower``; a shared bin counts half.

    None where either is empty.
    """
    if not higher.n or not lower.n:
        return None
    below = np.cumsum(lower.counts) - lower.counts
    wins = sum(int(h) * (2 * int(b) + int(w)) for h, b, w in zip(higher.counts, below, lower.counts, strict=True) if h)
    return wins / (2 * higher.n * lower.n)
