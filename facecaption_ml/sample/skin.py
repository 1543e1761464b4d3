"""Neck, ears, the lit surface of the face, and what age and condition leave on it."""

from __future__ import annotations

import numpy as np

from facecaption_ml.sample.anatomy import CHIN_Y, EYE_X, MOUTH_Y, half_width
from facecaption_ml.sample.canvas import Array, mirror, resample, smooth
from facecaption_ml.sample.render_context import RenderContext

SHADOW = np.array([0.66, 0.52, 0.50], np.float32)  # skin in shadow turns redder as it darkens
SIDES = (-1.0, 1.0)


def paint_neck(context: RenderContext) -> None:
    """The neck, dark under the chin, and the double chin that rests on it."""
    look, canvas, pose = context.look, context.canvas, context.pose
    width = 0.52 if look.has("Male") else 0.43
    width += 0.08 if look.has("Chubby") else 0.0
    right = [(width * 1.02, 0.5), (width, 1.0), (width * 1.02, 1.25), (width * 1.25, 1.48), (width * 1.9, 1.70)]
    curve = np.concatenate([smooth(right), smooth(mirror(right))[::-1]])
    points = pose.solid(curve, -0.05)
    mask = canvas.polygon(points, context.px(0.01))
    canvas.paint(mask, look.skin * 0.94)
    if mask is not None:
        canvas.shade(mask.edge(context.px(0.16)), SHADOW, 0.75)
        under = pose.solid(smooth([(-0.75, 0.5), (-0.45, 1.22), (0, 1.36), (0.45, 1.22), (0.75, 0.5)]), 0.25)
        canvas.shade(canvas.polygon(under, context.px(0.07)), SHADOW, 0.9, mask)
        if look.has("Male"):
            canvas.shade(canvas.glow(pose.solid([(0, 1.4)], 0.2)[0], context.px(0.06), context.px(0.1)), 1.13)
    half = len(points) // 2
    context.trace("neck", points[half // 3 : half])
    context.trace("neck", points[half : half + 2 * half // 3][::-1])
    if look.fold_under_chin > 0:
        _paint_double_chin(context)


def _paint_double_chin(context: RenderContext) -> None:
    look, pose, canvas = context.look, context.pose, context.canvas
    jaw, low = look.shape.jaw, look.shape.length
    drop = 0.16 + 0.05 * look.fold_under_chin
    arc = [(jaw * 0.98, 0.72), (jaw * 0.80, 1.08), (0.36, CHIN_Y * low + drop * 0.75), (0, CHIN_Y * low + drop)]
    curve = smooth([*arc, *mirror(arc)[::-1][1:].tolist()])
    points = pose.solid(curve, 0.4)
    mask = canvas.polygon(points, context.px(0.015))
    canvas.paint(mask, look.skin * 0.95)
    if mask is not None:
        canvas.shade(mask.edge(context.px(0.07)), SHADOW, 0.95)
    context.trace("lines", points[len(points) // 4 : 3 * len(points) // 4])


def paint_ears(context: RenderContext) -> None:
    """Both ears, behind the face; the one turned away is mostly hidden by it."""
    look, canvas, pose = context.look, context.canvas, context.pose
    edge = half_width(look.shape, 0.1)
    for side in SIDES:
        shape = [(-0.05, -0.16), (0.06, -0.2), (0.125, -0.12), (0.115, 0.08), (0.06, 0.26), (0.0, 0.34), (-0.06, 0.28)]
        curve = smooth([(side * (edge + x), 0.06 + y) for x, y in shape], closed=True)
        points = pose.solid(curve, -0.02)
        mask = canvas.polygon(points, context.px(0.012))
        canvas.paint(mask, look.skin * np.array([0.97, 0.90, 0.88], np.float32))
        if mask is not None:
            canvas.shade(mask.edge(context.px(0.05)), SHADOW, 0.5)
            inner = smooth([(side * (edge + 0.02), -0.05), (side * (edge + 0.07), -0.06), (side * (edge + 0.05), 0.18)])
            canvas.shade(canvas.lines([pose.solid(inner, 0.0)], context.px(0.03), context.px(0.012)), SHADOW, 0.6)
        context.trace("ears", points[: int(len(points) * 0.85)])


def paint_face(context: RenderContext) -> None:
    """The bare face: base colour, light from one side, soft occlusion at the rim and in the hollows."""
    look, canvas = context.look, context.canvas
    canvas.paint(context.face, look.skin)
    canvas.shade(context.face.edge(context.px(0.20)), SHADOW, 0.62)
    light = context.light
    context.glow(-0.75 * np.sign(light), 0.15, 0.42, 0.9, SHADOW, 0.55 * abs(light))
    context.glow(0.35 * np.sign(light), -0.42, 0.36, 0.26, 1.12, 0.5 + 0.5 * abs(light))
    for side in SIDES:
        context.glow(side * EYE_X, -0.02, 0.19, 0.11, SHADOW, 0.34)  # socket
        context.glow(side * 0.12, -0.06, 0.07, 0.12, SHADOW, 0.30)  # beside the bridge
        context.glow(side * 0.42, 0.36, 0.17, 0.14, 1.09, 0.7)  # cheek
        context.blush(side * 0.46, 0.40, 0.2, 0.15, look.skin * (1.04, 0.84, 0.80), 0.35)
    context.glow(0, 0.92, 0.17, 0.04, SHADOW, 0.35)  # under the lower lip
    context.glow(0, 1.03, 0.14, 0.07, 1.10, 0.6)  # chin
    context.glow(0, 1.22, 0.5, 0.08, SHADOW, 0.4)
    lower = context.outline_px
    third = len(lower) // 4
    context.trace("face", np.concatenate([lower[third - 4 : 3 * third + 5]]), 0.024)


def paint_condition(context: RenderContext) -> None:
    """Cheekbones, rosy cheeks, bags under the eyes, blemishes, stubble and the lines of age."""
    look = context.look
    for side in SIDES:
        if look.cheekbones > 0.3:
            _paint_cheekbone(context, side)
        if look.blush > 0.3:
            x, y = 0.47 + 0.02 * context.look.shape.cheek, 0.37
            context.blush(side * x, y, 0.16, 0.13, look.blush_colour, 0.68 * look.blush)
        if look.bags > 0.3:
            _paint_bag(context, side)
    if look.blotches > 0.3:
        _paint_blotches(context)
    else:
        context.glow(0, 0.1, 0.5, 0.6, (1.07, 1.05, 1.03))  # smooth and bright
    if look.age > 0.3:
        _paint_age(context)
    if look.has("Smiling") or look.age > 0.3:
        strength = 0.3 * look.has("Smiling") + 0.75 * (look.age > 0.3)
        for side in SIDES:
            fold = smooth([(side * 0.205, 0.42), (side * 0.32, 0.53), (side * (0.39 + 0.04 * look.smile), 0.72)])
            context.crease(fold, min(strength, 1.0), 0.018 + 0.008 * (look.age > 0.3))
            if strength > 0.4:
                context.trace("lines", context.pose.face(fold), 0.012)


def _paint_cheekbone(context: RenderContext, side: float) -> None:
    edge = half_width(context.look.shape, 0.3)
    strength = context.look.cheekbones
    high = smooth([(side * 0.34, 0.26), (side * 0.52, 0.235), (side * 0.68, 0.13)])
    mask = context.canvas.lines([context.pose.face(high)], context.px(0.10), context.px(0.045))
    context.canvas.shade(mask, (1.17, 1.16, 1.15), strength, context.face)
    hollow = smooth([(side * edge * 0.94, 0.32), (side * edge * 0.72, 0.48), (side * edge * 0.55, 0.60)])
    mask = context.canvas.lines([context.pose.face(hollow)], context.px(0.13), context.px(0.05))
    context.canvas.shade(mask, SHADOW, 0.62 * strength, context.face)


def _paint_bag(context: RenderContext, side: float) -> None:
    strength, x = context.look.bags, side * EYE_X
    arc = smooth([(x - 0.15, 0.085), (x - 0.07, 0.155), (x + 0.06, 0.165), (x + 0.15, 0.10)])
    context.glow(x, 0.115, 0.13, 0.045, (0.74, 0.62, 0.70), 0.75 * strength)
    context.crease(arc, 0.95 * strength, 0.022, 0.010)
    context.trace("lines", context.pose.face(arc), 0.012)


def _paint_blotches(context: RenderContext) -> None:
    look, rng = context.look, context.rng
    for _ in range(9):
        x, y = rng.uniform(-0.62, 0.62), rng.uniform(-0.6, 0.95)
        context.glow(x, y, rng.uniform(0.08, 0.2), rng.uniform(0.06, 0.14), (0.93, 0.78, 0.75), 0.8 * look.blotches)
    spots = context.pose.face(rng.uniform((-0.66, -0.55), (0.66, 1.0), (30, 2)))
    size = context.px(0.021)
    marks = list(np.stack([spots, spots + np.array([size * 0.3, 0], np.float32)], axis=1))
    context.canvas.shade(
        context.canvas.lines(marks, size, size * 0.3), (0.66, 0.46, 0.42), 0.75 * look.blotches, context.face
    )


def _paint_age(context: RenderContext) -> None:
    look, rng = context.look, context.rng
    strength = look.age
    if not look.has("Bangs"):
        for row in range(3):
            y, bow = -0.40 - 0.085 * row + rng.normal(0, 0.01), rng.normal(0.0, 0.012)
            reach = 0.36 - 0.03 * row + rng.uniform(-0.05, 0.05)
            wrinkle = smooth(
                [(-reach, y + 0.02), (-reach / 2, y + bow), (0, y + 0.015), (reach / 2, y + bow), (reach, y)]
            )
            context.crease(wrinkle, 0.85 * strength, 0.019, 0.009)
            context.trace("lines", context.pose.face(wrinkle), 0.010)
    for side in SIDES:
        for slope in (-0.07, 0.0, 0.07):  # crow's feet
            x = side * (EYE_X + 0.20)
            foot = [(x, 0.01 + slope * 0.5), (x + side * 0.12, 0.01 + slope * 1.6)]
            context.crease(foot, 0.85 * strength, 0.016, 0.007)
        context.crease([(side * 0.055, -0.26), (side * 0.05, -0.15)], 0.7 * strength, 0.018, 0.008)  # frown
        droop = smooth([(side * 0.34, MOUTH_Y + 0.06), (side * 0.40, 0.88), (side * 0.41, 0.98)])
        context.crease(droop, 0.85 * strength, 0.024, 0.012)
        context.glow(side * 0.5, 0.55, 0.13, 0.22, SHADOW, 0.45 * strength)


def jaw_line(context: RenderContext, top: float, count: int = 24) -> Array:
    """The outline from the left cheek at height ``top`` round the chin to the right one, head units [count, 2]."""
    curve = context.outline
    low = curve[(curve[:, 1] > top)]
    order = np.argsort(np.arctan2(low[:, 0], low[:, 1] - top + 0.3))
    return resample(low[order], count)


def paint_stubble(context: RenderContext) -> None:
    """A 5 o'clock shadow: the area of a beard tinted grey, with specks."""
    look, rng = context.look, context.rng
    if look.stubble <= 0:
        return
    jaw = jaw_line(context, 0.30)
    inner = smooth([(0.68, 0.36), (0.46, 0.58), (0.30, 0.60), (0.18, 0.52), (0, 0.54)])
    area = np.concatenate([jaw, inner, mirror(inner)[::-1]])
    mask = context.canvas.polygon(context.pose.face(area * (0.98, 0.99)), context.px(0.05))
    if mask is None:
        return
    tone = np.minimum(look.brow_colour * 0.8 + 24, look.skin * 0.6)
    context.canvas.paint(mask, tone, 0.42 * look.stubble, context.face)
    spots = rng.uniform((-0.7, 0.45), (0.7, 1.15), (260, 2)).astype(np.float32)
    at = context.pose.face(spots)
    specks = list(np.stack([at, at + np.array([0.3, context.px(0.012)], np.float32)], axis=1))
    context.canvas.paint(context.canvas.lines(specks, context.px(0.011)), tone * 0.6, 0.5 * look.stubble, mask)
