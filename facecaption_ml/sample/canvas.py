"""A float picture in three planes and the soft shapes that portraits and scenes are painted with.

Shapes are rasterised into a :class:`Mask`, a small window of coverage, so that a stroke costs what its own area costs and
not the area of the picture. Planes come first because NumPy then multiplies a mask into all three channels at full speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
Colour = Sequence[float] | npt.NDArray[np.floating]

_SUBPIXEL_BITS: Final = 4
_DIRECT_BLUR_SIGMA: Final = 4.0  # a wider blur is done on a smaller raster: same look, a fraction of the time


@dataclass(frozen=True)
class Mask:
    """Coverage 0–1, float32 [h, w], of the window whose top left pixel is (x0, y0)."""

    x0: int
    y0: int
    cover: Array

    def clipped(self, other: Mask) -> Mask | None:
        """The product of both coverages; None where the windows do not meet."""
        x0, y0 = max(self.x0, other.x0), max(self.y0, other.y0)
        x1 = min(self.x0 + self.cover.shape[1], other.x0 + other.cover.shape[1])
        y1 = min(self.y0 + self.cover.shape[0], other.y0 + other.cover.shape[0])
        if x1 <= x0 or y1 <= y0:
            return None
        mine = self.cover[y0 - self.y0 : y1 - self.y0, x0 - self.x0 : x1 - self.x0]
        theirs = other.cover[y0 - other.y0 : y1 - other.y0, x0 - other.x0 : x1 - other.x0]
        return Mask(x0, y0, mine * theirs)

    def edge(self, sigma: float) -> Mask:
        """Coverage near the inner rim, 0 deep inside: what ambient light does not reach."""
        inner = _blur(self.cover, sigma)
        return Mask(self.x0, self.y0, np.clip((1.0 - inner) * 2.0, 0, 1) * self.cover)


class Canvas:
    """An RGB picture under way: ``planes`` float32 [3, H, W], 0–255."""

    def __init__(self, planes: Array) -> None:
        self.planes = planes
        self.height, self.width = planes.shape[1:]

    def image(self) -> npt.NDArray[np.uint8]:
        """RGB uint8 [H, W, 3]."""
        merged = cv2.merge([self.planes[0], self.planes[1], self.planes[2]])
        return cv2.convertScaleAbs(np.maximum(merged, 0))

    # -- shapes ------------------------------------------------------------------------------------------------------

    def polygon(self, points: Array, soft: float = 0.0) -> Mask | None:
        """A filled outline [N, 2] in pixels, its edge blurred by ``soft`` pixels (sigma)."""
        return self._raster([points], soft, 0.0, closed=True)

    def lines(self, curves: Sequence[Array] | Array, width: float, soft: float = 0.0) -> Mask | None:
        """Open curves in pixels, each [N, 2] or all in one array [C, N, 2], ``width`` pixels wide.

        Thinner than a pixel means fainter.
        """
        return self._raster(curves, soft, max(width, 0.05), closed=False)

    def glow(self, centre: Array, rx: float, ry: float) -> Mask | None:
        """A Gaussian spot: 1 in the centre, 0.6 at (rx, 0) and (0, ry)."""
        x, y = float(centre[0]), float(centre[1])
        window = self._window(x - 3 * rx, y - 3 * ry, x + 3 * rx, y + 3 * ry)
        if window is None:
            return None
        x0, y0, x1, y1 = window
        across = np.exp(-0.5 * ((np.arange(x0, x1, dtype=np.float32) - x) / max(rx, 0.3)) ** 2)
        down = np.exp(-0.5 * ((np.arange(y0, y1, dtype=np.float32) - y) / max(ry, 0.3)) ** 2)
        return Mask(x0, y0, np.outer(down, across).astype(np.float32))

    def _window(self, x0: float, y0: float, x1: float, y1: float) -> tuple[int, int, int, int] | None:
        left, top = max(int(np.floor(x0)), 0), max(int(np.floor(y0)), 0)
        right, bottom = min(int(np.ceil(x1)) + 1, self.width), min(int(np.ceil(y1)) + 1, self.height)
        return (left, top, right, bottom) if right > left and bottom > top else None

    def _raster(self, curves: Sequence[Array] | Array, soft: float, width: float, closed: bool) -> Mask | None:
        flat = np.concatenate(curves)
        lows, highs = flat.min(axis=0), flat.max(axis=0)
        pad = 3.0 * soft + width / 2 + 1
        window = self._window(lows[0] - pad, lows[1] - pad, highs[0] + pad, highs[1] + pad)
        if window is None:
            return None
        x0, y0, x1, y1 = window
        shrink = min(1.0, _DIRECT_BLUR_SIGMA / soft) if soft > 0 else 1.0
        w, h = max(int((x1 - x0) * shrink), 1), max(int((y1 - y0) * shrink), 1)
        raster = np.zeros((h, w), np.uint8)
        scale = np.array([w / (x1 - x0), h / (y1 - y0)], np.float32)
        whole = np.round((flat - np.array([x0, y0], np.float32)) * scale * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        ends = np.cumsum([len(curve) for curve in curves]).tolist()
        fixed = [whole[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        gain = 1.0
        if closed:
            cv2.fillPoly(raster, fixed, 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        else:
            thickness = max(1, round(width * shrink))
            gain = min(1.0, width * shrink / thickness)
            cv2.polylines(raster, fixed, False, 255, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
        if soft > 0.25:
            cv2.GaussianBlur(raster, (0, 0), soft * shrink, dst=raster)
        if shrink < 1.0:
            raster = np.asarray(cv2.resize(raster, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR), np.uint8)
        return Mask(x0, y0, raster.astype(np.float32) * np.float32(gain / 255.0))

    # -- paint -------------------------------------------------------------------------------------------------------

    def paint(self, mask: Mask | None, colour: Colour, alpha: float = 1.0, within: Mask | None = None) -> None:
        """Blend towards ``colour`` (three numbers, 0–255) by ``alpha`` × coverage."""
        mask = mask if mask is None or within is None else mask.clipped(within)
        if mask is None:
            return
        area = self._area(mask)
        weight = mask.cover * np.float32(alpha)
        for plane, level in zip(area, colour, strict=True):
            plane += (np.float32(level) - plane) * weight

    def shade(self, mask: Mask | None, factor: Colour | float, alpha: float = 1.0, within: Mask | None = None) -> None:
        """Multiply by ``factor`` (one number or one a channel; above 1 lightens) by ``alpha`` × coverage."""
        mask = mask if mask is None or within is None else mask.clipped(within)
        if mask is None:
            return
        factors = (factor,) * 3 if isinstance(factor, int | float) else factor
        area = self._area(mask)
        weight = mask.cover * np.float32(alpha)
        for plane, by in zip(area, factors, strict=True):
            plane *= 1.0 + np.float32(by - 1.0) * weight

    def _area(self, mask: Mask) -> Array:
        h, w = mask.cover.shape
        return self.planes[:, mask.y0 : mask.y0 + h, mask.x0 : mask.x0 + w]


def _blur(cover: Array, sigma: float) -> Array:
    if sigma <= _DIRECT_BLUR_SIGMA:
        return np.asarray(cv2.GaussianBlur(cover, (0, 0), max(sigma, 0.3)), np.float32)
    h, w = cover.shape
    shrink = _DIRECT_BLUR_SIGMA / sigma
    small = cv2.resize(cover, (max(int(w * shrink), 2), max(int(h * shrink), 2)), interpolation=cv2.INTER_AREA)
    # zero outside: a shape that touches the window's border still has its rim there
    small = cv2.GaussianBlur(small, (0, 0), _DIRECT_BLUR_SIGMA, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR), np.float32)


# -- curves ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _spline_basis(count: int, per_segment: int, closed: bool) -> Array:
    """Weights [samples, count] of a Catmull–Rom spline through ``count`` points."""
    segments = count if closed else count - 1
    rows = []
    for segment in range(segments):
        for t in np.arange(per_segment) / per_segment:
            rows.append(_catmull_rom_row(count, segment, float(t), closed))
    if not closed:
        rows.append(_catmull_rom_row(count, segments - 1, 1.0, closed))
    return np.array(rows, np.float32)


def _catmull_rom_row(count: int, segment: int, t: float, closed: bool) -> Array:
    weights = (
        0.5 * (-t + 2 * t**2 - t**3),
        0.5 * (2 - 5 * t**2 + 3 * t**3),
        0.5 * (t + 4 * t**2 - 3 * t**3),
        0.5 * (-(t**2) + t**3),
    )
    row = np.zeros(count, np.float32)
    for offset, weight in zip((-1, 0, 1, 2), weights, strict=True):
        index = segment + offset
        row[index % count if closed else min(max(index, 0), count - 1)] += weight
    return row


def smooth(points: Sequence[Sequence[float]] | Array, per_segment: int = 6, closed: bool = False) -> Array:
    """A Catmull–Rom curve [M, 2] through ``points`` [N, 2]; M = N·per_segment when closed, else (N−1)·per_segment + 1."""
    control = np.asarray(points, np.float32)
    return _spline_basis(len(control), per_segment, closed) @ control


def resample(curve: Array, count: int) -> Array:
    """``count`` points at equal arc length along an open curve [N, 2]."""
    steps = np.hypot(*np.diff(curve, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    at = np.linspace(0.0, along[-1], count)
    return np.stack([np.interp(at, along, curve[:, 0]), np.interp(at, along, curve[:, 1])], axis=1).astype(np.float32)


def moved(points: Array, dx: float, dy: float) -> Array:
    """Points [..., 2] shifted by (dx, dy)."""
    return points + np.array([dx, dy], np.float32)


def mirror(points: Sequence[Sequence[float]] | Array) -> Array:
    """Points [N, 2] reflected in the axis x = 0."""
    return np.asarray(points, np.float32) * np.array([-1, 1], np.float32)
