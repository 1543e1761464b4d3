"""A photo as a pen drawing that grows line by line: its edges, the longest drawn first.

Edges are those of Canny (1986), with thresholds from the photo's own gradients; pixels of an edge are joined to curves that
go on as straight as they can. The whole photo is shown, brought to the page's square as the models bring every picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from facecaption_ml.benchmarks.datasets.data import Rgb
from facecaption_ml.sample.canvas import Array
from facecaption_ml.sample.episodes import draw_in_steps

_WORKING: Final = 2  # edges are found at this many times the page's size, so that lines come out smooth
_BASE: Final = 256  # the page's size that the pixel numbers below are for
_CONTRAST: Final = 1.6  # how far a dull part of the photo is raised at most; dark hair would have no lines otherwise
_BLUR: Final = 2.6  # standard deviation in working pixels
_STRONG: Final = 91.0  # percentile of the gradient from which an edge starts
_WEAK: Final = 0.4  # of that, down to which an edge goes on
_LEAST_GRADIENT: Final = 85.0  # of the blurred photo at 256; grain reaches 60, the edges of dull photos 150
_SHORTEST: Final = 0.035  # of the page's side; shorter lines are left out
_WEIGHTS: Final = np.array([1, 4, 6, 4, 1], np.float32) / 16
_AROUND: Final = ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, -1), (-1, 1))
_STRAIGHTEST: Final = -0.2  # cosine of the sharpest turn that a line takes
_MEMORY: Final = 0.6  # how much of its direction a line keeps from pixel to pixel

Pixel = tuple[int, int]


def photo_sketches(photo: Rgb, steps: int, size: int = 256) -> list[npt.NDArray[np.uint8]]:
    """``steps`` sketches of an RGB uint8 [H, W, 3] photo, each uint8 [size, size], black (0) on white (255).

    Each has all that was there before; every step adds about the same length of line. A photo without any edge gives blank
    pages. Raises ValueError for fewer than one step and for an empty photo.
    """
    curves = photo_curves(photo, size)
    width = max(1, round(size / _BASE))
    return draw_in_steps(curves, [width] * len(curves), steps, size)


def photo_curves(photo: Rgb, size: int = 256) -> list[Array]:
    """The lines of the drawing, float32 [N, 2] (x, y) in pixels of a page of size × size, longest first; maybe none."""
    if photo.ndim != 3 or photo.shape[2] != 3 or not photo.size:
        raise ValueError(f"a photo is RGB [H, W, 3] with pixels in it, not {list(photo.shape)}")
    side = _WORKING * size
    curves = [_smoothed(np.array(pixels, np.float32)) for pixels in _lines(_edges(photo, side))]
    curves = [(curve + 0.5) * (size / side) - 0.5 for curve in curves]
    lengths = [float(np.hypot(*np.diff(curve, axis=0).T).sum()) for curve in curves]
    order = sorted(range(len(curves)), key=lambda i: (-lengths[i], i))
    return [curves[i] for i in order if lengths[i] >= _SHORTEST * size]


def _edges(photo: Rgb, side: int) -> npt.NDArray[np.bool_]:
    """bool [side, side]: pixels on an edge."""
    method = cv2.INTER_AREA if max(photo.shape[:2]) > side else cv2.INTER_CUBIC
    grey = cv2.cvtColor(cv2.resize(photo, (side, side), interpolation=method), cv2.COLOR_RGB2GRAY)
    scale = side / (_WORKING * _BASE)
    grey = cv2.createCLAHE(_CONTRAST, (4, 4)).apply(grey)
    grey = cv2.bilateralFilter(grey, 9, 30, 5 * scale)
    grey = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), _BLUR * scale)
    across, down = (cv2.Sobel(grey, cv2.CV_32F, *axes) * (4 * scale) for axes in ((1, 0), (0, 1)))
    strong = max(float(np.percentile(np.hypot(across, down), _STRONG)), _LEAST_GRADIENT)
    dx, dy = (np.clip(np.round(d), -32_000, 32_000).astype(np.int16) for d in (across, down))
    return np.asarray(cv2.Canny(dx, dy, _WEAK * strong, strong, L2gradient=True)) > 0


def _lines(edges: npt.NDArray[np.bool_]) -> Iterator[list[Pixel]]:
    """The pixels (x, y) of an edge picture as lines: each pixel in one of them, from the top down."""
    rows, columns = np.nonzero(edges)
    free = dict.fromkeys(zip(columns.tolist(), rows.tolist(), strict=True))
    while free:
        start = next(iter(free))
        del free[start]
        forwards = _walk(start, None, free)
        onwards = (start[0] - forwards[0][0], start[1] - forwards[0][1]) if forwards else None
        yield [*_walk(start, onwards, free)[::-1], start, *forwards]


def _walk(at: Pixel, heading: Pixel | None, free: dict[Pixel, None]) -> list[Pixel]:
    """Pixels from ``at`` (not among them) as straight on as it goes, taken from ``free``."""
    dx, dy = _unit(*heading) if heading else (0.0, 0.0)
    path: list[Pixel] = []
    while True:
        best, most = None, _STRAIGHTEST
        for ahead_x, ahead_y in _AROUND:
            if (at[0] + ahead_x, at[1] + ahead_y) in free:
                x, y = _unit(ahead_x, ahead_y)
                if x * dx + y * dy > most:
                    best, most = (ahead_x, ahead_y), x * dx + y * dy
        if best is None:
            return path
        at = (at[0] + best[0], at[1] + best[1])
        del free[at]
        path.append(at)
        x, y = _unit(*best)
        dx, dy = _unit(_MEMORY * dx + (1 - _MEMORY) * x, _MEMORY * dy + (1 - _MEMORY) * y)


def _unit(x: float, y: float) -> tuple[float, float]:
    length = math.hypot(x, y) or 1.0
    return x / length, y / length


def _smoothed(curve: Array) -> Array:
    """Without the steps of the pixel grid; the ends stay where they are."""
    if len(curve) < 2:
        return curve
    for _ in range(2):
        padded = np.concatenate([curve[:1], curve[:1], curve, curve[-1:], curve[-1:]])
        curve = np.stack([np.convolve(padded[:, axis], _WEIGHTS, "valid") for axis in (0, 1)], axis=1)
    return np.concatenate([curve[:-1:2], curve[-1:]]).astype(np.float32)
