"""A checkpoint's folder: the names of its files, and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from safetensors.torch import save_file
from torch import Tensor

CONFIG: Final = "config.json"
"""Version, preset, training and results; written last, so a folder that has it is whole."""
MODEL: Final = "model.safetensors"
TOKENIZER: Final = "tokenizer.json"
CARD: Final = "MODEL_CARD.md"


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """As safetensors, on the CPU."""
    save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, path)
