"""Weights that a training starts from, whoever wrote them, under FLIP's own names.

Read are a FLIP checkpoint of this project, a folder or hub name of ``transformers`` that holds a CLIP or a BLIP, and a single
file (``.safetensors``, or ``.pth``, ``.pt``, ``.bin`` of PyTorch, which is read without running anything in it) under the
names of BLIP or of FLIP's authors. Folders of a plain ViT or BERT are read by ``transformers`` itself (initialisation.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor

from facecaption_ml.eight_bits import unpacked
from facecaption_ml.flip.model.bundled_towers import checkpoint_folder
from facecaption_ml.flip.model.files import CONFIG, MODEL, TOKENIZER
from facecaption_ml.flip.model.foreign_names import CLIP, kind_of, translated
from facecaption_ml.flip.model.weight_names import stable_name
from facecaption_ml.pretrained import WEIGHTS_FILES

_FOREIGN_TYPES: Final = ("clip", "clip_vision_model", "blip")
_WRAPPED: Final = ("model", "state_dict")
_IN_PARALLEL: Final = "module."
_WORDS: Final = "text.embeddings.word_embeddings.weight"


@dataclass(frozen=True)
class StartingWeights:
    """Tensors by their names in FLIP's files, the form of the image tower, and where its words are (None: nowhere).

    ``tokenizer``: a checkpoint's ``tokenizer.json``, or a folder or hub name with the vocabulary.
    """

    weights: Mapping[str, Tensor]
    form: str
    tokenizer: str | None

    def part(self, tower: str) -> dict[str, Tensor]:
        """Of one tower, ``image`` (with its stem, if it has one) or ``text``. Raises ValueError where it has none."""
        own = (f"{tower}.", "stem.") if tower == "image" else f"{tower}."
        found = {name: value for name, value in self.weights.items() if name.startswith(own)}
        if not found:
            raise ValueError(f"it has no {tower} tower")
        return found


def is_file(name: str) -> bool:
    """Whether the name is a single file of weights."""
    return name.endswith(WEIGHTS_FILES) and Path(name).expanduser().is_file()


def is_checkpoint(name: str) -> bool:
    """Whether the name is the folder of a FLIP checkpoint."""
    return _preset_of(checkpoint_folder(name)) is not None


def is_foreign(name: str, local: bool) -> bool:
    """Whether the folder or hub name holds a CLIP or a BLIP. Raises OSError where there is nothing to read."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(name, local_files_only=local).model_type in _FOREIGN_TYPES


def read(name: str, local: bool = True) -> StartingWeights:
    """The weights under ``name``. ``local``: only files that are there. Raises ValueError or OSError naming what is wrong."""
    path = checkpoint_folder(name)
    preset = _preset_of(path)
    if preset is not None:
        weights = {stable_name(key): value.float() for key, value in unpacked(load_file(path / MODEL)).items()}
        return StartingWeights(weights, preset["image"].get("form", "vit"), str(path / TOKENIZER))
    if is_file(name):
        held = _tensors(path)
        words = path.parent if (path.parent / TOKENIZER).is_file() or (path.parent / "vocab.txt").is_file() else None
        return _foreign(held, None if words is None else str(words))
    held = _tensors(_weights_file(name, local))
    return _foreign(held, name if any(key.startswith("text_encoder.") for key in held) else None)


def fitted_words(rows: Tensor, vocabulary: int, first_token: int) -> Tensor:
    """Rows of words [V', W] for ``vocabulary`` tokens, the last of which is [ENC].

    BLIP's and the authors' files have [ENC] last as well, behind [DEC], which FLIP does without. Where there is none it
    starts as ``first_token``, [CLS]. Raises ValueError for fewer words than the tokenizer has.
    """
    if len(rows) < vocabulary - 1:
        raise ValueError(f"it knows {len(rows)} tokens, its tokenizer {vocabulary - 1}")
    enc = rows[-1:] if len(rows) >= vocabulary else rows[first_token : first_token + 1]
    return torch.cat([rows[: vocabulary - 1], enc])


def with_words(weights: dict[str, Tensor], vocabulary: int, first_token: int) -> dict[str, Tensor]:
    """The same with the words that ``fitted_words`` gives. Raises as it does."""
    if _WORDS in weights:
        weights[_WORDS] = fitted_words(weights[_WORDS], vocabulary, first_token)
    return weights


def _foreign(held: Mapping[str, Tensor], tokenizer: str | None) -> StartingWeights:
    form = "clip" if kind_of(held) == CLIP else "vit"
    return StartingWeights(translated(held), form, tokenizer)


def _preset_of(folder: Path) -> dict[str, Any] | None:
    """The preset that the configuration of a FLIP checkpoint names; None for any other folder."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        preset = config["preset"]
        return preset if isinstance(preset["image"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        held: Any = load_file(path)
    else:
        held = torch.load(path, map_location="cpu", weights_only=True)
        for key in _WRAPPED:
            held = held[key] if isinstance(held, dict) and isinstance(held.get(key), dict) else held
    if not isinstance(held, dict):
        raise ValueError("it holds no tensors by name")
    return {str(key).removeprefix(_IN_PARALLEL): value for key, value in held.items() if isinstance(value, Tensor)}


def _weights_file(name: str, local: bool) -> Path:
    from transformers.utils import cached_file

    for file in (MODEL, "pytorch_model.bin"):
        found = cached_file(name, file, local_files_only=local, _raise_exceptions_for_missing_entries=False)
        if found is not None:
            return Path(found)
    raise ValueError(f"it has neither {MODEL} nor pytorch_model.bin")
