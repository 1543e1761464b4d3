"""A temperature (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017) and an offset (Platt, 1999) per attribute:
0.85 means 0.85."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

_GRID: Final = np.exp(np.linspace(np.log(0.25), np.log(4.0), 241))
_PRIOR_ROWS: Final = 100.0
_OFFSET_PRIOR: Final = 20.0
"""Of an offset, the inverse of its variance beforehand: cross-fitted on halves of 600 faces, 10 to 30 did equally well."""
_STEPS: Final = 30
_ROUNDS: Final = 3


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Elementwise, without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(logits, np.float64)))


def fit_temperatures(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The temperature of each attribute, float64 [T], that suits held-out ``logits`` [N, T] and ``labels`` bool [N, T] best.

    Each minimises its own log loss plus that of ``_PRIOR_ROWS`` rows' worth of all attributes together, so that a rare
    attribute with a handful of positives stays near the temperature that they share. Temperatures lie in 0.25–4.
    """
    signed = np.where(labels, 1.0, -1.0) * np.asarray(logits, np.float64)
    losses = np.stack([np.logaddexp(0.0, -signed / temperature).mean(0) for temperature in _GRID])  # [G, T]
    shared = losses.mean(1, keepdims=True)
    rows = len(logits)
    return _GRID[np.argmin(rows * losses + _PRIOR_ROWS * shared, axis=0)]


@dataclass(frozen=True)
class Calibration:
    """From a network's logits to probabilities; both float64 [T]."""

    temperatures: np.ndarray
    offsets: np.ndarray

    @classmethod
    def fit(cls, logits: np.ndarray, labels: np.ndarray) -> Calibration:
        """From held-out ``logits`` [N, T] and ``labels`` bool [N, T]; rounded, so that a file can keep it."""
        x = np.asarray(logits, np.float64)
        offsets = fit_offsets(x, labels)
        for _ in range(_ROUNDS):  # each is right for the other's last value
            temperatures = fit_temperatures(x + offsets, labels)
            offsets = temperatures * fit_offsets(x / temperatures, labels)
        return cls(np.round(temperatures, 4), np.round(offsets, 4))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """float64 [N, T] in 0–1."""
        return sigmoid((np.asarray(logits, np.float64) + self.offsets) / self.temperatures)


def fit_offsets(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What to add to ``logits`` [N, T], whose temperature is right, float64 [T]: the most likely one, near 0 beforehand.

    The mean of an attribute's probabilities then is all but the share of its positives (Newton's method on a convex loss).
    """
    z, truth = np.asarray(logits, np.float64), np.asarray(labels, np.float64)
    offsets = np.zeros(z.shape[1])
    for _ in range(_STEPS):
        p = sigmoid(z + offsets)
        step = ((truth - p).sum(0) - _OFFSET_PRIOR * offsets) / ((p * (1 - p)).sum(0) + _OFFSET_PRIOR)
        offsets += step.clip(-1, 1)
    return offsets


def share_right_between(probabilities: np.ndarray, labels: np.ndarray, low: float, high: float) -> float:
    """Of the positive predictions given ``low`` < p ≤ ``high``, the share that is right; NaN where there are none."""
    chosen = (probabilities > low) & (probabilities <= high)
    return float(labels[chosen].mean()) if chosen.any() else float("nan")


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 10) -> float:
    """Mean distance of confidence and truth over equal-width bins of p, weighted by their rows. Both are [N]."""
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    error = 0.0
    for number in range(bins):
        chosen = place == number
        if chosen.any():
            error += chosen.mean() * abs(probabilities[chosen].mean() - labels[chosen].mean())
    return float(error)
