"""Draw attribute sets that a real crowd could have: gender and age first, then what tends to follow from them."""

from __future__ import annotations

import math
import tomllib
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final

import numpy as np

from facecaption_ml.taxonomy import ATTRIBUTES, FEMALE, settle_conflicts

_LABELS_STREAM: Final = 0x1ABE15
# A name may be pulled only by names drawn before it.
_ORDER: Final = (
    "Smiling", "Chubby", "Heavy_Makeup", "Pale_Skin", "Blurry", "Eyeglasses", "Bags_Under_Eyes", "Big_Nose",
    "Bushy_Eyebrows", "Goatee", "Wearing_Earrings", "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bald", "Bangs",
    "Big_Lips", "Double_Chin", "High_Cheekbones", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes", "No_Beard",
    "Oval_Face", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks", "Sideburns", "Wearing_Hat", "Wearing_Lipstick",
    "Wearing_Necklace", "Wearing_Necktie",
)  # fmt: skip
_HAIR: Final = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Straight_Hair", "Wavy_Hair")


@lru_cache(maxsize=1)
def _tables() -> dict[str, Any]:
    return tomllib.loads(files("facecaption_ml.sample").joinpath("attribute_rates.toml").read_text("utf-8"))


def sample_labels(seed: int) -> frozenset[str]:
    """The positive CelebA attributes of one imagined person; the same for the same ``seed`` (any int ≥ 0).

    No two of them contradict each other (:func:`facecaption_ml.taxonomy.settle_conflicts`). A man with neither No_Beard,
    Goatee nor 5_o_Clock_Shadow has a full beard, as in CelebA.
    """
    tables = _tables()
    rng = np.random.default_rng((_LABELS_STREAM, seed))
    man = rng.random() < tables["man"]
    young = rng.random() < tables["young_man" if man else "young_woman"]
    group = (0 if man else 2) + (0 if young else 1)
    held: set[str] = ({"Male"} if man else set()) | ({"Young"} if young else set())
    for name in _ORDER:
        if rng.random() < _rate(tables, name, group, held):
            held.add(name)
    held |= _one_of(tables["hair_colour"], group, rng) | _one_of(tables["hair_texture"], group, rng)
    return frozenset(_believable(held, man))


def _rate(tables: dict[str, Any], name: str, group: int, held: set[str]) -> float:
    rate = tables["rates"][name][group]
    if rate in (0.0, 1.0):
        return float(rate)
    pulls = tables["pulls"].get(name, {}).items()
    odds = math.log(rate / (1 - rate)) + sum(pull / 2 if other in held else -pull / 2 for other, pull in pulls)
    # a rare cause that is absent is the usual case, which the rate already describes
    odds += sum(pull / 2 for other, pull in pulls if other not in held and tables["rates"][other][group] < 0.3)
    return 1 / (1 + math.exp(-odds))


def _one_of(table: dict[str, list[float]], group: int, rng: np.random.Generator) -> set[str]:
    draw = rng.random()
    for name, rates in table.items():
        draw -= rates[group]
        if draw < 0:
            return {name}
    return set()


def _believable(held: set[str], man: bool) -> list[str]:
    """Without what cannot hold, or could not be seen, together."""
    if "Wearing_Hat" in held:  # it covers the crown and the hairline
        held -= {"Bald", "Receding_Hairline", "Bangs"}
    if "Bald" in held:
        held -= {*_HAIR, "Bangs", "Receding_Hairline"}
    if held & {"Goatee", "5_o_Clock_Shadow"}:
        held.discard("No_Beard")
    if "No_Beard" not in held and not held & {"Goatee", "5_o_Clock_Shadow"}:
        held |= {"Mustache", "Sideburns"}  # a full beard has both
    kept, _ = settle_conflicts(held | (set() if man else {FEMALE}))
    return [name for name in ATTRIBUTES if name in kept]
