"""One person's look: the 40 attributes and a seed turned into the numbers and colours that the painters read.

What an attribute means for the drawing stands here, in one place; the painters (skin, features, hair, attire) know numbers
only. Ranges of a held and of an absent attribute do not meet, so that the attribute can be seen.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np

from facecaption_ml.sample.anatomy import HeadShape
from facecaption_ml.sample.canvas import Array


@lru_cache(maxsize=1)
def palettes() -> dict[str, dict[str, Any]]:
    """The colours of ``palettes.toml``."""
    return tomllib.loads(files("facecaption_ml.sample").joinpath("palettes.toml").read_text("utf-8"))


@dataclass(frozen=True)
class Appearance:
    """What is to be painted. Lengths are head units (see anatomy), colours float32 [3] RGB 0–255, degrees of a cue 0–1."""

    labels: frozenset[str]
    shape: HeadShape
    # skin
    skin: Array
    age: float  # of lines and folds
    blotches: float  # uneven skin, blemishes
    blush: float
    blush_colour: Array
    bags: float
    cheekbones: float
    fold_under_chin: float
    stubble: float
    # eyes and brows
    eye_open: float  # half height
    iris: Array
    lashes: float
    eyeshadow: float
    eyeshadow_colour: Array
    brow_thickness: float
    brow_arch: float
    brow_colour: Array
    brow_height: float
    # nose and mouth
    nose_width: float
    nose_length: float
    nose_point: float
    lip_upper: float
    lip_lower: float
    lip_colour: Array
    lipstick: bool
    mouth_width: float
    smile: float
    gap: float  # between the lips
    # hair
    hair: Array
    hair_style: str
    hair_wave: float
    hairline: float
    recession: float
    part: float
    asymmetry: float

    def has(self, name: str) -> bool:
        return name in self.labels


def choose(rng: np.random.Generator, table: str, name: str, spread: float = 6.0) -> Array:
    """One colour of the palette, off by a little."""
    options = palettes()[table][name]
    colour = np.array(options[int(rng.integers(len(options)))], np.float32)
    return np.clip(colour + rng.normal(0, spread, 3), 4, 252).astype(np.float32)


def appearance_of(labels: Collection[str], rng: np.random.Generator) -> Appearance:
    """The look of a person with these positive attributes; what they leave open is drawn from ``rng``."""
    held = frozenset(labels)
    between = rng.uniform

    def pick(name: str, if_held: tuple[float, float], otherwise: tuple[float, float]) -> float:
        low, high = if_held if name in held else otherwise
        return float(between(low, high))

    man = "Male" in held
    hair_name = next((n for n in ("Black_Hair", "Brown_Hair", "Blond_Hair", "Gray_Hair") if n in held), "other")
    hair = choose(rng, "hair", hair_name, 5)
    skin = choose(rng, "skin", "pale" if "Pale_Skin" in held else _skin_range(hair_name, rng), 4)
    makeup = "Heavy_Makeup" in held
    lipstick = "Wearing_Lipstick" in held
    smiling = "Smiling" in held
    shape = _shape(held, rng)
    return Appearance(
        labels=held,
        shape=shape,
        skin=skin,
        age=pick("Young", (0.0, 0.08), (0.65, 1.0)),
        blotches=pick("Attractive", (0.0, 0.02), (0.55, 1.0)),
        blush=pick("Rosy_Cheeks", (0.65, 1.0), (0.0, 0.1)),
        blush_colour=np.array([226, 84, 92], np.float32) * (0.55 + 0.45 * float(skin.mean()) / 230),
        bags=pick("Bags_Under_Eyes", (0.7, 1.0), (0.0, 0.1)),
        cheekbones=pick("High_Cheekbones", (0.75, 1.0), (0.0, 0.12)),
        fold_under_chin=pick("Double_Chin", (0.8, 1.0), (0.0, 0.0)),
        stubble=pick("5_o_Clock_Shadow", (0.65, 1.0), (0.0, 0.0)),
        eye_open=pick("Narrow_Eyes", (0.040, 0.053), (0.088, 0.108)) * (0.9 if smiling else 1.0),
        iris=choose(rng, "eyes", "brown" if skin.mean() < 120 and rng.random() < 0.9 else "iris", 6),
        lashes=(0.9 if makeup else 0.5) * (0.0 if man else 1.0),
        eyeshadow=pick("Heavy_Makeup", (0.7, 1.0), (0.0, 0.0)),
        eyeshadow_colour=choose(rng, "eyes", "shadow", 8),
        brow_thickness=pick("Bushy_Eyebrows", (0.085, 0.108), (0.034, 0.05)) * (1.08 if man else 0.94),
        brow_arch=pick("Arched_Eyebrows", (0.10, 0.135), (-0.005, 0.03)),
        brow_colour=_brow_colour(hair, held, rng),
        brow_height=float(between(0.215, 0.25)) + (0.02 if "Arched_Eyebrows" in held else 0.0),
        nose_width=pick("Big_Nose", (0.25, 0.29), (0.15, 0.185)) - (0.02 if "Pointy_Nose" in held else 0.0),
        nose_length=float(between(-0.02, 0.02)) + (0.045 if "Big_Nose" in held else 0.0),
        nose_point=pick("Pointy_Nose", (0.75, 1.0), (0.0, 0.12)),
        lip_upper=pick("Big_Lips", (0.098, 0.116), (0.035, 0.049)) * (0.9 if man else 1.0),
        lip_lower=pick("Big_Lips", (0.132, 0.155), (0.050, 0.068)) * (0.95 if man else 1.0),
        lip_colour=choose(rng, "lips", "stick", 8) if lipstick else _bare_lips(skin, rng),
        lipstick=lipstick,
        mouth_width=float(between(0.25, 0.29)) + (0.055 if smiling else 0.0),
        smile=float(between(0.75, 1.0)) if smiling else float(between(-0.25, 0.08)),
        gap=pick("Mouth_Slightly_Open", (0.06, 0.105), (0.0, 0.0)),
        hair=hair,
        hair_style=_hair_style(held, rng),
        hair_wave=pick("Wavy_Hair", (0.8, 1.0), (0.0, 0.0)),
        hairline=float(between(-0.74, -0.66)) - (0.14 if "Receding_Hairline" in held else 0.0),
        recession=pick("Receding_Hairline", (0.8, 1.0), (0.0, 0.1)),
        part=float(rng.choice([-1, 1]) * between(0.0, 0.4)),
        asymmetry=float(rng.normal(0, 0.002))
        if "Attractive" in held
        else float(rng.choice([-1, 1]) * rng.uniform(0.009, 0.022)),
    )


def _skin_range(hair_name: str, rng: np.random.Generator) -> str:
    """Fair hair mostly goes with light skin."""
    return "light" if hair_name in ("Blond_Hair", "other") and rng.random() < 0.85 else "other"


def _shape(held: frozenset[str], rng: np.random.Generator) -> HeadShape:
    man, oval, chubby = "Male" in held, "Oval_Face" in held, "Chubby" in held
    wide = float(rng.normal(0, 0.012))
    if chubby:
        cheek, jaw, chin, length = 0.93, 0.90, 0.40, 0.985
    elif oval:
        cheek, jaw, chin, length = 0.775, 0.60, 0.23, 1.06
    elif man:
        cheek, jaw, chin, length = 0.82, 0.775, 0.37, 1.0
    else:  # heart or square: wide above, or straight down to the jaw
        cheek, jaw, chin, length = (0.835, 0.60, 0.20, 0.95) if rng.random() < 0.5 else (0.81, 0.74, 0.31, 0.955)
    return HeadShape(
        temple=0.80 + wide - (0.02 if oval else 0.0),
        cheek=cheek + wide,
        jaw=jaw + wide + (0.02 if man and oval else 0.0),
        chin=chin + float(rng.normal(0, 0.012)),
        length=length + float(rng.normal(0, 0.012)),
        crown=float(rng.uniform(1.14, 1.24)),
    )


def _brow_colour(hair: Array, held: frozenset[str], rng: np.random.Generator) -> Array:
    if "Bald" in held or "Blond_Hair" in held or "Gray_Hair" in held:
        tone = np.array([96, 74, 58], np.float32) if "Gray_Hair" not in held else np.array([110, 106, 104], np.float32)
        return (tone + rng.normal(0, 6)).astype(np.float32)
    return (hair * 0.8).astype(np.float32)


def _bare_lips(skin: Array, rng: np.random.Generator) -> Array:
    rose = np.array([0.85, 0.59, 0.58], np.float32) if skin.mean() > 120 else np.array([0.92, 0.66, 0.67], np.float32)
    return (skin * rose + rng.normal(0, 4, 3)).astype(np.float32)


def _hair_style(held: frozenset[str], rng: np.random.Generator) -> str:
    """long, bob, short, slick, crop, tied, curls, bald; texture names exclude the styles in which they would not show."""
    if "Bald" in held:
        return "bald"
    textured = bool(held & {"Straight_Hair", "Wavy_Hair"})
    options: tuple[tuple[str, float], ...]
    if "Male" in held:
        options = (("short", 0.7), ("bob", 0.14), ("slick", 0.16)) if textured else (("crop", 0.7), ("curls", 0.3))
        if "Bangs" in held or "Wearing_Hat" in held:
            options = (("short", 0.8), ("bob", 0.2)) if textured else (("crop", 1.0),)
    elif textured:
        options = (("long", 0.72), ("bob", 0.28))
    else:
        options = (("tied", 0.75), ("curls", 0.25)) if "Bangs" not in held else (("tied", 1.0),)
    names = [name for name, _ in options]
    weights = np.array([weight for _, weight in options])
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]
