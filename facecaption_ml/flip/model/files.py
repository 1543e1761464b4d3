"""A checkpoint's folder: the names of its files, and its weights."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

CONFIG: Final = "config.json"
"""Version, preset, training and results; written last, so a folder that has it is whole."""
MODEL: Final = "model.safetensors"
TOKENIZER: Final = "tokenizer.json"
CARD: Final = "MODEL_CARD.md"


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """As safetensors, on the CPU. Raises OSError where the file cannot be written."""
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
