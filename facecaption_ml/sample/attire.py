"""Shoulders and clothes, necktie and necklace."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from facecaption_ml.sample.anatomy import Pose
from facecaption_ml.sample.appearance import choose
from facecaption_ml.sample.canvas import Array, Mask, mirror, moved, smooth
from facecaption_ml.sample.render_context import RenderContext
from facecaption_ml.sample.skin import SIDES

_RAISED = 0.14  # shoulders stand this much higher than the numbers below say, head units


def _body(context: RenderContext, points: Sequence[Sequence[float]] | Array, depth: float) -> Array:
    """Pixels of points of the body, which follows the head's turning but half and hardly leans with it."""
    pose = context.pose
    upright = Pose(pose.centre, pose.scale, 0.4 * pose.yaw, 0.4 * pose.pitch, 0.3 * pose.roll)
    return upright.solid(np.asarray(points, np.float32) - np.array([0, _RAISED], np.float32), depth)


def paint_clothes(context: RenderContext) -> None:
    """Shoulders in a suit, a round-necked top or a collar; a necktie wants a shirt."""
    look, rng, canvas = context.look, context.rng, context.canvas
    man = look.has("Male")
    broad = 1.95 if man else 1.62
    slope = rng.uniform(-0.05, 0.05)
    # the body goes on below the picture's edge
    bottom = max(3.4, (canvas.height - context.pose.centre[1]) / context.pose.scale + 0.8)
    right = [
        (0.42, 1.60),
        (0.9, 1.76 + slope),
        (broad * 0.82, 1.95),
        (broad, 2.25),
        (broad * 1.08, 3.4),
        (broad, bottom),
    ]
    shoulders = smooth(right)
    outline = np.concatenate([shoulders, mirror(shoulders)[::-1]])
    suit = look.has("Wearing_Necktie") or (man and rng.random() < 0.3)
    colour = choose(rng, "cloth", "suit" if suit else "top", 8)
    body = canvas.polygon(_body(context, outline, -0.2), context.px(0.02))
    if body is None:
        return
    canvas.paint(body, colour)
    canvas.shade(body.edge(context.px(0.25)), 0.62, 0.7)
    for side in SIDES:
        context.trace("clothes", _body(context, shoulders * (side, 1), -0.2)[:24], 0.022)
    if suit:
        _paint_shirt(context, body, tie=look.has("Wearing_Necktie"))
    else:
        _paint_neckline(context, body, colour)


def _paint_neckline(context: RenderContext, body: Mask, colour: Array) -> None:
    look, rng, canvas = context.look, context.rng, context.canvas
    deep = float(rng.uniform(1.70, 1.78) if look.has("Male") else rng.uniform(1.82, 2.1))
    if look.has("Wearing_Necklace"):
        deep = max(deep, 1.98)
    sharp = 0.35 if rng.random() < 0.5 else 0.62
    right = [(0.0, deep), (0.50 * sharp, deep - 0.05 - 0.1 * (1 - sharp)), (0.52, 1.64), (0.50, 1.50)]
    curve = smooth(right)
    skin = _body(context, np.concatenate([mirror(curve)[::-1], curve]), 0.0)
    neck = canvas.polygon(skin, context.px(0.012))
    canvas.paint(neck, look.skin * 0.93, 1.0)
    if neck is not None:
        canvas.shade(neck.edge(context.px(0.10)), (0.72, 0.60, 0.58), 0.6)
        for side in SIDES:  # collar bones
            bone = _body(context, [(side * 0.10, 1.86), (side * 0.42, 1.78)], 0.0)
            canvas.shade(canvas.lines([bone], context.px(0.04), context.px(0.025)), (0.78, 0.68, 0.66), 0.6, neck)
    canvas.paint(canvas.lines([skin], context.px(0.035), context.px(0.008)), colour * 0.62, 0.9)
    context.trace("clothes", skin, 0.02)
    kind = rng.random()
    if kind < 0.2:
        stripes = [_body(context, [(-2.2, y), (2.2, y + 0.06)], -0.1) for y in np.arange(1.9, 5.0, 0.24)]
        canvas.paint(
            canvas.lines(stripes, context.px(0.08), context.px(0.01)),
            np.minimum(colour * 1.25 + 30, 255),
            0.6,
            _without(body, neck),
        )
    elif kind < 0.4:
        folds = [
            _body(context, smooth([(s * 0.7, 1.85), (s * (0.8 + k * 0.2), 2.2), (s * (0.75 + k * 0.25), 2.8)]), -0.1)
            for s in SIDES
            for k in range(3)
        ]
        canvas.shade(canvas.lines(folds, context.px(0.05), context.px(0.04)), 0.75, 0.8, _without(body, neck))


def _without(mask: Mask, hole: Mask | None) -> Mask:
    if hole is None:
        return mask
    cover = mask.cover.copy()
    y, x = hole.y0 - mask.y0, hole.x0 - mask.x0
    h, w = hole.cover.shape
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + h, cover.shape[0]), min(x + w, cover.shape[1])
    if bottom > top and right > left:
        cover[top:bottom, left:right] *= 1 - hole.cover[top - y : bottom - y, left - x : right - x]
    return Mask(mask.x0, mask.y0, cover)


