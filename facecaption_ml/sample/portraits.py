"""Portraits painted from the 40 attributes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from facecaption_ml.sample import accessories, attire, facial_hair, features, hair, skin
from facecaption_ml.sample.anatomy import CHIN_Y, Pose
from facecaption_ml.sample.appearance import appearance_of
from facecaption_ml.sample.backgrounds import add_grain, paint_background
from facecaption_ml.sample.canvas import Array, Canvas
from facecaption_ml.sample.render_context import RenderContext, Stroke
from facecaption_ml.taxonomy import ATTRIBUTES

_PORTRAIT_STREAM: Final = 0xFACE
_PERSON_STREAM: Final = 0xFACED
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Portrait:
    """One drawn person.

    ``image`` RGB uint8 [size, size, 3]; ``box`` x0, y0, x1, y1 in pixels, forehead to chin and ear to ear as RetinaFace
    draws it; ``landmarks`` float32 [5, 2] (eyes, nose, mouth corners, each pair from the picture's left); ``strokes`` the
    lines of the drawing in the order in which one sketches.
    """

    image: npt.NDArray[np.uint8]
    box: Box
    landmarks: Array
    labels: frozenset[str]
    strokes: tuple[Stroke, ...]


def draw_portrait(labels: Collection[str], seed: int, size: int = 256) -> Portrait:
    """A head-and-shoulders portrait of a person with exactly these positive attributes (CelebA's names).

    What the attributes leave open (colours, style, pose, light, background) follows from ``seed`` (any int ≥ 0), so two
    seeds give two different people. ``size`` is in pixels, at least 48. Raises ValueError for an unknown attribute.
    """
    held = frozenset(labels)
    unknown = sorted(held - set(ATTRIBUTES))
    if unknown:
        raise ValueError(f"unknown attribute {unknown[0]!r}; the names are CelebA's, see facecaption_ml.taxonomy")
    if size < 48:
        raise ValueError(f"size is {size} pixels; a portrait needs at least 48")
    rng = np.random.default_rng((_PORTRAIT_STREAM, seed))
    canvas = Canvas(np.empty((3, size, size), np.float32))
    paint_background(canvas, rng)
    scale = size * rng.uniform(0.285, 0.325)
    centre = (size * rng.uniform(0.46, 0.54), size * rng.uniform(0.44, 0.49))
    context = compose_person(canvas, held, seed, centre, scale)
    paint_person(context)
    if "Blurry" in held:
        put_out_of_focus(context, whole=True)
    add_grain(canvas, rng, float(rng.uniform(1.0, 3.5)) * min(1.0, size / 256))
    return Portrait(canvas.image(), face_box(context), features.landmarks(context), held, context.sketch())


def compose_person(
    canvas: Canvas, labels: frozenset[str], seed: int, centre: tuple[float, float], scale: float, tilt: float = 1.0
) -> RenderContext:
    """A person with pose, light and look chosen, nothing painted yet.

    ``centre`` is the pixel between the eyes, ``scale`` pixels a head unit; ``tilt`` scales the head's roll.
    """
    rng = np.random.default_rng((_PERSON_STREAM, seed))
    yaw, pitch, roll = np.clip(rng.normal(0, (0.14, 0.06, 0.07)), (-0.32, -0.14, -0.2), (0.32, 0.14, 0.2)).tolist()
    light = float(rng.choice([-1, 1]) * rng.uniform(0.25, 1.0))
    return RenderContext(canvas, Pose(centre, scale, yaw, pitch, roll * tilt), appearance_of(labels, rng), rng, light)


def paint_person(context: RenderContext) -> None:
    """Paint the person over what is on the canvas, from back to front."""
    hair.paint_hair_behind(context)
    skin.paint_neck(context)
    attire.paint_clothes(context)
    attire.paint_necklace(context)
    skin.paint_ears(context)
    skin.paint_face(context)
    skin.paint_condition(context)
    features.paint_nose(context)
    facial_hair.paint_beard_below_mouth(context)
    features.paint_mouth(context)
    facial_hair.paint_mustache(context)
    features.paint_eyes(context)
    features.paint_brows(context)
    hair.paint_hair_front(context)
    accessories.paint_glasses(context)
    accessories.paint_hat(context)
    accessories.paint_earrings(context)


def face_box(context: RenderContext) -> Box:
    """Forehead to chin and ear to ear, in pixels.

    The margins are where RetinaFace (MobileNet-0.25, WIDER FACE) sets its boxes on these drawings, in the median.
    """
    shape = context.look.shape
    rim = context.outline_px[context.outline[:, 1] > -0.62]
    x0, y0 = rim.min(axis=0)
    x1, y1 = rim.max(axis=0)
    top = min(context.pose.face([(0, -0.70)])[0, 1], y0)
    low = max(context.pose.solid([(0, CHIN_Y * shape.length)], 0.6)[0, 1], y1)
    wide, tall = x1 - x0, low - top
    return float(x0 + 0.03 * wide), float(top - 0.069 * tall), float(x1 - 0.027 * wide), float(low + 0.017 * tall)


def put_out_of_focus(context: RenderContext, whole: bool) -> None:
    """Blur the ``whole`` picture, or only this person's head, by an amount relative to the head."""
    canvas, pose = context.canvas, context.pose
    sigma = float(context.rng.uniform(0.042, 0.07)) * pose.scale
    if whole:
        for plane in canvas.planes:
            _wide_blur(plane, sigma)
        return
    middle = pose.solid([(0.0, 0.15)], 0.0)[0]
    spot = canvas.glow(middle, 0.95 * pose.scale, 1.05 * pose.scale)
    if spot is None:
        return
    h, w = spot.cover.shape
    weight = np.clip(spot.cover * 2.2 - 0.2, 0, 1)
    for plane in canvas.planes[:, spot.y0 : spot.y0 + h, spot.x0 : spot.x0 + w]:
        blurred = plane.copy()
        _wide_blur(blurred, sigma)
        plane += (blurred - plane) * weight


def _wide_blur(plane: Array, sigma: float) -> None:
    """In place; at half the size where the blur hides that."""
    if sigma < 3:
        cv2.GaussianBlur(plane, (0, 0), sigma, dst=plane)
        return
    h, w = plane.shape
    half = cv2.GaussianBlur(cv2.resize(plane, (w // 2, h // 2), interpolation=cv2.INTER_AREA), (0, 0), sigma / 2)
    plane[:] = cv2.resize(half, (w, h), interpolation=cv2.INTER_LINEAR)
