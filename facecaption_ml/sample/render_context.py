"""What every painter needs at once: the canvas, the pose, the look, the light, and the strokes drawn so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from facecaption_ml.sample.anatomy import Pose, outline, outline_depth
from facecaption_ml.sample.appearance import Appearance
from facecaption_ml.sample.canvas import Array, Canvas, Colour, Mask

# The order in which a person sketches a portrait, whatever order it is painted in (back to front).
SKETCH_ORDER: Final = (
    "face", "eyes", "brows", "nose", "mouth", "hair", "ears", "neck", "beard", "clothes", "glasses", "hat", "jewellery",
    "lines",
)  # fmt: skip


@dataclass(frozen=True)
class Stroke:
    """One line of the drawing: ``points`` float32 [N, 2] in pixels of the picture, ``width`` in pixels, and its part."""

    part: str
    points: Array
    width: float


@dataclass
class RenderContext:
    """One person being painted on one canvas."""

    canvas: Canvas
    pose: Pose
    look: Appearance
    rng: np.random.Generator
    light: float  # from the left (−1) to the right (1)
    face: Mask = field(init=False)
    strokes: list[Stroke] = field(default_factory=list)

    def __post_init__(self) -> None:
        curve = outline(self.look.shape)
        self.outline = curve
        self.outline_px = self.pose.solid(curve, outline_depth(curve))
        mask = self.canvas.polygon(self.outline_px, soft=0.012 * self.pose.scale)
        if mask is None:
            raise ValueError("the face lies outside the picture; move Pose.centre or lower Pose.scale")
        self.face = mask

    def px(self, units: float) -> float:
        """A length in pixels."""
        return units * self.pose.scale

    def trace(self, part: str, points: Array, width: float = 0.018) -> None:
        """Record a stroke; ``points`` in pixels, ``width`` in head units."""
        self.strokes.append(Stroke(part, np.asarray(points, np.float32), self.px(width)))

    def sketch(self) -> tuple[Stroke, ...]:
        """The strokes in the order in which one sketches."""
        return tuple(sorted(self.strokes, key=lambda stroke: SKETCH_ORDER.index(stroke.part)))

    # -- short forms on the surface of the face ----------------------------------------------------------------------

    def fill(
        self, points: Sequence[Sequence[float]] | Array, colour: Colour, alpha: float = 1.0, soft: float = 0.006,
        lift: float = 0.0, within: Mask | None = None,
    ) -> None:  # fmt: skip
        """Paint an outline given in head units; ``soft`` in head units."""
        mask = self.canvas.polygon(self.pose.face(points, lift), self.px(soft))
        self.canvas.paint(mask, colour, alpha, within)

    def line(
        self, points: Sequence[Sequence[float]] | Array, colour: Colour, width: float, alpha: float = 1.0,
        soft: float = 0.004, lift: float = 0.0, within: Mask | None = None,
    ) -> None:  # fmt: skip
        """Paint an open curve given in head units."""
        mask = self.canvas.lines([self.pose.face(points, lift)], self.px(width), self.px(soft))
        self.canvas.paint(mask, colour, alpha, within)

    def crease(
        self, points: Sequence[Sequence[float]] | Array, strength: float, width: float = 0.022, soft: float = 0.012
    ) -> None:
        """A fold of skin: a soft dark line with a light one below it."""
        at = np.asarray(points, np.float32)
        for shift, factor in ((0.0, 0.66), (1.25 * width, 1.10)):
            curve = self.pose.face(at + np.array([0, shift], np.float32))
            mask = self.canvas.lines([curve], self.px(width), self.px(soft))
            self.canvas.shade(mask, factor, strength, self.face)

    def glow(self, x: float, y: float, rx: float, ry: float, factor: Colour | float, alpha: float = 1.0) -> None:
        """Darken or lighten a soft spot of the face."""
        mask = self.canvas.glow(self.pose.spot(x, y), self.px(rx), self.px(ry))
        self.canvas.shade(mask, factor, alpha, self.face)

    def blush(self, x: float, y: float, rx: float, ry: float, colour: Colour, alpha: float) -> None:
        """Colour a soft spot of the face."""
        mask = self.canvas.glow(self.pose.spot(x, y), self.px(rx), self.px(ry))
        self.canvas.paint(mask, colour, alpha, self.face)