def _paint_shirt(context: RenderContext, body: Mask, tie: bool) -> None:
    look, rng, canvas = context.look, context.rng, context.canvas
    shirt = choose(rng, "cloth", "shirt", 4)
    front = [(-0.50, 1.52), (0.50, 1.52), (0.42, 1.9), (0.12, 2.9), (-0.12, 2.9), (-0.42, 1.9)]
    mask = canvas.polygon(_body(context, front, -0.05), context.px(0.012))
    canvas.paint(mask, shirt)
    if not tie:
        throat = [(-0.34, 1.46), (0.34, 1.46), (0.05, 1.92), (-0.05, 1.92)]
        canvas.paint(canvas.polygon(_body(context, throat, 0.0), context.px(0.02)), look.skin * 0.84)
    else:
        _paint_tie(context)
    for side in SIDES:
        collar = np.array(
            [(side * 0.47, 1.40), (side * 0.53, 1.52), (side * 0.30, 1.86), (side * 0.06, 1.63), (side * 0.34, 1.56)],
            np.float32,
        )
        leaf = canvas.polygon(_body(context, collar, 0.05), context.px(0.008))
        canvas.paint(leaf, np.minimum(shirt * 1.02, 255))
        if leaf is not None:
            canvas.shade(leaf.edge(context.px(0.03)), 0.74, 0.8)
        lapel = np.array(
            [
                (side * 0.56, 1.58),
                (side * 0.80, 1.72),
                (side * 0.74, 2.2),
                (side * 0.20, 2.9),
                (side * 0.16, 2.7),
                (side * 0.42, 2.1),
            ],
            np.float32,
        )
        points = _body(context, lapel, -0.02)
        canvas.shade(canvas.polygon(points, context.px(0.012)), 1.25, 0.8, body)
        canvas.shade(canvas.lines([points], context.px(0.02), context.px(0.008)), 0.55, 0.8, body)
        context.trace("clothes", _body(context, collar, 0.05), 0.014)
        context.trace("clothes", points, 0.014)


def _paint_tie(context: RenderContext) -> None:
    rng, canvas = context.rng, context.canvas
    colour = choose(rng, "cloth", "tie", 10)
    blade = np.array([(-0.09, 1.80), (0.09, 1.80), (0.21, 2.7), (0.0, 3.0), (-0.21, 2.7)], np.float32)
    knot = np.array([(-0.15, 1.58), (0.15, 1.58), (0.09, 1.83), (-0.09, 1.83)], np.float32)
    for part, tone in ((blade, 0.92), (knot, 1.1)):
        points = _body(context, part, 0.02)
        mask = canvas.polygon(points, context.px(0.008))
        canvas.paint(mask, np.minimum(colour * tone, 255))
        if mask is None:
            continue
        canvas.shade(mask.edge(context.px(0.05)), 0.5, 0.8)
        if rng.random() < 0.75:
            stripes = [_body(context, [(-0.4, y), (0.4, y - 0.3)], 0.02) for y in np.arange(1.6, 3.2, 0.14)]
            canvas.paint(canvas.lines(stripes, context.px(0.035), 0.3), np.minimum(colour * 1.4 + 60, 255), 0.65, mask)
        context.trace("clothes", np.concatenate([points, points[:1]]), 0.02)


def paint_necklace(context: RenderContext) -> None:
    """A chain, beads or pearls round the neck, low enough to hang on the chest."""
    look, rng, canvas = context.look, context.rng, context.canvas
    if not look.has("Wearing_Necklace"):
        return
    deep = float(rng.uniform(1.62, 1.74))
    side = 0.56 if look.has("Male") else 0.46
    line = [(-side, 1.38), (-0.36, deep - 0.12), (0, deep), (0.36, deep - 0.12), (side, 1.38)]
    curve = smooth(line, per_segment=8)
    points = _body(context, curve, 0.05)
    metal = choose(rng, "cloth", "metal", 6)
    canvas.shade(canvas.lines([moved(points, 0, context.px(0.03))], context.px(0.04), context.px(0.02)), 0.6, 0.6)
    if rng.random() < 0.5:
        bead = 0.042 if rng.random() < 0.5 else 0.032
        colour = choose(rng, "cloth", "stone", 6)
        balls = [np.stack([p, moved(p, 0.1, 0.1)]) for p in points]
        canvas.paint(canvas.lines(balls, context.px(2 * bead), 0.3), colour * 0.75)
        canvas.paint(
            canvas.lines([b - context.px(0.012) for b in balls], context.px(bead), context.px(0.01)),
            np.minimum(colour + 70, 255),
        )
    else:
        canvas.paint(canvas.lines([points], context.px(0.034), 0.3), metal * 0.7)
        canvas.paint(canvas.lines([points[::1]], context.px(0.016), 0.3), np.minimum(metal + 30, 255))
        drop = _body(context, [(0, deep + 0.05)], 0.06)[0]
        angle = np.linspace(0, 2 * np.pi, 14)
        gem = drop + np.stack([0.045 * np.sin(angle), 0.065 * np.cos(angle)], 1).astype(np.float32) * context.pose.scale
        canvas.paint(canvas.polygon(gem, context.px(0.006)), choose(rng, "cloth", "stone", 10))
        canvas.paint(canvas.glow(drop - context.px(0.015), context.px(0.014), context.px(0.014)), (255, 255, 255), 0.8)
        context.trace("jewellery", gem, 0.014)
    context.trace("jewellery", points, 0.016)
