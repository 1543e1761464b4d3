"""Eyes, brows, nose and mouth."""

from __future__ import annotations

import numpy as np

from facecaption_ml.sample.anatomy import EYE_X, MOUTH_Y, NOSE_TIP_Y
from facecaption_ml.sample.appearance import Appearance
from facecaption_ml.sample.canvas import Array, Mask, moved, smooth
from facecaption_ml.sample.render_context import RenderContext
from facecaption_ml.sample.skin import SHADOW, SIDES

_EYE_HALF = 0.165


def paint_eyes(context: RenderContext) -> None:
    """Both eyes with lids, lashes and, with make-up, shadow and liner."""
    for side in SIDES:
        _paint_eye(context, side)


def _lids(look: Appearance, side: float) -> tuple[Array, Array]:
    """Upper and lower lid, [N, 2] each, from the inner to the outer corner."""
    x, y, half = side * EYE_X, side * look.asymmetry, _EYE_HALF
    tilt = -0.012
    up, down = look.eye_open, look.eye_open * 0.72
    lift = 0.012 * look.smile if look.smile > 0.5 else 0.0
    inner, outer = (x - side * half, y + 0.014), (x + side * half, y + tilt)
    upper = [
        inner,
        (x - side * half * 0.45, y - up * 0.85),
        (x + side * half * 0.2, y - up),
        (x + side * half * 0.7, y - up * 0.62),
        outer,
    ]
    lower = [
        inner,
        (x - side * half * 0.4, y + down * 0.72 - lift),
        (x + side * half * 0.3, y + down - lift),
        (x + side * half * 0.75, y + down * 0.5),
        outer,
    ]
    return smooth(upper), smooth(lower)


def _paint_eye(context: RenderContext, side: float) -> None:
    look, canvas, pose, px = context.look, context.canvas, context.pose, context.px
    upper, lower = _lids(look, side)
    x, y = side * EYE_X, side * look.asymmetry
    if look.eyeshadow > 0:
        lid = np.concatenate([upper, (upper * (1, 0.2) + (side * 0.01, y - 0.135))[::-1].astype(np.float32)])
        context.fill(lid, look.eyeshadow_colour, 0.78 * look.eyeshadow, 0.022)
    eye = canvas.polygon(pose.face(np.concatenate([upper, lower[::-1]])), px(0.006))
    if eye is None:
        return
    context.fill(
        np.concatenate([moved(upper, 0, -0.02), moved(lower[::-1], 0, 0.014)]), look.skin * SHADOW, 0.35, 0.012
    )
    canvas.paint(eye, (238, 232, 228))
    _paint_iris(context, x, y, eye)
    shade = canvas.lines([pose.face(upper)], px(0.06), px(0.016))
    canvas.shade(shade, 0.55, 0.8, eye)  # the lid's shadow on the ball
    line = np.array([46, 30, 26], np.float32)
    room = min(1.0, 0.35 + 6.5 * look.eye_open)  # narrow eyes leave less of it for liner
    weight = (0.020 + 0.016 * look.lashes + (0.012 if look.eyeshadow > 0 else 0)) * room
    context.line(upper, line, weight, 0.92, 0.003)
    context.line(
        lower,
        look.skin * 0.45,
        (0.011 + (0.010 if look.eyeshadow > 0 else 0)) * room,
        0.6 + 0.3 * look.eyeshadow,
        0.004,
    )
    fold = upper * (1, 1.12) + (0, -0.045 - 0.1 * (look.eye_open - 0.06))
    context.line(fold[2:], look.skin * SHADOW * 0.9, 0.016, 0.65, 0.006)
    if look.lashes > 0:
        _paint_lashes(context, upper, side)
    context.fill(
        smooth([(x - side * 0.165, y + 0.0), (x - side * 0.14, y - 0.016), (x - side * 0.13, y + 0.016)], closed=True),
        look.skin * (0.95, 0.66, 0.64),
        0.8,
    )
    context.trace("eyes", pose.face(upper), 0.022)
    context.trace("eyes", pose.face(lower), 0.014)


