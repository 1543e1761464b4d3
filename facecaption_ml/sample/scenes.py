"""Scenes: a background of 400 to 900 pixels a side with no, one or several people in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from facecaption_ml.sample.attribute_sampling import sample_labels
from facecaption_ml.sample.backgrounds import add_grain, paint_background
from facecaption_ml.sample.canvas import Array, Canvas
from facecaption_ml.sample.features import landmarks
from facecaption_ml.sample.portraits import Box, compose_person, face_box, paint_person, put_out_of_focus
from facecaption_ml.taxonomy import Gender

_PLAN_STREAM: Final = 0x5CE7E
_PAINT_STREAM: Final = 0x5CE7F
_FACES: Final = (0.12, 0.68, 0.14, 0.06)  # shares of scenes with 0, 1, 2, 3 faces
_TOO_SMALL: Final = 0.10  # of faces
_BIG: Final = (93.0, 150.0)  # pixels a head unit; a face is about 1.6 wide and 1.9 high
_SMALL: Final = (30.0, 62.0)
_HEAD_HALF_WIDTH: Final = 1.2  # with hair, head units
_ABOVE_EYES: Final = 1.5
_BELOW_EYES: Final = 1.45


@dataclass(frozen=True)
class SceneFace:
    """The truth about one face: ``box`` and ``landmarks`` as in :class:`~facecaption_ml.sample.portraits.Portrait`."""

    box: Box
    landmarks: Array
    labels: frozenset[str]

    @property
    def gender(self) -> Gender:
        """As the captions take it."""
        return "male" if "Male" in self.labels else "female"


@dataclass(frozen=True)
class Scene:
    """``image`` RGB uint8 [H, W, 3] with 400 ≤ H, W ≤ 900, and its faces from the left to the right."""

    image: npt.NDArray[np.uint8]
    faces: tuple[SceneFace, ...]


@dataclass(frozen=True)
class Place:
    """Where one person stands: ``centre`` between the eyes in pixels, ``scale`` pixels a head unit, ``seed`` of the person."""

    centre: tuple[float, float]
    scale: float
    seed: int


@dataclass(frozen=True)
class ScenePlan:
    """All that is known of a scene before it is drawn."""

    seed: int
    width: int
    height: int
    places: tuple[Place, ...]


def plan_scene(seed: int) -> ScenePlan:
    """Size of the picture and places of the people of scene ``seed`` (any int ≥ 0)."""
    rng = np.random.default_rng((_PLAN_STREAM, seed))
    count = int(np.searchsorted(np.cumsum(_FACES), rng.random() * 0.999))
    scales = [float(rng.uniform(*(_SMALL if rng.random() < _TOO_SMALL else _BIG))) for _ in range(count)]
    if count > 1:  # several big heads must fit beside each other
        scales = [min(scale, 118.0) for scale in scales]
    need_w = sum(2 * _HEAD_HALF_WIDTH * s for s in scales) + 12
    need_h = max(((_ABOVE_EYES + _BELOW_EYES) * s for s in scales), default=0.0) + 12
    width = int(np.clip(rng.uniform(400, 820), max(400, need_w), 900))
    height = int(np.clip(rng.uniform(400, 780), max(400, need_h), 900))
    free = width - need_w
    gaps = rng.dirichlet(np.ones(count + 1)) * free
    places, x = [], 6.0
    for scale, gap in zip(scales, gaps, strict=False):
        x += float(gap) + _HEAD_HALF_WIDTH * scale
        low, high = 6 + _ABOVE_EYES * scale, height - 6 - _BELOW_EYES * scale
        low = max(low, min(high, height - 5.0 * scale))  # a far person stands on the ground, not in mid-air
        # people's eyes are mostly in the upper half of a picture
        y = low + (high - low) * float(rng.beta(1.6, 2.4))
        # even numbers: the labelled portraits have the odd ones, so that no portrait stands in both
        places.append(Place((x, y), scale, 2 * int(rng.integers(2**60))))
        x += _HEAD_HALF_WIDTH * scale
    return ScenePlan(seed, width, height, tuple(places))


def scene_faces(plan: ScenePlan) -> tuple[SceneFace, ...]:
    """The faces of a scene without painting it."""
    canvas = Canvas(np.zeros((3, plan.height, plan.width), np.float32))
    faces = []
    for place in plan.places:
        labels = sample_labels(place.seed)
        context = compose_person(canvas, labels, place.seed, place.centre, place.scale)
        faces.append(SceneFace(face_box(context), landmarks(context), labels))
    return tuple(faces)


def draw_scene(seed: int) -> Scene:
    """The scene of this seed: the same picture, byte for byte, whenever it is drawn."""
    plan = plan_scene(seed)
    rng = np.random.default_rng((_PAINT_STREAM, seed))
    canvas = Canvas(np.empty((3, plan.height, plan.width), np.float32))
    paint_background(canvas, rng, clutter=2.0)
    faces: dict[int, SceneFace] = {}
    # the smaller ones stand farther away
    for index in sorted(range(len(plan.places)), key=lambda i: plan.places[i].scale):
        place = plan.places[index]
        labels = sample_labels(place.seed)
        context = compose_person(canvas, labels, place.seed, place.centre, place.scale)
        paint_person(context)
        if "Blurry" in labels:
            put_out_of_focus(context, whole=len(plan.places) == 1)
        faces[index] = SceneFace(face_box(context), landmarks(context), labels)
    add_grain(canvas, rng, float(rng.uniform(1.0, 3.5)))
    if plan.places and rng.random() < 0.5:
        _soften(canvas)
    return Scene(canvas.image(), tuple(faces[i] for i in sorted(faces)))


def _soften(canvas: Canvas) -> None:
    """The slight softness of a lens."""
    for plane in canvas.planes:
        cv2.GaussianBlur(plane, (3, 3), 0.6, dst=plane)
