"""Labelled pictures that a small network learns in seconds."""

from __future__ import annotations

import numpy as np


def pictures(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise with more or less of each colour, which decides three attributes; the other 37 are one class or the other."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((count, 40), bool)
    labels[:, 10:20] = True
    labels[:, :3] = rng.random((count, 3)) < 0.5
    pixels = rng.integers(40, 80, (count, 48, 36, 3), dtype=np.uint8)
    return pixels + (labels[:, None, None, :3] * 120).astype(np.uint8), labels
