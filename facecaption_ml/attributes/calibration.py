"""Temperature scaling per attribute (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017): 0.85 means 0.85."""

from __future__ import annotations

from typing import Final

import numpy as np

_GRID: Final = np.exp(np.linspace(np.log(0.25), np.log(4.0), 241))
_PRIOR_ROWS: Final = 100.0


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
