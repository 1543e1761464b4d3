"""A training that starts from a checkpoint instead of random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from facecaption_ml.attributes.prediction import CONFIG, WEIGHTS, CheckpointError
from facecaption_ml.pretrained import weights_version

if TYPE_CHECKING:
    from facecaption_ml.attributes.network import AttributeNetwork

LEARNING_RATE_SHARE: Final = 0.25
"""Of the preset's rate: what a checkpoint has learned would be lost at the rate that random weights need."""


def start_from(network: AttributeNetwork, folder: Path) -> str:
    """Give ``network`` the weights of a checkpoint folder; the version of these weights.

    Raises CheckpointError where the folder holds none, or a network of another shape.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            raise CheckpointError(f"init {folder}: {name} is missing there")
    preset = "unknown"
    try:
        preset = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["preset"]["name"]
        network.load_state_dict({name: value.float() for name, value in load_file(folder / WEIGHTS).items()})
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        line = " ".join(str(error).split())[:120]
        raise CheckpointError(f"init {folder}: does not fit, its preset is {preset!r}: {line}") from None
    return weights_version(folder / WEIGHTS)
