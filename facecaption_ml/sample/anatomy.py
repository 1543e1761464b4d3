"""The head as a solid: where a point of the face lands in the picture under a pose, and the outline of the face.

Head coordinates: x to the right and y down as the viewer sees it, 1 unit = ``Pose.scale`` pixels, the origin between the
eyes on the surface of the head. The chin is at y ≈ 1.15, the crown at y ≈ −1.2, the ears at x ≈ ±0.85.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from facecaption_ml.sample.canvas import Array, mirror, smooth

EYE_X: Final = 0.335
NOSE_TIP_Y: Final = 0.43
MOUTH_Y: Final = 0.735
CHIN_Y: Final = 1.16
_HEAD_A, _HEAD_B, _HEAD_C = 0.98, 1.55, 0.80  # half axes of the ellipsoid the features lie on
_TURNING_DEPTH: Final = 0.35  # the head turns about an axis this far before the ears
_EYE_DEPTH: Final = float(_HEAD_C * np.sqrt(1 - (EYE_X / _HEAD_A) ** 2))


@dataclass(frozen=True)
class Pose:
    """Where the head is and how it is turned: ``centre`` in pixels, ``scale`` pixels a unit, angles in radians."""

    centre: tuple[float, float]
    scale: float
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    matrix: Array = field(init=False, repr=False)
    turns: tuple[float, float, float, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        cos, sin = np.cos(self.roll), np.sin(self.roll)
        object.__setattr__(self, "matrix", np.array([[cos, sin], [-sin, cos]], np.float32) * np.float32(self.scale))
        turns = [float(f(angle)) for angle in (self.yaw, self.pitch) for f in (np.cos, np.sin)]
        object.__setattr__(self, "turns", tuple(turns))

    def solid(self, points: Sequence[Sequence[float]] | Array, depth: float | Array) -> Array:
        """Pixels [..., 2] of points [..., 2] at a given depth towards the viewer (a number or [...]); 0 is the ears' plane."""
        at = np.asarray(points, np.float32)
        cos_yaw, sin_yaw, cos_pitch, sin_pitch = self.turns
        across = at[..., 0]
        flat = np.empty(at.shape, np.float32)
        flat[..., 0] = across * cos_yaw + (depth - _TURNING_DEPTH) * sin_yaw
        flat[..., 1] = at[..., 1] * cos_pitch + (depth * cos_yaw - across * sin_yaw - _EYE_DEPTH * 0.5) * sin_pitch
        return flat @ self.matrix + np.asarray(self.centre, np.float32)

    def face(self, points: Sequence[Sequence[float]] | Array, lift: float = 0.0) -> Array:
        """Pixels [..., 2] of points [..., 2] on the surface of the head, raised by ``lift`` (the nose)."""
        at = np.asarray(points, np.float32)
        inside = 1 - (at[..., 0] / _HEAD_A) ** 2 - ((at[..., 1] - 0.1) / _HEAD_B) ** 2
        return self.solid(at, _HEAD_C * np.sqrt(np.maximum(inside, 0.0)) + lift)

    def spot(self, x: float, y: float, lift: float = 0.0) -> Array:
        """The pixel [2] of one point of the surface."""
        return self.face([(x, y)], lift)[0]


@dataclass(frozen=True)
class HeadShape:
    """The outline's free numbers, in head units; see :func:`outline`."""

    temple: float = 0.80
    cheek: float = 0.83
    jaw: float = 0.66
    chin: float = 0.27
    length: float = 1.0  # of the lower face
    crown: float = 1.2


def outline(shape: HeadShape) -> Array:
    """The face and skull outline, closed, [N, 2] head units, clockwise from the crown."""
    low = shape.length
    right = [
        (0.46, -shape.crown * 0.90),
        (shape.temple * 0.95, -0.66),
        (shape.temple + 0.01, -0.2),
        (shape.cheek, 0.22 * low),
        (0.45 * shape.cheek + 0.55 * shape.jaw, 0.58 * low),
        (shape.jaw * 0.86, 0.84 * low),
        (shape.chin * 1.25, 1.08 * low),
        (shape.chin * 0.45, CHIN_Y * low),
    ]
    points = [(0.0, -shape.crown), *right, *mirror(right)[::-1].tolist()]
    return smooth(points, closed=True)


def outline_depth(curve: Array) -> Array:
    """How far towards the viewer each outline point [N, 2] lies: the chin is well in front of the ears."""
    return (0.62 * np.clip((curve[:, 1] - 0.1) / 1.05, 0, 1) ** 1.3).astype(np.float32)


def half_width(shape: HeadShape, y: float) -> float:
    """Half the width of the outline at height ``y``."""
    right = outline(shape)
    right = right[: len(right) // 2 + 1]
    return float(np.interp(y, right[:, 1], np.maximum(right[:, 0], 0.0)))