def _paint_iris(context: RenderContext, x: float, y: float, eye: Mask) -> None:
    look, canvas, pose, px = context.look, context.canvas, context.pose, context.px
    radius = 0.087
    gaze = float(np.clip(-0.03 * np.sign(context.pose.yaw), -0.03, 0.03)) * min(abs(context.pose.yaw) * 4, 1)
    centre = (x + gaze, y - 0.016)  # the upper lid covers a little of it
    ring = circle(centre, radius)
    canvas.paint(canvas.polygon(pose.face(ring), px(0.008)), look.iris * 0.55, 1.0, eye)
    canvas.paint(canvas.polygon(pose.face(circle(centre, radius * 0.82)), px(0.012)), look.iris, 1.0, eye)
    low = (centre[0], centre[1] + 0.035)
    canvas.paint(canvas.polygon(pose.face(circle(low, radius * 0.45)), px(0.018)), look.iris * 1.35 + 22, 0.7, eye)
    canvas.paint(canvas.polygon(pose.face(circle(centre, 0.034)), px(0.005)), (14, 10, 10), 1.0, eye)
    spark = (centre[0] + 0.026 * np.sign(context.light), centre[1] - 0.028)
    bright = 0.022 if look.has("Attractive") else 0.015
    canvas.paint(canvas.polygon(pose.face(circle(spark, bright)), px(0.005)), (255, 255, 255), 0.95, eye)
    context.trace("eyes", pose.face(np.concatenate([ring, ring[:1]])), 0.02)


