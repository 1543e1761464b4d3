"""Goatee, moustache, full beard and sideburns: a soft area of the beard's colour, filled with short hairs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from facecaption_ml.sample.anatomy import CHIN_Y, MOUTH_Y, half_width
from facecaption_ml.sample.canvas import Array, mirror, smooth
from facecaption_ml.sample.render_context import RenderContext
from facecaption_ml.sample.skin import SIDES, jaw_line, paint_stubble


def paint_beard_below_mouth(context: RenderContext) -> None:
    """Everything that lies under the lips: shadow, beard, goatee, sideburns."""
    look = context.look
    paint_stubble(context)
    if not look.has("Male"):
        return
    if look.has("Sideburns"):
        for side in SIDES:
            _paint_sideburn(context, side)
    if has_full_beard(look.labels):
        _paint_full_beard(context)
    elif look.has("Goatee"):
        _paint_goatee(context)


def has_full_beard(labels: frozenset[str]) -> bool:
    """CelebA has no name for it: a man without No_Beard, Goatee or 5_o_Clock_Shadow."""
    return "Male" in labels and not labels & {"No_Beard", "Goatee", "5_o_Clock_Shadow"}


def paint_mustache(context: RenderContext) -> None:
    """Between nose and upper lip, over the lip's edge."""
    look, rng = context.look, context.rng
    if not look.has("Mustache"):
        return
    wide = look.mouth_width * rng.uniform(0.98, 1.22)
    y = MOUTH_Y - look.lip_upper * 0.55
    lift = 0.05 * max(look.smile, 0)
    droop = rng.choice([-0.03, 0.03, 0.07])
    half = [(0.0, y - 0.125), (wide * 0.35, y - 0.15), (wide * 0.8, y - 0.075 - lift), (wide * 1.05, y + droop - lift)]
    under = [(wide * 0.75, y + 0.035 - lift * 0.7), (wide * 0.3, y + 0.012), (0.0, y - 0.02)]
    right = smooth([*half, *under])
    for side in SIDES:
        _paint_patch(context, right * (side, 1), 60, _sideways, 0.92)
    context.trace(
        "beard",
        context.pose.face(np.concatenate([mirror(right)[: len(right) // 2][::-1], right[: len(right) // 2]]), 0.06),
        0.02,
    )


def _paint_goatee(context: RenderContext) -> None:
    look, rng = context.look, context.rng
    low = CHIN_Y * look.shape.length
    wide = rng.uniform(0.24, 0.33)
    top = MOUTH_Y + 0.10 + look.gap * 0.6
    right = smooth([
        (0, top + 0.06), (0.10, top + 0.055), (wide * 0.9, top - 0.05), (wide * 1.1, top + 0.12),
        (wide * 0.95, low - 0.08), (wide * 0.5, low + 0.06), (0, low + rng.uniform(0.07, 0.14)),
    ])  # fmt: skip
    _paint_patch(context, np.concatenate([right, mirror(right)[::-1]]), 110, _downwards, 0.92)
    context.trace("beard", context.pose.face(np.concatenate([right, mirror(right)[::-1]])), 0.02)


def _paint_full_beard(context: RenderContext) -> None:
    look, rng = context.look, context.rng
    jaw = jaw_line(context, 0.18)
    grown = jaw * (1.03, 1.0) + np.stack([np.zeros(len(jaw)), 0.10 * np.clip((jaw[:, 1] - 0.6) / 0.5, 0, 1)], 1)
    rim = rng.uniform(-0.04, 0.04)
    wide = look.mouth_width + 0.02
    below = MOUTH_Y + 0.8 * look.gap
    inner = [
        (0.72, 0.20), (0.66, 0.45 + rim), (0.46, 0.62 + rim), (wide, 0.62), (wide + 0.02, MOUTH_Y + 0.02),
        (wide * 0.8, below + 0.13), (0.1, below + 0.19), (0, below + 0.185),
    ]  # fmt: skip
    right = smooth(inner)
    area = np.concatenate([grown, right, mirror(right)[::-1]])
    _paint_patch(context, area, 240, _downwards, 0.94)
    context.trace("beard", context.pose.solid(grown, 0.3), 0.022)
    context.trace("beard", context.pose.face(np.concatenate([mirror(right), right[::-1]])), 0.012)


def _paint_sideburn(context: RenderContext, side: float) -> None:
    edge = half_width(context.look.shape, 0.2)
    low = context.rng.uniform(0.40, 0.50)
    shape = smooth([
        (side * edge * 0.99, -0.25), (side * edge * 0.86, -0.2), (side * edge * 0.84, 0.15), (side * edge * 0.80, low),
        (side * edge * 0.94, low + 0.04), (side * edge * 1.0, 0.15),
    ], closed=True)  # fmt: skip
    _paint_patch(context, shape, 46, _downwards, 0.9)
    context.trace("beard", context.pose.face(shape[:16]), 0.016)


def _downwards(points: Array) -> Array:
    return np.stack([0.05 * points[:, 0], np.full(len(points), 0.065)], axis=1)


def _sideways(points: Array) -> Array:
    return np.stack([0.05 * np.sign(points[:, 0]), np.full(len(points), 0.03)], axis=1)


def _paint_patch(
    context: RenderContext, area: Array, hairs: int, direction: Callable[[Array], Array], alpha: float
) -> None:
    """Hair-covered skin inside ``area`` (head units); ``direction(points)`` gives each hair's vector."""
    rng, canvas, pose = context.rng, context.canvas, context.pose
    mask = canvas.polygon(pose.face(area, 0.03), context.px(0.018))
    if mask is None:
        return
    tone = beard_colour(context)
    canvas.paint(mask, tone, alpha)
    low, high = area.min(axis=0), area.max(axis=0)
    roots = rng.uniform(low, high, (hairs, 2)).astype(np.float32)
    tips = roots + direction(roots) * rng.uniform(0.6, 1.4, (hairs, 1)) + rng.normal(0, 0.012, (hairs, 2))
    lines = list(pose.face(np.stack([roots, tips], axis=1), 0.03))
    half = hairs // 2
    canvas.paint(canvas.lines(lines[:half], context.px(0.016), 0.3), tone * 0.5, 0.6, mask)
    canvas.paint(canvas.lines(lines[half:], context.px(0.014), 0.3), np.minimum(tone * 1.4 + 14, 255), 0.5, mask)


def beard_colour(context: RenderContext) -> Array:
    """The hair's colour, a little darker; of a bald man the brows'."""
    look = context.look
    return look.brow_colour if look.has("Bald") or look.has("Blond_Hair") else (look.hair * 0.88).astype(np.float32)
