"""A checkpoint's folder: the names of its files, and its weights."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

CONFIG: Final = "config.json"
"""Version, preset, training and results; written last, so a folder that has it is whole."""
MODEL: Final = "model.safetensors"
TOKENIZER: Final = "tokenizer.json"
CARD: Final = "MODEL_CARD.md"
README: Final = "README.md"
"""The card again with the front matter by which model hubs index a folder."""
MODEL_TYPE: Final = "facecaption_flip"
"""Under which ``config.json`` names the model to ``transformers``: its ``AutoModel`` refuses it, having no such class."""
REFUSAL: Final = {"hidden_size": "load it with facecaption_ml.flip.Flip.load: no class of transformers can"}
"""Joins ``config.json``, so that classes of ``transformers`` that are named, such as ``ViTModel``, refuse the folder as well,
with these words: they would warn of the other type and give random weights."""


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_finite(weights: Mapping[str, Tensor]) -> None:
    """Raises ValueError naming the first tensor that holds NaN or infinity."""
    for name in sorted(weights):
        if not bool(torch.isfinite(weights[name]).all()):
            raise ValueError(f"{name} holds NaN or infinity")


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """As safetensors, on the CPU. Raises OSError where the file cannot be written."""
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
