"""Task weights that follow the trend of the validation loss (He et al., "Adaptively Weighted Multi-task Deep Network for
Person Attribute Classification", ACM MM 2017, §3.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def adaptive_weights(history: Sequence[np.ndarray], window: int, strength: float = 1.0) -> np.ndarray:
    """One weight per task, mean 1, from the validation losses so far.

    ``history``: one float [T] of validation losses per measurement, oldest first. With c and p the mean losses of the last
    ``window`` measurements and of the ``window`` before them, the trend of a task is |c − p| / c, and its weight is its trend
    over the mean trend times its loss over the mean loss, scaled to mean 1: tasks that still move and still cost get more.
    Ones while fewer than 2·``window`` measurements are there. ``strength`` in 0–1 mixes with equal weights; a task is never
    given less than a fifth or more than five times its share, since a trend of zero would switch it off for good.
    """
    tasks = len(history[0]) if len(history) else 0
    if len(history) < 2 * window:
        return np.ones(tasks)
    losses = np.asarray(history, np.float64)
    current, previous = losses[-window:].mean(0), losses[-2 * window : -window].mean(0)
    trend = np.abs(current - previous) / np.maximum(current, 1e-12)
    raw = trend / max(trend.mean(), 1e-12) * current / max(current.mean(), 1e-12)
    weights = 1 + strength * (raw / max(raw.mean(), 1e-12) - 1)
    weights = weights.clip(0.2, 5.0)
    return weights / weights.mean()
