"""What is worn on the head: glasses, earrings, hats."""

from __future__ import annotations

import numpy as np

from facecaption_ml.sample.anatomy import EYE_X, half_width
from facecaption_ml.sample.appearance import choose
from facecaption_ml.sample.canvas import Array, mirror, moved, smooth
from facecaption_ml.sample.features import circle
from facecaption_ml.sample.render_context import RenderContext
from facecaption_ml.sample.skin import SIDES


def paint_glasses(context: RenderContext) -> None:
    """Round, square, oval or cat-eye frames; now and then dark lenses."""
    look, rng, canvas, pose = context.look, context.rng, context.canvas, context.pose
    if not look.has("Eyeglasses"):
        return
    colour = choose(rng, "cloth", "frame", 8)
    kind = int(rng.integers(4))
    thick = float(rng.uniform(0.026, 0.05))
    dark = rng.random() < 0.12
    for side in SIDES:
        rim = _rim(kind, side)
        points = pose.face(rim, 0.10)
        lens = canvas.polygon(points, context.px(0.006))
        if dark:
            canvas.paint(lens, (34, 30, 36), 0.82)
        else:
            canvas.paint(lens, (226, 236, 244), 0.10)
        x = side * EYE_X
        streak = pose.face([(x - 0.10, 0.10), (x + 0.06, -0.12)], 0.10)
        canvas.paint(canvas.lines([streak], context.px(0.045), context.px(0.012)), (255, 255, 255), 0.30, lens)
        closed = np.concatenate([points, points[:1]])
        canvas.shade(
            canvas.lines([moved(closed, 0, context.px(0.025))], context.px(thick), context.px(0.016)), 0.6, 0.5
        )
        canvas.paint(canvas.lines([closed], context.px(thick), 0.3), colour)
        glint = closed[: len(closed) // 3]
        canvas.paint(canvas.lines([glint], context.px(thick * 0.35), 0.3), np.minimum(colour + 90, 255), 0.5)
        context.trace("glasses", closed, 0.024)
        edge = half_width(look.shape, 0.0)
        temple = np.concatenate(
            [pose.face([(side * (EYE_X + 0.22), -0.05)], 0.1), pose.solid([(side * edge * 1.0, -0.08)], 0.05)]
        )
        canvas.paint(canvas.lines([temple], context.px(thick), 0.3), colour * 0.9)
        context.trace("glasses", temple, 0.02)
    bridge = pose.face(smooth([(-0.13, -0.02), (0, -0.06), (0.13, -0.02)]), 0.14)
    canvas.paint(canvas.lines([bridge], context.px(thick), 0.3), colour)
    context.trace("glasses", bridge, 0.02)


def _rim(kind: int, side: float) -> Array:
    x = side * EYE_X
    if kind == 0:
        return circle((x, 0.02), 0.225, 28)
    if kind == 1:
        corners = [
            (-0.22, -0.14),
            (0.0, -0.155),
            (0.22, -0.14),
            (0.225, 0.05),
            (0.17, 0.17),
            (-0.15, 0.175),
            (-0.21, 0.06),
        ]
    elif kind == 2:
        corners = [(-0.23, -0.02), (-0.12, -0.125), (0.10, -0.13), (0.24, -0.03), (0.15, 0.14), (-0.12, 0.15)]
    else:
        corners = [(-0.20, -0.08), (0.02, -0.135), (0.28, -0.19), (0.235, 0.04), (0.08, 0.16), (-0.12, 0.14)]
    return smooth([(x + side * dx, dy) for dx, dy in corners], closed=True)


def paint_earrings(context: RenderContext) -> None:
    """Studs, hoops or drops at the lobes, over the hair so that they are seen."""
    look, rng, canvas, pose = context.look, context.rng, context.canvas, context.pose
    if not look.has("Wearing_Earrings"):
        return
    metal, stone = choose(rng, "cloth", "metal", 6), choose(rng, "cloth", "stone", 8)
    kind = int(rng.integers(3))
    edge = half_width(look.shape, 0.4)
    for side in SIDES:
        x, y = side * (edge + 0.055), 0.42
        if kind == 0:
            points = pose.solid(circle((x, y + 0.02), 0.062), 0.08)
            canvas.paint(canvas.polygon(points, context.px(0.008)), stone)
            canvas.paint(canvas.lines([np.concatenate([points, points[:1]])], context.px(0.02), 0.3), metal * 0.8)
        elif kind == 1:
            ring = circle((x, y + 0.12), float(rng.uniform(0.11, 0.15)))
            points = pose.solid(np.concatenate([ring, ring[:1]]), 0.08)
            canvas.paint(canvas.lines([points], context.px(0.042), 0.3), metal * 0.72)
            canvas.paint(canvas.lines([points[10:20]], context.px(0.02), 0.3), np.minimum(metal + 30, 255))
        else:
            points = pose.solid(
                smooth([(x, y), (x + 0.05, y + 0.2), (x, y + 0.29), (x - 0.05, y + 0.2)], closed=True), 0.08
            )
            canvas.paint(canvas.polygon(points, context.px(0.008)), stone)
            canvas.paint(canvas.lines([points], context.px(0.018), 0.3), metal)
        shine = pose.solid([(x - 0.015, y + 0.06)], 0.08)[0]
        canvas.paint(canvas.glow(shine, context.px(0.018), context.px(0.018)), (255, 255, 255), 0.85)
        context.trace("jewellery", points, 0.016)


def paint_hat(context: RenderContext) -> None:
    """A cap, a beanie, a brimmed hat or a beret."""
    look, rng = context.look, context.rng
    if not look.has("Wearing_Hat"):
        return
    colour = choose(rng, "cloth", "hat", 10)
    band = choose(rng, "cloth", "hat", 10)
    kind = int(rng.integers(4))
    top = -look.shape.crown - 0.2
    if kind == 0:
        _paint_dome(context, colour, top - 0.02, -0.60, 0.93)
        _paint_peak(context, colour * 0.8)
    elif kind == 1:
        _paint_dome(context, colour, top - 0.10, -0.58, 0.96)
        ribs = [context.pose.solid([(x * 0.9, -0.66), (x * 0.45, top)], 0.25) for x in np.linspace(-1, 1, 11)]
        context.canvas.shade(context.canvas.lines(ribs, context.px(0.03), context.px(0.015)), 0.72, 0.7)
        _paint_band(context, colour * 0.85, -0.72, -0.50, 0.97)
    elif kind == 2:
        _paint_dome(context, colour, top - 0.22, -0.70, 0.86)
        _paint_band(context, band * 0.8, -0.86, -0.68, 0.90)
        _paint_brim(context, colour * 0.92)
    else:
        lean = 0.25 * np.sign(look.part or 1.0)
        shape = smooth(
            [
                (-0.9, -0.62),
                (-1.1 + lean, -0.95),
                (-0.5 + lean, top - 0.12),
                (0.4 + lean, top - 0.14),
                (1.08 + lean, -1.0),
                (0.9, -0.62),
                (0, -0.80),
            ],
            closed=True,
        )
        _paint_cloth(context, shape, colour, 0.15)


def _paint_cloth(context: RenderContext, shape: Array, colour: Array, depth: float) -> None:
    points = context.pose.solid(shape, depth)
    mask = context.canvas.polygon(points, context.px(0.012))
    context.canvas.paint(mask, colour)
    if mask is not None:
        context.canvas.shade(mask.edge(context.px(0.14)), 0.55, 0.8)
        spot = moved(points.mean(axis=0), context.px(0.25) * np.sign(context.light), -context.px(0.1))
        context.canvas.shade(context.canvas.glow(spot, context.px(0.3), context.px(0.16)), 1.2, 0.8, mask)
    context.trace("hat", np.concatenate([points, points[:1]]), 0.024)


def _paint_dome(context: RenderContext, colour: Array, top: float, low: float, wide: float) -> None:
    right = [
        (0.0, top),
        (wide * 0.55, top + 0.07),
        (wide * 0.92, (top + low) / 2 - 0.05),
        (wide, low + 0.16),
        (wide * 0.98, low + 0.22),
    ]
    over = smooth(right)
    rim = smooth(
        [
            (wide * 0.98, low + 0.22),
            (wide * 0.6, low + 0.02),
            (0, low - 0.04),
            (-wide * 0.6, low + 0.02),
            (-wide * 0.98, low + 0.22),
        ]
    )
    _paint_cloth(context, np.concatenate([mirror(over)[::-1], over, rim]), colour, 0.12)


def _paint_band(context: RenderContext, colour: Array, top: float, low: float, wide: float) -> None:
    def arc(y: float) -> Array:
        return smooth(
            [(-wide, y + 0.20), (-wide * 0.6, y + 0.03), (0, y - 0.03), (wide * 0.6, y + 0.03), (wide, y + 0.20)]
        )

    _paint_cloth(context, np.concatenate([arc(top), arc(low)[::-1]]), colour, 0.18)


def _paint_peak(context: RenderContext, colour: Array) -> None:
    shape = smooth(
        [
            (-0.72, -0.60),
            (-0.62, -0.44),
            (0, -0.36),
            (0.62, -0.44),
            (0.72, -0.60),
            (0.4, -0.68),
            (0, -0.70),
            (-0.4, -0.68),
        ],
        closed=True,
    )
    shadow = context.canvas.polygon(context.pose.solid(moved(shape, 0, 0.10), 0.5), context.px(0.05))
    context.canvas.shade(shadow, 0.6, 0.6, context.face)
    _paint_cloth(context, shape, colour, 0.62)


def _paint_brim(context: RenderContext, colour: Array) -> None:
    wide = 1.42 if context.look.part > 0 else 1.22
    shape = smooth(
        [
            (-wide, -0.62),
            (-0.7, -0.72),
            (0, -0.78),
            (0.7, -0.72),
            (wide, -0.62),
            (0.75, -0.50),
            (0, -0.46),
            (-0.75, -0.50),
        ],
        closed=True,
    )
    shadow = context.canvas.polygon(context.pose.solid(moved(shape, 0, 0.10), 0.3), context.px(0.05))
    context.canvas.shade(shadow, 0.6, 0.6, context.face)
    _paint_cloth(context, shape, colour, 0.3)