def _paint_lashes(context: RenderContext, upper: Array, side: float) -> None:
    look = context.look
    roots = upper[len(upper) // 3 :]
    outward = np.linspace(0.2, 1.0, len(roots), dtype=np.float32)[:, None]
    tips = roots + outward * (side * 0.05, -0.01) + np.array([0, -0.045], np.float32) * (0.7 + look.lashes)
    hairs = context.pose.face(np.stack([roots[::2], tips[::2]], axis=1))
    context.canvas.paint(context.canvas.lines(list(hairs), context.px(0.012), 0.3), (30, 20, 20), look.lashes)


def circle(centre: tuple[float, float], radius: float, count: int = 20) -> Array:
    """A circle as a closed outline [count, 2]."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)], axis=1).astype(np.float32)


def paint_brows(context: RenderContext) -> None:
    """Both brows: a soft body and single hairs."""
    look, rng = context.look, context.rng
    for side in SIDES:
        high = look.brow_height + side * look.asymmetry * 2
        thick, arch = look.brow_thickness, look.brow_arch
        spine = smooth([
            (side * 0.135, -high - 0.10 * arch), (side * 0.25, -high - 0.62 * arch - 0.012),
            (side * 0.37, -high - arch - 0.012), (side * 0.48, -high - 0.72 * arch), (side * 0.585, -high + 0.045),
        ])  # fmt: skip
        taper = np.interp(np.linspace(0, 1, len(spine)), [0, 0.15, 0.6, 1], [0.55, 1.0, 0.85, 0.18])[:, None]
        half = taper * np.array([0, thick / 2])
        body = np.concatenate([spine - half, (spine + half)[::-1]])
        context.fill(body, look.brow_colour, 0.80, 0.009)
        bushy = look.has("Bushy_Eyebrows")
        share = rng.uniform(0.0, 0.95, 30 if bushy else 12)
        roots = spine[(share * (len(spine) - 1)).astype(int)]
        roots = roots + np.stack([0 * share, rng.uniform(-0.45, 0.45, len(share)) * thick], axis=1)
        lean = np.stack([side * (0.03 + 0.03 * share), -0.04 + 0.05 * share], axis=1) * (1.0 if bushy else 0.6)
        hairs = context.pose.face(np.stack([roots, roots + lean], axis=1))
        mask = context.canvas.lines(hairs, context.px(0.012), context.px(0.003))
        context.canvas.paint(mask, look.brow_colour * 0.7, 0.7)
        context.trace("brows", context.pose.face(spine), 0.5 * thick)


def paint_nose(context: RenderContext) -> None:
    """Bridge, tip, wings and nostrils; a pointed nose has a narrow, lit, hanging tip."""
    look, canvas, pose = context.look, context.canvas, context.pose
    width, tip, point = look.nose_width, NOSE_TIP_Y + look.nose_length, look.nose_point
    lit = np.sign(context.light) or 1.0
    for side in SIDES:
        shade = 0.5 if side != lit else 0.22
        flank = smooth([(side * 0.10, -0.1), (side * 0.085, 0.12), (side * width * 0.75, tip - 0.1)])
        mask = canvas.lines([pose.face(flank, 0.08)], context.px(0.075), context.px(0.03))
        canvas.shade(mask, SHADOW, shade, context.face)
    ridge = smooth([(0, -0.12), (0.01 * lit, 0.1), (0.01 * lit, tip - 0.06)])
    mask = canvas.lines([pose.face(ridge, 0.16)], context.px(0.055 - 0.02 * point), context.px(0.022 - 0.012 * point))
    canvas.shade(mask, 1.16 + 0.08 * point, 0.9)
    under = smooth([(-width, tip + 0.05), (0, tip + 0.13), (width, tip + 0.05), (0, tip + 0.05)], closed=True)
    context.fill(under, look.skin * SHADOW, 0.55, 0.028)
    _paint_nose_tip(context, width, tip, point)
    for side in SIDES:
        wing = smooth(
            [
                (side * width * 0.78, tip - 0.10),
                (side * width * 1.06, tip - 0.01),
                (side * width * 0.86, tip + 0.065),
                (side * width * 0.55, tip + 0.055),
            ]
        )
        context.line(wing, look.skin * SHADOW * 0.72, 0.020, 0.75, 0.008, 0.08)
        hole = smooth(
            [
                (side * width * 0.30, tip + 0.062),
                (side * width * 0.52, tip + 0.038),
                (side * width * 0.72, tip + 0.058),
                (side * width * 0.5, tip + 0.078),
            ],
            closed=True,
        )
        context.fill(hole, (52, 26, 24), 0.8, 0.007, 0.1)
        context.trace("nose", pose.face(wing, 0.08), 0.02)
        context.trace("nose", pose.face(hole, 0.1), 0.014)
    context.trace(
        "nose",
        pose.face(smooth([(-lit * 0.09, -0.12), (-lit * 0.07, 0.12), (-lit * width * 0.6, tip - 0.12)]), 0.08),
        0.012,
    )


def _paint_nose_tip(context: RenderContext, width: float, tip: float, point: float) -> None:
    look, pose, canvas = context.look, context.pose, context.canvas
    if point > 0.3:
        drop = 0.065 * point
        beak = smooth(
            [
                (-width * 0.55, tip - 0.05),
                (-0.05, tip + 0.035),
                (0, tip + 0.045 + drop),
                (0.05, tip + 0.035),
                (width * 0.55, tip - 0.05),
                (0, tip - 0.12),
            ],
            closed=True,
        )
        context.fill(beak, np.minimum(look.skin * 1.03, 250), 0.95, 0.012, 0.16)
        rim = smooth(
            [
                (-width * 0.6, tip - 0.02),
                (-0.06, tip + 0.045),
                (0, tip + 0.055 + drop),
                (0.06, tip + 0.045),
                (width * 0.6, tip - 0.02),
            ]
        )
        context.line(rim, look.skin * SHADOW * 0.7, 0.016, 0.8, 0.005, 0.16)
        context.trace("nose", pose.face(rim, 0.16), 0.014)
        spot = canvas.glow(pose.spot(0, tip - 0.005, 0.16), context.px(0.022), context.px(0.04))
        canvas.paint(spot, np.minimum(look.skin * 1.2 + 40, 255), 0.5)
        return
    ball = canvas.glow(pose.spot(0, tip - 0.015, 0.14), context.px(width * 0.46), context.px(0.075))
    canvas.shade(ball, 1.13, 0.9, context.face)
    if look.has("Big_Nose"):
        for side in SIDES:
            context.glow(side * width * 0.78, tip - 0.015, 0.06, 0.055, 1.10, 0.8)
    spot = canvas.glow(pose.spot(0.01, tip - 0.04, 0.14), context.px(0.035), context.px(0.025))
    canvas.paint(spot, (255, 250, 244), 0.32)


def paint_mouth(context: RenderContext) -> None:
    """Lips, and teeth where they are apart; a smile lifts and widens the corners."""
    look, canvas, pose = context.look, context.canvas, context.pose
    wide, smile, gap = look.mouth_width, look.smile, look.gap
    y = MOUTH_Y + 0.01 * (look.shape.length - 1)
    up = max(smile, 0) * 0.085 + min(smile, 0) * 0.05
    corner = y - up + look.asymmetry
    sag = max(smile, 0) * 0.03
    middle = [
        (-wide, corner),
        (-wide * 0.5, y - up * 0.25 + sag),
        (0, y + 0.006 + sag),
        (wide * 0.5, y - up * 0.25 + sag),
        (wide, y - up - look.asymmetry),
    ]
    seam = smooth(middle)
    opening = np.sin(np.linspace(0, np.pi, len(seam)))[:, None] ** 0.8
    top_edge, low_edge = seam - opening * (0, 0.35 * gap), seam + opening * (0, 0.85 * gap)
    bow = np.interp(
        np.linspace(-1, 1, len(seam)), [-1, -0.55, -0.2, 0, 0.2, 0.55, 1], [0, 0.72, 1.08, 0.86, 1.08, 0.72, 0]
    )
    full = np.interp(np.linspace(-1, 1, len(seam)), [-1, -0.5, 0, 0.5, 1], [0, 0.78, 1.0, 0.78, 0])
    upper = np.concatenate([top_edge, (top_edge - bow[:, None] * (0, look.lip_upper))[::-1]])
    lower = np.concatenate([low_edge, (low_edge + full[:, None] * (0, look.lip_lower))[::-1]])
    if gap > 0:
        _paint_teeth(context, top_edge, low_edge)
    strength = 0.95 if look.lipstick else 0.78
    soft = 0.005 if look.lipstick else 0.012
    context.fill(upper, look.lip_colour * 0.84, strength, soft)
    context.fill(lower, look.lip_colour, strength, soft)
    shine = canvas.glow(
        pose.spot(0.03, float(low_edge[len(seam) // 2, 1]) + look.lip_lower * 0.45),
        context.px(0.08),
        context.px(look.lip_lower * 0.16),
    )
    canvas.paint(shine, (255, 240, 236), 0.42 if look.lipstick else 0.2)
    context.line(top_edge, look.lip_colour * 0.32, 0.014, 0.85, 0.005)
    if gap > 0:
        context.line(low_edge, look.lip_colour * 0.5, 0.010, 0.6, 0.005)
        context.trace("mouth", pose.face(low_edge), 0.014)
    for side in SIDES:
        at = corner if side < 0 else y - up - look.asymmetry
        context.glow(side * (wide + 0.015), at, 0.03, 0.025, SHADOW, 0.6)
    context.trace("mouth", pose.face(top_edge), 0.02)
    half = len(seam)
    context.trace("mouth", pose.face(upper[half:]), 0.016)
    context.trace("mouth", pose.face(lower[half:]), 0.016)


def _paint_teeth(context: RenderContext, top_edge: Array, low_edge: Array) -> None:
    canvas, pose = context.canvas, context.pose
    inside = canvas.polygon(pose.face(np.concatenate([top_edge, low_edge[::-1]])), context.px(0.004))
    canvas.paint(inside, (62, 18, 20))
    if inside is None:
        return
    keep = slice(2, -2)
    smile = context.look.smile > 0.5
    depth = 0.86 if smile else 0.45
    teeth = np.concatenate([top_edge[keep] - (0, 0.01), (top_edge[keep] * (1 - depth) + low_edge[keep] * depth)[::-1]])
    canvas.paint(canvas.polygon(pose.face(teeth * (0.96, 1)), context.px(0.006)), (240, 234, 224), 0.95, inside)
    canvas.shade(canvas.lines([pose.face(top_edge)], context.px(0.03), context.px(0.01)), 0.6, 0.6, inside)


def landmarks(context: RenderContext) -> Array:
    """float32 [5, 2]: eyes, nose, mouth corners, each pair from the picture's left."""
    look, pose = context.look, context.pose
    y = MOUTH_Y - (max(look.smile, 0) * 0.085 + min(look.smile, 0) * 0.05)
    eyes = pose.face([(-EYE_X, -look.asymmetry), (EYE_X, look.asymmetry)])
    nose = pose.face([(0, NOSE_TIP_Y + look.nose_length)], 0.14)
    mouth = pose.face([(-look.mouth_width, y), (look.mouth_width, y)])
    return np.concatenate([eyes, nose, mouth]).astype(np.float32)
