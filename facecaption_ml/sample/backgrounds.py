"""What stands behind people: walls, rooms, gardens, studios, with clutter; and the grain of the film."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from facecaption_ml.sample.canvas import Array, Canvas, smooth

_GRAIN_SIDE = 1024


def paint_background(canvas: Canvas, rng: np.random.Generator, clutter: float = 1.0) -> None:
    """Fill the canvas: a gradient or a soft cloud, then furniture-like things, spots of light, lettering."""
    _paint_wall(canvas, rng)
    kind = int(rng.integers(6))
    if kind == 0:
        _paint_room(canvas, rng)
    elif kind == 1:
        _paint_foliage(canvas, rng)
    elif kind == 2:
        _paint_bokeh(canvas, rng)
    elif kind == 3:
        _paint_shelves(canvas, rng)
    if kind != 2:
        _paint_shapes(canvas, rng, int(rng.integers(2, 7) * clutter))
    if rng.random() < 0.3:
        _paint_lettering(canvas, rng)
    if rng.random() < 0.6:
        _soften(canvas, float(rng.uniform(0.004, 0.014)) * min(canvas.width, canvas.height))


def _colour(rng: np.random.Generator, low: float = 20, high: float = 235) -> Array:
    grey = rng.uniform(low, high)
    return np.clip(grey + rng.normal(0, 19, 3), 8, 248).astype(np.float32)


def _paint_wall(canvas: Canvas, rng: np.random.Generator) -> None:
    base = _colour(rng, 45, 225)
    light, tint = rng.normal(0, 30, (3, 3)), rng.normal(0, 7, (3, 3, 3))
    grid = np.clip(base[:, None, None] + light + tint, 6, 250)
    for plane, small in zip(canvas.planes, grid.astype(np.float32), strict=True):
        plane[:] = cv2.resize(small, (canvas.width, canvas.height), interpolation=cv2.INTER_CUBIC)


def _paint_shapes(canvas: Canvas, rng: np.random.Generator, count: int) -> None:
    side = min(canvas.width, canvas.height)
    for _ in range(count):
        centre = rng.uniform((0, 0), (canvas.width, canvas.height))
        size = rng.uniform(0.06, 0.3, 2) * side
        corners = int(rng.integers(3, 8))
        angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
        points = (centre + np.stack([np.cos(angle), np.sin(angle)], 1) * size).astype(np.float32)
        if rng.random() < 0.5:
            points = smooth(points, closed=True)
        mask = canvas.polygon(points, float(rng.uniform(0, 0.01)) * side)
        canvas.paint(mask, _colour(rng), float(rng.uniform(0.35, 0.95)))


def _paint_room(canvas: Canvas, rng: np.random.Generator) -> None:
    w, h = canvas.width, canvas.height
    floor = h * rng.uniform(0.6, 0.85)
    canvas.paint(canvas.polygon(np.array([(0, floor), (w, floor), (w, h), (0, h)], np.float32)), _colour(rng), 0.85)
    for _ in range(int(rng.integers(1, 4))):  # window, picture or cupboard
        x, y = rng.uniform(0, w), rng.uniform(0, floor * 0.7)
        dx, dy = rng.uniform(0.08, 0.25) * w, rng.uniform(0.1, 0.35) * h
        frame = np.array([(x - dx, y - dy), (x + dx, y - dy), (x + dx, y + dy), (x - dx, y + dy)], np.float32)
        canvas.paint(canvas.polygon(frame, 0.5), _colour(rng, 60, 220))
        inner = frame * 0.86 + frame.mean(axis=0) * 0.14
        canvas.paint(canvas.polygon(inner, 0.5), _colour(rng, 60, 250))
        if rng.random() < 0.6:
            bars = [inner[[0, 1]] * 0.5 + inner[[3, 2]] * 0.5, inner[[0, 3]] * 0.5 + inner[[1, 2]] * 0.5]
            canvas.paint(canvas.lines(bars, 0.008 * w), _colour(rng, 60, 220))


def _paint_shelves(canvas: Canvas, rng: np.random.Generator) -> None:
    w, h = canvas.width, canvas.height
    rows = int(rng.integers(2, 5))
    for row in range(rows):
        low = h * (row + 1) / rows
        x = 0.0
        while x < w:
            wide, tall = rng.uniform(0.02, 0.06) * w, rng.uniform(0.45, 0.8) * h / rows
            book = np.array([(x, low - tall), (x + wide, low - tall), (x + wide, low), (x, low)], np.float32)
            canvas.paint(canvas.polygon(book), _colour(rng), 0.8)
            x += wide * rng.uniform(1.0, 1.3)
        canvas.paint(canvas.lines([np.array([(0, low), (w, low)], np.float32)], 0.015 * h), _colour(rng, 30, 120))


def _paint_foliage(canvas: Canvas, rng: np.random.Generator) -> None:
    side = min(canvas.width, canvas.height)
    green = np.array([rng.uniform(40, 110), rng.uniform(90, 150), rng.uniform(30, 90)], np.float32)
    for _ in range(26):
        centre = rng.uniform((0, 0), (canvas.width, canvas.height)).astype(np.float32)
        angle, long = rng.uniform(0, 6.3), rng.uniform(0.05, 0.14) * side
        along = np.array([np.cos(angle), np.sin(angle)]) * long
        over = np.array([-along[1], along[0]]) * 0.4
        leaf = smooth(np.stack([centre - along, centre + over, centre + along, centre - over]), closed=True)
        canvas.paint(canvas.polygon(leaf, 0.004 * side), green * rng.uniform(0.6, 1.5), float(rng.uniform(0.4, 0.9)))


def _paint_bokeh(canvas: Canvas, rng: np.random.Generator) -> None:
    side = min(canvas.width, canvas.height)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    wheel = np.stack([np.cos(angle), np.sin(angle)], 1)
    for _ in range(16):
        centre = rng.uniform((0, 0), (canvas.width, canvas.height))
        disc = (centre + wheel * rng.uniform(0.02, 0.09) * side).astype(np.float32)
        canvas.paint(canvas.polygon(disc, 0.006 * side), _colour(rng, 150, 250), float(rng.uniform(0.15, 0.6)))


def _paint_lettering(canvas: Canvas, rng: np.random.Generator) -> None:
    side = min(canvas.width, canvas.height)
    x, y = rng.uniform(0, 0.7) * canvas.width, rng.uniform(0.05, 0.95) * canvas.height
    tall = rng.uniform(0.03, 0.07) * side
    marks = []
    for _ in range(int(rng.integers(4, 10))):
        marks.append((np.array([x, y]) + rng.uniform(0, 1, (4, 2)) * (tall * 0.7, tall)).astype(np.float32))
        x += tall * rng.uniform(0.8, 1.1)
    canvas.paint(canvas.lines(marks, tall * 0.14), _colour(rng), 0.9)


def _soften(canvas: Canvas, sigma: float) -> None:
    """Out of focus; at a quarter of the size, which the blur hides."""
    small = (max(canvas.width // 3, 4), max(canvas.height // 3, 4))
    for plane in canvas.planes:
        low = cv2.GaussianBlur(cv2.resize(plane, small, interpolation=cv2.INTER_AREA), (0, 0), max(sigma / 3, 0.4))
        plane[:] = cv2.resize(low, (canvas.width, canvas.height), interpolation=cv2.INTER_LINEAR)


@lru_cache(maxsize=1)
def _grain_tile() -> Array:
    noise = np.random.default_rng(0x6A11).normal(0, 1, (_GRAIN_SIDE, _GRAIN_SIDE)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 0.7)
    return np.asarray(0.6 * noise + 0.9 * soft / soft.std(), np.float32)


def add_grain(canvas: Canvas, rng: np.random.Generator, strength: float) -> None:
    """Film grain, ``strength`` levels (standard deviation), mostly the same in all channels."""
    tile = _grain_tile()
    x, y = (int(rng.integers(_GRAIN_SIDE)) for _ in range(2))
    rows = np.arange(y, y + canvas.height) % _GRAIN_SIDE
    columns = np.arange(x, x + canvas.width) % _GRAIN_SIDE
    grain = tile[rows][:, columns] * np.float32(strength)
    canvas.planes += grain
