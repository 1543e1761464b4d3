"""Sketch episodes: the strokes of a portrait as an ordered series of ever fuller sketches."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from facecaption_ml.sample.canvas import Array
from facecaption_ml.sample.portraits import Portrait

_SUBPIXEL_BITS = 4


def sketch_episode(portrait: Portrait, steps: int, size: int = 256) -> list[npt.NDArray[np.uint8]]:
    """``steps`` sketches, each uint8 [size, size], black strokes (0) on white (255), each with all that was there before.

    Every step adds about the same length of line; a stroke may be cut between two steps, as a pen is caught mid-stroke.
    Raises ValueError for fewer than one step.
    """
    scale = size / portrait.image.shape[0]
    strokes = [stroke for stroke in portrait.strokes if len(stroke.points) > 1]
    widths = [max(1, round(stroke.width * scale)) for stroke in strokes]
    return draw_in_steps([stroke.points * scale for stroke in strokes], widths, steps, size)


def draw_in_steps(curves: Sequence[Array], widths: Sequence[int], steps: int, size: int) -> list[npt.NDArray[np.uint8]]:
    """Curves [N, 2] in pixels (N ≥ 2), in this order and so many pixels wide each, as ``steps`` sketches of a growing drawing.

    Each sketch is uint8 [size, size], black (0) on white (255), and has all that was there before; every step adds about the
    same length of line. Without curves all are blank. Raises ValueError for fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; an episode has at least one")
    lengths = [float(np.hypot(*np.diff(curve, axis=0).T).sum()) for curve in curves]
    ends = np.cumsum(lengths)
    total = float(ends[-1]) if len(ends) else 0.0
    page = np.full((size, size), 255, np.uint8)
    sketches, drawn = [], 0.0
    for step in range(1, steps + 1):
        until = total * step / steps if step < steps else total
        for curve, width, length, end in zip(curves, widths, lengths, ends, strict=True):
            start = float(end) - length
            if start < until and end > drawn and length > 0:
                _draw(page, _piece(curve, max(drawn - start, 0.0), min(until - start, length)), width)
        drawn = until
        sketches.append(page.copy())
    return sketches


def _piece(curve: Array, start: float, stop: float) -> Array:
    """The part of a curve [N, 2] between two lengths along it."""
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(curve, axis=0).T))])
    at = np.concatenate([[start], along[(along > start) & (along < stop)], [stop]])
    return np.stack([np.interp(at, along, curve[:, 0]), np.interp(at, along, curve[:, 1])], axis=1).astype(np.float32)


def _draw(page: npt.NDArray[np.uint8], curve: Array, width: int) -> None:
    fixed = np.round(curve * (1 << _SUBPIXEL_BITS)).astype(np.int32)
    cv2.polylines(page, [fixed], False, 0, width, cv2.LINE_AA, _SUBPIXEL_BITS)
