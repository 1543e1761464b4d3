"""Faces of every size in pictures of every size: none is lost because the picture is large, and none is found twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecaption_ml.faces import Face, FaceDetector, FaceOutcome
from facecaption_ml.faces.crops import judge_face
from facecaption_ml.faces.options import CropRules
from facecaption_ml.faces.pyramid import level_sides, views
from facecaption_ml.sample.attribute_sampling import sample_labels
from facecaption_ml.sample.portraits import Portrait, draw_portrait

Placed = list[np.ndarray]  # boxes of the faces, x0, y0, x1, y1
DRAWN = 256  # px, side of a portrait


@pytest.fixture(scope="module")
def portraits() -> list[Portrait]:
    return [draw_portrait(sample_labels(seed), seed, DRAWN) for seed in range(1, 17, 2)]


def empty_picture(width: int, height: int) -> np.ndarray:
    clouds = np.random.default_rng(0).integers(60, 200, (20, 20, 3), dtype=np.uint8)
    return np.ascontiguousarray(cv2.resize(clouds, (width, height)))


def place(picture: np.ndarray, portrait: Portrait, side: float, x: int, y: int) -> np.ndarray:
    """Lay the portrait on the picture so that its face's shorter side has ``side`` px; the face's box."""
    box = np.array(portrait.box)
    scale = side / min(box[2] - box[0], box[3] - box[1])
    size = round(DRAWN * scale)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    picture[y : y + size, x : x + size] = cv2.resize(portrait.image, (size, size), interpolation=method)
    return box * scale + np.array([x, y, x, y])


def group(portraits: Sequence[Portrait], size: tuple[int, int], side: float, across: int, down: int) -> tuple:
    """A picture of ``size`` (width, height) with across × down faces of ``side`` px, and their boxes."""
    picture = empty_picture(*size)
    places = [(x * size[0] // across, y * size[1] // down) for y in range(down) for x in range(across)]
    boxes = [place(picture, portraits[i % len(portraits)], side, x, y) for i, (x, y) in enumerate(places)]
    return picture, boxes


def outcomes(faces: Sequence[Face], picture: np.ndarray) -> Counter[FaceOutcome]:
    return Counter(judge_face(face, picture.shape[:2], CropRules()) for face in faces)


def overlap(face: Face, box: np.ndarray) -> float:
    low, high = np.maximum(face.box[:2], box[:2]), np.minimum(face.box[2:], box[2:])
    shared = float(np.prod(np.clip(high - low, 0, None)))
    return shared / (face.width * face.height + float(np.prod(box[2:] - box[:2])) - shared)


def assert_each_once(faces: Sequence[Face], boxes: Placed) -> None:
    """One detection for each face there is, at its place, sure enough to be kept; nothing else that sure."""
    sure = [face for face in faces if face.score > 0.98]
    assert len(sure) == len(boxes)
    for box in boxes:
        assert max(overlap(face, box) for face in sure) > 0.7


@pytest.mark.slow
def test_a_group_photo(detector: FaceDetector, portraits: list[Portrait]) -> None:
    picture, boxes = group(portraits, (6000, 4000), 165, 12, 8)
    (faces,) = detector.detect([picture])
    assert outcomes(faces, picture) == {FaceOutcome.KEPT: 96}
    assert_each_once(faces, boxes)


@pytest.mark.parametrize(("size", "across", "down"), [((9000, 420), 20, 1), ((420, 9000), 1, 20)])
def test_long_pictures_whose_faces_lie_on_the_borders_of_tiles(
    size: tuple[int, int], across: int, down: int, detector: FaceDetector, portraits: list[Portrait]
) -> None:
    picture, boxes = group(portraits, size, 160, across, down)
    (faces,) = detector.detect([picture])
    assert_each_once(faces, boxes)


def test_one_large_face_and_small_ones_around_it(detector: FaceDetector, portraits: list[Portrait]) -> None:
    """The large one is found whole, and neither its nose nor its cheeks are faces."""
    picture = empty_picture(6000, 4000)
    boxes = [place(picture, portraits[5], 1400, 100, 100)]
    small = zip((150, 210, 290, 400), (0, 450, 1050, 1900), strict=True)
    boxes += [place(picture, portraits[i], side, 4400, y) for i, (side, y) in enumerate(small)]
    (faces,) = detector.detect([picture])
    assert_each_once(faces, boxes)


def test_a_face_that_fills_a_large_picture(detector: FaceDetector, portraits: list[Portrait]) -> None:
    x0, y0, x1, y1 = (round(side) for side in portraits[3].box)
    picture = cv2.resize(portraits[3].image[y0:y1, x0:x1], (3600, 4500), interpolation=cv2.INTER_CUBIC)
    (faces,) = detector.detect([picture])
    assert_each_once(faces, [np.array([0, 0, 3600, 4500])])


def test_a_large_picture_is_seen_alike_whatever_is_beside_it(detector: FaceDetector, portraits: list[Portrait]) -> None:
    large, _ = group(portraits, (5000, 500), 150, 9, 1)
    others = [portraits[0].image, group(portraits, (2000, 900), 140, 5, 2)[0], large[:, :2600], portraits[1].image]
    alone = [detector.detect([picture])[0] for picture in (large, *others)]
    together = detector.detect([large, *others])
    backwards = detector.detect([large, *others][::-1])[::-1]
    for one, two, three in zip(alone, together, backwards, strict=True):
        for faces in (two, three):
            assert [(face.box, face.score) for face in faces] == [(face.box, face.score) for face in one]


def test_a_fixed_working_size_is_one_look(portraits: list[Portrait]) -> None:
    picture, boxes = group(portraits, (4000, 500), 150, 8, 1)
    at_640, at_1800 = (FaceDetector.load(working_size=size) for size in (640, 1800))
    assert outcomes(at_640.detect([picture])[0], picture)[FaceOutcome.KEPT] < len(boxes)
    assert outcomes(at_1800.detect([picture])[0], picture)[FaceOutcome.KEPT] == len(boxes)


def test_smaller_faces_are_looked_for_where_they_are_wanted(portraits: list[Portrait]) -> None:
    picture, boxes = group(portraits, (3000, 400), 64, 12, 1)
    assert_each_once(FaceDetector.load(min_side=48).detect([picture])[0], boxes)
    assert not any(face.score > 0.98 for face in FaceDetector.load(min_side=256).detect([picture])[0])


@given(longest=st.integers(1, 1500), min_side=st.integers(128, 2000))
def test_pictures_up_to_1500_px_have_one_level(longest: int, min_side: int) -> None:
    assert level_sides(longest, 0, min_side, enlarge=False) == [min(longest, 640)]


@given(longest=st.integers(1501, 100_000), min_side=st.integers(1, 2000))
def test_the_smallest_face_shows_on_the_finest_level_and_no_step_is_large(longest: int, min_side: int) -> None:
    sides = level_sides(longest, 0, min_side, enlarge=False)
    assert sides[0] == 640
    assert max(sides) <= longest
    assert sides[-1] == longest or min_side * (sides[-1] + 1) / longest >= 54
    assert all(coarse < fine <= 4.01 * coarse for coarse, fine in pairwise(sides))


@given(width=st.integers(1, 20_000), height=st.integers(1, 300), upright=st.booleans())
def test_tiles_cover_a_level_and_overlap(width: int, height: int, upright: bool) -> None:
    shape = (width, height) if upright else (height, width)
    tiles = list(views(np.zeros((*shape, 3), dtype=np.uint8), [max(shape)], tiled=True))
    spans = sorted(
        (tile.top, tile.top + tile.size[0]) if upright else (tile.left, tile.left + tile.size[1]) for tile in tiles
    )
    assert spans[0][0] == 0
    assert spans[-1][1] == max(shape) or len(tiles) == 1
    assert max(end - start for start, end in spans) <= 1536
    assert all(end - start >= 319 for (_, end), (start, _) in pairwise(spans))
