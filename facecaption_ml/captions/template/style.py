"""The style of template captions (``style.toml``): families of attributes, and what a careful writer avoids."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from facecaption_ml.captions.labels import BIT

BUNDLED_STYLE: Final = Path(__file__).with_name("style.toml")


@dataclass(frozen=True)
class PlanCosts:
    """What a plan costs; each is explained in ``style.toml``."""

    lonely: float
    crowded: float
    stray: float
    sentence: float
    bare_opening: float
    uneven: float


@dataclass(frozen=True)
class SentenceCosts:
    """What a construction costs where it stands; each is explained in ``style.toml``."""

    same_word: float
    same_construction: float
    early: float
    static: float
    ands: float
    placing: tuple[str, ...]
    later: tuple[str, ...]


@dataclass(frozen=True)
class Style:
    """Attributes are bits; weights and costs as in ``style.toml``."""

    text: str
    drafts: int
    families: tuple[int, ...]
    together: tuple[int, ...]
    beside: tuple[int, ...]
    last: int
    neighbours: float
    merged: float
    of_the_person: float
    families_in_the_opening: tuple[float, ...]
    families_in_a_sentence: tuple[float, ...]
    stray: float
    plan_costs: PlanCosts
    sentence_costs: SentenceCosts


@cache
def bundled_style() -> Style:
    """The style that comes with the package, read at first use."""
    return read_style(BUNDLED_STYLE.read_text(encoding="utf-8"))


def read_style(text: str) -> Style:
    """Raises KeyError for an unknown attribute, TypeError for a missing or unknown cost."""
    data = tomllib.loads(text)
    phrases, plans, sentence = data["phrases"], data["plans"], dict(data["sentence_costs"])
    return Style(
        text=text,
        drafts=data["drafts"],
        families=tuple(_bits(names) for names in data["families"].values()),
        together=tuple(_bits(names) for names in phrases["together"]),
        beside=tuple(_bits(names) for names in phrases["beside"]),
        last=_bits(phrases["last"]),
        neighbours=phrases["neighbours"],
        merged=phrases["merged"],
        of_the_person=phrases["of_the_person"],
        families_in_the_opening=tuple(plans["families_in_the_opening"]),
        families_in_a_sentence=tuple(plans["families_in_a_sentence"]),
        stray=plans["stray"],
        plan_costs=PlanCosts(**data["plan_costs"]),
        sentence_costs=SentenceCosts(**{**sentence, **{key: tuple(sentence[key]) for key in ("placing", "later")}}),
    )


def _bits(names: Sequence[str]) -> int:
    return sum(BIT[name] for name in names)
