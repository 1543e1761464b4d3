"""Hair as locks: each lock lies between two curves and is filled with strands that follow them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from facecaption_ml.sample.anatomy import half_width
from facecaption_ml.sample.canvas import Array, mirror, resample, smooth
from facecaption_ml.sample.render_context import RenderContext
from facecaption_ml.sample.skin import SIDES

Points = Sequence[Sequence[float]]
_LENGTH = 28  # samples along a lock
_IN_THE_LIGHT = 0.8


def paint_lock(
    context: RenderContext, inner: Points, outer: Points, *, depth: float = 0.0, strands: int = 34, wave: float | None = None,
    darker: float = 1.0, across: bool = False, cropped: bool = False, gloss: float | None = None, traced: bool = True,
) -> None:  # fmt: skip
    """Fill the area between two curves (head units, both from root to tip) with hair.

    ``across`` lets the strands run from the inner to the outer curve instead of along them. ``wave`` 0–1 bends strands
    and rim; ``darker`` scales the colour (hair behind the neck is in shadow).
    """
    look, rng, canvas = context.look, context.rng, context.canvas
    wave = look.hair_wave if wave is None else wave
    a, b = resample(smooth(inner), _LENGTH), resample(smooth(outer), _LENGTH)
    if wave > 0:
        b = b + _ripple(b, wave, rng)
    pixels_a, pixels_b = context.pose.solid(a, depth), context.pose.solid(b, depth)
    mask = canvas.polygon(np.concatenate([pixels_a, pixels_b[::-1]]), context.px(0.014))
    if mask is None:
        return
    colour = look.hair * np.float32(darker)
    canvas.paint(mask, colour)
    canvas.shade(mask.edge(context.px(0.09)), 0.62, 0.7)
    hairs = _strands(a, b, strands, wave, across, rng)
    if cropped:  # only a short piece of each, anywhere on its way
        start = rng.integers(0, hairs.shape[1] - 2, strands)
        hairs = hairs[np.arange(strands)[:, None], start[:, None] + np.arange(3)]
    drawn = context.pose.solid(hairs, depth)
    third = len(drawn) // 3
    width = context.px(0.020)
    canvas.paint(canvas.lines(drawn[:third], width, 0.35), colour * 0.45, 0.55, mask)
    canvas.paint(canvas.lines(drawn[third : 2 * third], width, 0.35), np.minimum(colour * 1.35 + 16, 255), 0.5, mask)
    canvas.paint(canvas.lines(drawn[2 * third :], width * 0.6, 0.3), colour * 0.6, 0.6, mask)
    shine = (0.5 if look.has("Straight_Hair") else 0.3) if gloss is None else gloss
    if shine > 0:
        at = 0.30 if not across else 0.55
        band = a * (1 - 0.5) + b * 0.5 if across else _cross(a, b, at)
        glow = canvas.lines([context.pose.solid(band, depth)], context.px(0.10), context.px(0.05))
        canvas.paint(glow, np.minimum(colour * 1.5 + 40, 255), shine, mask)
    if traced:
        context.trace("hair", pixels_b, 0.022)
        # of hair behind the head only the outline is seen
        for curve in drawn[: min(5, third)] if darker >= _IN_THE_LIGHT else ():
            context.trace("hair", curve, 0.010)


def _ripple(curves: Array, wave: float, rng: np.random.Generator) -> Array:
    """A sideways swing that grows towards the tips, [..., N, 2] for curves [..., N, 2]."""
    direction = np.empty_like(curves)
    direction[..., 1:-1, :] = (curves[..., 2:, :] - curves[..., :-2, :]) / 2
    direction[..., 0, :], direction[..., -1, :] = direction[..., 1, :], direction[..., -2, :]
    step = np.maximum(np.hypot(direction[..., 0], direction[..., 1]), 1e-6)
    along = np.cumsum(step, axis=-1)
    phase = rng.uniform(0, 6.3) + rng.uniform(0, 0.9, (*curves.shape[:-2], 1))
    swing = 0.056 * wave * np.sin(along * (2 * np.pi / 0.52) + phase) * np.clip(along / 0.5, 0, 1) / step
    return np.stack([-direction[..., 1] * swing, direction[..., 0] * swing], axis=-1).astype(np.float32)


def _strands(a: Array, b: Array, count: int, wave: float, across: bool, rng: np.random.Generator) -> Array:
    """``count`` hairs between two curves [_LENGTH, 2]: float32 [count, N, 2], each off its way by a little."""
    if across:
        share = np.linspace(0, 1, 10, dtype=np.float32)
        start = rng.uniform(0.02, 0.98, (count, 1))
        index = (start + np.clip(rng.normal(0, 0.05, (count, 1)), -start, 1 - start) * share) * (_LENGTH - 1)
        curves = _at(a, index) * (1 - share)[:, None] + _at(b, index) * share[:, None]
        return curves + (_ripple(curves, wave, rng) * np.float32(0.5) if wave > 0 else 0)
    run = np.linspace(0, 1, _LENGTH, dtype=np.float32)
    u = rng.uniform(0.03, 0.97, (count, 1))
    drift = (u + np.clip(rng.normal(0, 0.06, (count, 1)), -u, 1 - u) * run).astype(np.float32)[..., None]
    curves = a * (1 - drift) + b * drift
    if wave > 0:
        curves = curves + _ripple(curves, wave, rng) * np.float32(0.8)
    # a hair is seen over a part of the lock only
    first, last = rng.uniform(0, 0.3, (count, 1)), rng.uniform(0.6, 1.0, (count, 1))
    index = (first + (last - first) * run) * (_LENGTH - 1)
    low = np.minimum(index.astype(np.int64), _LENGTH - 2)
    part = (index - low)[..., None].astype(np.float32)
    rows = np.arange(count)[:, None]
    return np.asarray(curves[rows, low] * (1 - part) + curves[rows, low + 1] * part, np.float32)


def _at(curve: Array, index: Array) -> Array:
    """Points [..., 2] of a curve [N, 2] at fractional indices [...]."""
    low = np.clip(index.astype(np.int64), 0, len(curve) - 2)
    part = (index - low)[..., None].astype(np.float32)
    return np.asarray(curve[low] * (1 - part) + curve[low + 1] * part, np.float32)


def _cross(a: Array, b: Array, share: float) -> Array:
    index = int(share * (_LENGTH - 1))
    t = np.linspace(0.1, 0.9, 8, dtype=np.float32)[:, None]
    return a[index] * (1 - t) + b[index] * t


def paint_hair_behind(context: RenderContext) -> None:
    """What hangs behind the neck, or stands round the head."""
    look = context.look
    style, crown = look.hair_style, look.shape.crown
    if style in ("long", "bob"):
        tip, wide = (1.9, 1.0) if style == "long" else (0.98, 0.98)
        if look.has("Male") and style == "bob":
            tip = 1.15
        outer = [
            (0, -crown - 0.16),
            (wide * 0.78, -0.98),
            (wide, -0.3),
            (wide + 0.04, 0.4),
            (wide + 0.05, tip * 0.8),
            (wide - 0.08, tip),
        ]
        for side in SIDES:
            inner = [(0, -crown), (side * 0.3, -0.3), (side * 0.34, 0.4), (side * 0.3, tip)]
            paint_lock(context, inner, [(side * x, y) for x, y in outer], depth=-0.25, darker=0.72, gloss=0.0)
    elif style == "curls":
        _paint_curls(context)
    elif style == "tied":
        _paint_tied(context)


def _paint_curls(context: RenderContext) -> None:
    look, rng, canvas = context.look, context.rng, context.canvas
    big = 1.0 if look.has("Male") else 1.12
    low = 0.15 if look.has("Male") else 0.75
    angle = np.linspace(np.pi - 0.2 - low * 0.6, 2 * np.pi + 0.2 + low * 0.6, 60)
    ring = np.stack([np.cos(angle) * big, -0.32 + np.sin(angle) * big * 1.1], axis=1)
    for radius, tone in ((0.17, 0.62), (0.13, 0.9)):
        for x, y in ring[:: 3 if tone < 0.8 else 4] * (1.0 if tone < 0.8 else 0.95):
            at = context.pose.solid([(x + rng.normal(0, 0.03), y + rng.normal(0, 0.03))], -0.1)[0]
            blob = canvas.polygon(at + _wheel() * context.px(radius * rng.uniform(0.8, 1.2)), context.px(0.012))
            canvas.paint(blob, look.hair * tone * rng.uniform(0.85, 1.15))
    body = context.pose.solid(smooth(ring[::6]), -0.1)
    canvas.paint(canvas.polygon(body, context.px(0.03)), look.hair * 0.7)
    rings = []
    for _ in range(70):
        x, y = ring[int(rng.integers(len(ring)))] * rng.uniform(0.78, 1.08)
        at = context.pose.solid([(x, y)], -0.1)[0]
        turn = rng.uniform(0, 12)
        rings.append(at + np.roll(_wheel(), int(turn), axis=0)[:9] * context.px(rng.uniform(0.04, 0.08)))
    canvas.paint(canvas.lines(rings[:35], context.px(0.018), 0.3), look.hair * 0.4, 0.6)
    canvas.paint(canvas.lines(rings[35:], context.px(0.018), 0.3), np.minimum(look.hair * 1.5 + 20, 255), 0.5)
    context.trace("hair", body, 0.02)
    for ringlet in rings[::6]:
        context.trace("hair", ringlet, 0.012)


def _wheel() -> Array:
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def _paint_tied(context: RenderContext) -> None:
    """A bun on top, or a tail over one shoulder."""
    look = context.look
    side = 1.0 if look.part > 0 else -1.0
    if abs(look.part) > 0.2 and not look.has("Wearing_Hat"):
        top = -look.shape.crown
        paint_lock(
            context, [(-0.3, top + 0.05), (-0.36, top - 0.22), (0, top - 0.42)],
            [(0.3, top + 0.05), (0.36, top - 0.22), (0, top - 0.42)], depth=-0.3, strands=24, wave=0.0,
        )  # fmt: skip
    else:
        paint_lock(
            context, [(side * 0.5, -0.6), (side * 0.86, 0.3), (side * 0.62, 1.0), (side * 0.72, 1.75)],
            [(side * 0.8, -0.7), (side * 1.16, 0.25), (side * 1.02, 1.0), (side * 0.86, 1.8)],
            depth=-0.25, darker=0.85, wave=0.0,
        )  # fmt: skip


def paint_hair_front(context: RenderContext) -> None:
    """What frames the face, over its rim."""
    look = context.look
    style = look.hair_style
    if style == "bald":
        _paint_bald_fringe(context)
    elif style in ("long", "bob"):
        _paint_curtains(context)
    elif style == "short":
        _paint_short(context)
    else:
        _paint_cap(context)
    if look.has("Bangs"):
        _paint_bangs(context)


def _hairline(context: RenderContext) -> tuple[list[tuple[float, float]], float]:
    """From the middle of the forehead to the right sideburn, and how far the corners have receded."""
    look = context.look
    line, back = look.hairline, look.recession
    edge = half_width(look.shape, -0.3)
    widow = 0.06 * back
    points = [
        (0.0, line + widow), (0.22, line - 0.02 - 0.12 * back), (0.46, line + 0.05 - 0.26 * back),
        (0.64 + 0.03 * back, -0.48 - 0.22 * back), (edge * 0.90 + 0.03 * back, -0.26), (edge * 0.955, 0.0),
    ]  # fmt: skip
    return points, back


def _paint_curtains(context: RenderContext) -> None:
    """Long hair parted in the middle or at a side, falling along both cheeks."""
    look = context.look
    crown, part = look.shape.crown, look.part * 0.8
    tip = 1.75 if look.hair_style == "long" else (1.05 if look.has("Male") else 0.86)
    edge = half_width(look.shape, 0.2)
    line, _ = _hairline(context)
    for side in SIDES:
        reach = abs(side * edge - part) / edge
        inner = [
            (part, look.hairline - 0.03), (part + side * 0.34 * reach, line[1][1] + 0.03),
            (side * 0.64, -0.42 - 0.14 * look.recession), (side * edge * 0.97, 0.0), (side * edge, 0.45),
            (side * (edge - 0.06), 0.95 * min(tip, 1.2)), (side * (edge - 0.2), tip),
        ]  # fmt: skip
        outer = [
            (part, -crown - 0.10), (part + side * 0.5 * reach, -crown - 0.12), (side * 0.86, -0.86), (side * 1.03, -0.25),
            (side * 1.08, 0.45), (side * 1.10, 0.95 * min(tip, 1.2)), (side * 0.98, tip + 0.04),
        ]  # fmt: skip
        paint_lock(context, inner, outer, depth=0.02, strands=54)


def _paint_short(context: RenderContext) -> None:
    """A parted short cut: two locks combed away from the part, with short sides."""
    look = context.look
    crown, part = look.shape.crown, look.part
    line, _ = _hairline(context)
    _paint_sides(context, line)
    for side in SIDES:
        across = [
            (part, look.hairline - 0.02),
            *[(part + (side * x - part) * 1.0, y) for x, y in line[1:4]],
            (side * line[4][0], -0.36),
        ]
        over = [
            (part, -crown - 0.14),
            (part + side * 0.42, -crown - 0.15),
            (side * 0.78, -0.98),
            (side * 0.93, -0.6),
            (side * 0.93, -0.28),
        ]
        paint_lock(context, across, over, depth=0.06, strands=46)


def _paint_sides(context: RenderContext, line: list[tuple[float, float]]) -> None:
    for side in SIDES:
        inner = [(side * x, y) for x, y in line[2:]]
        outer = [(side * 0.74, -0.95), (side * 0.90, -0.6), (side * 0.925, -0.3), (side * 0.90, -0.08)]
        paint_lock(context, inner, outer, depth=0.0, strands=22, wave=0.0, darker=0.85, gloss=0.0, traced=False)


def _paint_cap(context: RenderContext) -> None:
    """One cap from temple to temple: slicked back, cropped close, tied back, or the front of curls."""
    look = context.look
    line, _ = _hairline(context)
    lift = {"slick": 0.17, "crop": 0.05, "tied": 0.07, "curls": 0.10}[look.hair_style]
    crown = look.shape.crown + lift
    right_over = [
        (0.4, -crown * 0.97),
        (0.76 + lift * 0.3, -0.88 - lift * 0.3),
        (0.86 + lift * 0.3, -0.4),
        (0.88, -0.02),
    ]
    inner = [(-x, y) for x, y in line[::-1]] + line[1:]
    outer = [*mirror(right_over)[::-1].tolist(), (0, -crown), *right_over]
    wave = 0.9 if look.hair_style == "curls" else look.hair_wave
    gloss = 0.0 if look.hair_style in ("crop", "curls") else None
    crop = look.hair_style == "crop"
    strands = 150 if crop else 70
    paint_lock(
        context, inner, outer, depth=0.03, strands=strands, across=True, cropped=crop, wave=wave, gloss=gloss, traced=not crop
    )  # fmt: skip
    if crop:
        context.trace("hair", context.pose.solid(smooth(outer), 0.03), 0.022)


def _paint_bald_fringe(context: RenderContext) -> None:
    """A shining crown; most keep some hair round the ears."""
    look = context.look
    context.glow(0.16 * np.sign(context.light), -0.84, 0.20, 0.13, 1.22)
    spot = context.canvas.glow(
        context.pose.spot(0.2 * np.sign(context.light), -0.86), context.px(0.09), context.px(0.055)
    )
    context.canvas.paint(spot, (255, 250, 244), 0.5, context.face)
    crown = context.outline_px
    context.trace("hair", np.concatenate([crown[-14:], crown[:15]]), 0.02)
    if abs(look.part) > 0.25:
        return
    for side in SIDES:
        inner = [(side * 0.80, -0.52), (side * 0.79, -0.25), (side * 0.80, 0.06)]
        outer = [(side * 0.84, -0.58), (side * 0.94, -0.22), (side * 0.90, 0.14)]
        paint_lock(context, inner, outer, depth=-0.02, strands=14, wave=0.2, darker=0.9, gloss=0.0)


def _paint_bangs(context: RenderContext) -> None:
    """A fringe from the crown to just above the brows."""
    look, rng = context.look, context.rng
    low = -0.30 + rng.uniform(-0.04, 0.03)
    ends = np.linspace(-0.70, 0.70, 9)
    tips = [(x, low + 0.10 * (x / 0.7) ** 2 * -1 + rng.normal(0, 0.016)) for x in ends]
    tips[0], tips[-1] = (-0.74, -0.22), (0.74, -0.22)
    roots = [(-0.68, -0.80), (-0.4, -1.04), (0, -1.12), (0.4, -1.04), (0.68, -0.80)]
    paint_lock(context, roots, tips, depth=0.45, strands=80, across=True, wave=0.5 * look.hair_wave)
