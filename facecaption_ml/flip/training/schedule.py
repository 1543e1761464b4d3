"""The learning rate, step by step (paper §5.1)."""

from __future__ import annotations

import math


def learning_rate(step: int, steps: int, first: float, peak: float, last: float, warm_up: int) -> float:
    """The rate of optimiser step ``step`` (from 0) of ``steps``: a straight line from ``first`` to ``peak`` over ``warm_up``
    steps, then a cosine down to ``last`` at the last step."""
    warm_up = min(warm_up, max(steps - 1, 0))
    if step < warm_up:
        return first + (peak - first) * step / warm_up
    share = (step - warm_up) / max(steps - 1 - warm_up, 1)
    return last + (peak - last) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))
