"""Alt text like LAION's: what the web writes beside a picture, which is seldom about the face in it."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from importlib.resources import files
from string import Formatter
from typing import Any, Final

import numpy as np

_HAIR: Final = {
    "Blond_Hair": "blonde",
    "Brown_Hair": "brunette",
    "Black_Hair": "dark-haired",
    "Gray_Hair": "grey-haired",
}
_TRAITS: Final = {
    "Smiling": "smiling",
    "Eyeglasses": "with glasses",
    "Wearing_Hat": "in a hat",
    "Wearing_Necktie": "in a suit and tie",
    "Goatee": "with a beard",
    "Heavy_Makeup": "with makeup",
}


@lru_cache(maxsize=1)
def _texts() -> dict[str, Any]:
    return tomllib.loads(files("facecaption_ml.sample").joinpath("alt_texts.toml").read_text("utf-8"))


def alt_text(rng: np.random.Generator, labels: frozenset[str] | None) -> str:
    """One alt text; ``labels`` are the attributes of the picture's most visible face, None where it shows nobody.

    About one text in ten hints at the face, and never at more than gender, hair and one other trait.
    """
    texts = _texts()
    kinds, shares = list(texts["shares"]), np.array(list(texts["shares"].values()))
    kind = kinds[min(int(np.searchsorted(np.cumsum(shares / shares.sum()), rng.random())), len(kinds) - 1)]
    if kind == "hinting" and labels is None:
        kind = "stock"
    template = _any(rng, texts["templates"][kind])
    fields = [name for _, name, _, _ in Formatter().parse(template) if name]
    filled = {name: _word(name, rng, texts["words"], labels or frozenset()) for name in fields}
    return " ".join(template.format(**filled).split())


def _word(name: str, rng: np.random.Generator, words: dict[str, list[str]], labels: frozenset[str]) -> str:
    if name == "year":
        return str(int(rng.integers(2004, 2023)))
    if name == "number":
        return str(int(rng.integers(1, 31)) if rng.random() < 0.5 else int(rng.integers(1000, 9999)))
    if name == "person":
        young, old = ("man", "elderly man") if "Male" in labels else ("woman", "elderly woman")
        return young if "Young" in labels else old
    if name == "hair":
        return next((word for label, word in _HAIR.items() if label in labels), "")
    if name == "trait":
        traits = [word for label, word in _TRAITS.items() if label in labels]
        return _any(rng, traits) if traits else ""
    return _any(rng, words[name])


def _any(rng: np.random.Generator, options: list[str]) -> str:
    return options[int(rng.integers(len(options)))]
