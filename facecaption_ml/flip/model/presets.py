"""FLIP's shapes by name: ``base`` is the paper's (§5.1), ``small`` and ``tiny`` are cut down (``presets.toml``)."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final

from facecaption_ml.flip.errors import PresetError

FROM_SCRATCH: Final = "none"
"""The word that stands for random weights where an empty option stands for the preset's own."""

FORMS: Final = ("vit", "clip", "hybrid")
"""Of image towers."""

MAP_CHANNELS: Final = 256
MAP_GRID: Final = (6, 5)
"""Channels, rows and columns of the maps that a tower of form hybrid looks at."""


@dataclass(frozen=True)
class ImageTower:
    """A ViT: pictures of ``size`` × ``size`` pixels in patches of ``patch`` × ``patch``, and one [CLS] token.

    ``form``: vit; clip for a tower of CLIP's kind (see model.py), which comes in with weights only; or hybrid for one that
    looks at the maps of a residual network (stem.py), whose tokens are the places of a map.
    """

    size: int
    patch: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    dropout: float
    form: str = "vit"

    @property
    def tokens(self) -> int:
        """Patches and [CLS]."""
        if self.form == "hybrid":
            return math.prod(MAP_GRID) + 1
        return (self.size // self.patch) ** 2 + 1


@dataclass(frozen=True)
class TextTower:
    """A BERT of at most ``max_tokens`` tokens; ``vocabulary`` words, of which [ENC] is one more."""

    vocabulary: int
    max_tokens: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    dropout: float


@dataclass(frozen=True)
class Preset:
    """The shape of a FLIP model and where its towers start from.

    ``projection`` is the width of the shared space, ``temperature`` the start of the contrastive loss's, ``image_init`` and
    ``text_init`` names or folders of weights, or empty: from scratch. Raises PresetError where the numbers do not fit.
    """

    name: str
    image: ImageTower
    text: TextTower
    projection: int
    temperature: float
    image_init: str = ""
    text_init: str = ""

    def __post_init__(self) -> None:
        for tower, shape in (("image", self.image), ("text", self.text)):
            if shape.width % shape.heads:
                raise PresetError(
                    f"preset {self.name}: {tower} width {shape.width} is no multiple of {shape.heads} heads"
                )
        if self.image.size % self.image.patch:
            raise PresetError(
                f"preset {self.name}: {self.image.size} px are no multiple of patches of {self.image.patch}"
            )
        if self.image.form not in FORMS:
            raise PresetError(f"preset {self.name}: form is {self.image.form!r}: there are {', '.join(FORMS)}")
        if self.image.width != self.text.width:
            raise PresetError(f"preset {self.name}: cross-attention needs towers of one width")

    @classmethod
    def named(cls, name: str) -> Preset:
        """A preset of ``presets.toml``. Raises PresetError listing the names there are."""
        return cls.from_dict({"name": name, **{k: v for k, v in _table(name).items() if k != "training"}})

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Preset:
        """From what ``as_dict`` gave."""
        return cls(**{**given, "image": ImageTower(**given["image"]), "text": TextTower(**given["text"])})

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def training_defaults(name: str) -> dict[str, Any]:
    """The training settings of a preset, by the names of ``TrainingOptions``. Raises PresetError."""
    return dict(_table(name)["training"])


def preset_names() -> list[str]:
    return list(_presets())


def _table(name: str) -> dict[str, Any]:
    if name not in _presets():
        raise PresetError(f"preset is {name!r}: there are {', '.join(_presets())}", "preset")
    return _presets()[name]


@lru_cache(maxsize=1)
def _presets() -> dict[str, dict[str, Any]]:
    return tomllib.loads(files("facecaption_ml.flip.model").joinpath("presets.toml").read_text("utf-8"))
