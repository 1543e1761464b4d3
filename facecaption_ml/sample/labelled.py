"""Labelled portraits, framed as the pipeline frames its crops: what the attribute predictor trains on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from facecaption_ml.sample.attribute_sampling import sample_labels
from facecaption_ml.sample.backgrounds import add_grain, paint_background
from facecaption_ml.sample.canvas import Array, Canvas
from facecaption_ml.sample.portraits import Portrait, Stroke, compose_person, face_box, paint_person, put_out_of_focus
from facecaption_ml.taxonomy import ATTRIBUTES

_FRAME_STREAM: Final = 0x1ABE1
_MARGIN: Final = 0.3  # of the face box's sides, on each of its four sides
_PER_TASK: Final = 32
_SCALES: Final = (46.0, 74.0)  # pixels a head unit: crops of about 115 to 190 pixels
Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.bool_]


def labelled_portraits(
    count: int,
    seed: int = 0,
    size: int = 112,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Images, Labels]:
    """``count`` face crops, uint8 [N, size, size, 3] RGB, and their attributes, bool [N, 40] in the order of ATTRIBUTES.

    A crop is the face box enlarged by 0.3 of its sides on each side and resized, with small errors of place, size and
    roll as a detector makes them. No person in it appears in any scene. The result depends on ``count``, ``seed`` and
    ``size`` only: with more ``workers`` (processes) it comes sooner. Raises ValueError for a negative count.
    """
    if count < 0 or workers < 1:
        raise ValueError(f"count is {count} and workers {workers}; they must be at least 0 and 1")
    tasks = [(seed, first, min(first + _PER_TASK, count), size) for first in range(0, count, _PER_TASK)]
    parts: list[tuple[Images, Labels]] = []
    with _mapper(workers) as mapped:
        for part in mapped(_draw_range, *zip(*tasks, strict=True)) if tasks else ():
            parts.append(part)
            if on_progress:
                on_progress(min(len(parts) * _PER_TASK, count), count)
    if not parts:
        return np.zeros((0, size, size, 3), np.uint8), np.zeros((0, len(ATTRIBUTES)), np.bool_)
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Iterable[tuple[Images, Labels]]]]:
    """``map``, over processes where there is more than one worker."""
    if workers == 1:
        yield map
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool.map


def _draw_range(seed: int, first: int, last: int, size: int) -> tuple[Images, Labels]:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        drawn = [_draw_crop(seed, index, size) for index in range(first, last)]
    finally:
        cv2.setNumThreads(threads)
    labels = np.array([[name in held for name in ATTRIBUTES] for _, held in drawn], np.bool_)
    return np.stack([image for image, _ in drawn]), labels


def portrait_people(count: int, seed: int = 0) -> list[int]:
    """The numbers that the people of ``labelled_portraits`` are drawn from; nothing is drawn here."""
    return [_stream(seed, index)[1] for index in range(count)]


def _stream(seed: int, index: int) -> tuple[np.random.Generator, int]:
    """What is random about a portrait beside its person, and the person."""
    rng = np.random.default_rng((_FRAME_STREAM, seed, index))
    return rng, 2 * int(rng.integers(2**60)) + 1  # odd: see scenes.plan_scene


def _draw_crop(seed: int, index: int, size: int) -> tuple[Images, frozenset[str]]:
    rng, person = _stream(seed, index)
    return draw_crop(rng, person, size), sample_labels(person)


def draw_crop(rng: np.random.Generator, person: int, size: int = 112) -> Images:
    """One crop as ``labelled_portraits`` has them, uint8 [size, size, 3] RGB, of a person with ``sample_labels(person)``.

    Background, scale, compression and the detector's small errors are drawn from ``rng``.
    """
    labels = sample_labels(person)
    scale = float(rng.uniform(*_SCALES))
    width, height = int(3.1 * scale), int(3.7 * scale)
    canvas = Canvas(np.empty((3, height, width), np.float32))
    paint_background(canvas, rng)
    # a crop has been turned upright; the landmarks leave a little roll behind
    context = compose_person(canvas, labels, person, (width * 0.5, height * 0.45), scale, tilt=0.2)
    paint_person(context)
    if "Blurry" in labels:
        put_out_of_focus(context, whole=True)
    add_grain(canvas, rng, float(rng.uniform(1.0, 3.5)) * scale / 110)
    image = _as_jpeg(canvas.image(), int(rng.integers(70, 96)))
    x0, y0, x1, y1 = face_box(context)
    w, h = (x1 - x0) * rng.uniform(0.96, 1.04), (y1 - y0) * rng.uniform(0.96, 1.04)
    cx = (x0 + x1) / 2 + rng.normal(0, 0.015) * w
    cy = (y0 + y1) / 2 + rng.normal(0, 0.015) * h
    return _cut(image, _crop_matrix(cx, cy, w, h, size), size)


def framed(portrait: Portrait, size: int = 224) -> Portrait:
    """The portrait cut to ``size`` × ``size`` pixels as the pipeline cuts a face, its strokes and landmarks with it."""
    x0, y0, x1, y1 = portrait.box
    matrix = _crop_matrix((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, size)
    step, corner = matrix[:, :2].diagonal(), matrix[:, 2]

    def moved(points: Array) -> Array:
        return ((points - corner) / step).astype(np.float32)

    strokes = [Stroke(s.part, moved(s.points), s.width / float(step.mean())) for s in portrait.strokes]
    left, top, right, low = moved(np.array([[x0, y0], [x1, y1]])).ravel().tolist()
    return replace(
        portrait,
        image=_cut(portrait.image, matrix, size),
        box=(left, top, right, low),
        landmarks=moved(portrait.landmarks),
        strokes=tuple(strokes),
    )


def _crop_matrix(cx: float, cy: float, w: float, h: float, size: int) -> npt.NDArray[np.float64]:
    """float64 [2, 3] from pixels of the crop to pixels of the picture, for a face box of sides w, h about (cx, cy)."""
    reach_x, reach_y = w * (0.5 + _MARGIN), h * (0.5 + _MARGIN)
    step_x, step_y = 2 * reach_x / size, 2 * reach_y / size
    return np.array([[step_x, 0, cx - reach_x + step_x / 2 - 0.5], [0, step_y, cy - reach_y + step_y / 2 - 0.5]])


def _cut(image: Images, matrix: npt.NDArray[np.float64], size: int) -> Images:
    step = float(max(matrix[0, 0], matrix[1, 1]))
    if step > 1.6:  # bilinear sampling would skip pixels
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.35 * step), np.uint8)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(image, matrix.astype(np.float32), (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(crop, np.uint8)


def _as_jpeg(image: Images, quality: int) -> Images:
    _, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.array(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB), np.uint8)
