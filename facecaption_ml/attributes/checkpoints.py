"""The files of a trained predictor's folder, and how its weights are kept: in half precision, or eight bits a weight."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from facecaption_ml.eight_bits import packed, unpacked
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.storage.local_files import atomic_write

if TYPE_CHECKING:
    import torch

WEIGHTS: Final = "attributes.safetensors"
CONFIG: Final = "config.json"
EVALUATION: Final = "evaluation.json"
CARD: Final = "MODEL_CARD.md"
NEEDED: Final = (WEIGHTS, CONFIG, EVALUATION, CARD)
THRESHOLDS: Final = "thresholds.json"
RELIABILITY: Final = "reliability.png"
LATER: Final = (THRESHOLDS, RELIABILITY)
"""Files that checkpoints of version 0.1 do not have."""
_OWN: Final = {name: Path(__file__).parent / name for name in ("bundled", "drawn")}
"""Checkpoints that come along: of photographs (CelebA at 89×109), and of drawn portraits."""


class CheckpointError(FaceCaptionError):
    """A checkpoint is absent or does not fit; the message names the file."""


def checkpoint_folder(name: str | Path) -> Path:
    """``bundled``, ``drawn``, a checkpoint folder, or a ``.safetensors`` file in one.

    Raises CheckpointError where it is incomplete.
    """
    folder = _OWN.get(str(name)) or Path(name).expanduser()
    if folder.suffix == ".safetensors":
        folder = folder.parent
    for part in NEEDED:
        if not (folder / part).is_file():
            raise CheckpointError(f"attribute checkpoint {folder}: {part} is missing")
    return folder


def starting_point(name: str | Path) -> Path:
    """What a training can start from: as :func:`checkpoint_folder`, or a file of a trunk's published weights.

    Raises CheckpointError where it is not there.
    """
    path = Path(name).expanduser()
    if path.suffix != ".safetensors" or path.name == WEIGHTS:
        return checkpoint_folder(name)
    if not path.is_file():
        raise CheckpointError(f"init {path}: there is no such file")
    return path


def write_weights(path: Path, state: dict[str, torch.Tensor], eight_bits: bool = False) -> None:
    """``state`` in half precision; with ``eight_bits``, weights of convolutions and layers as integers with a scale.

    The scale is a filter's: its largest weight becomes 127 (Jacob et al., CVPR 2018, §3, without activations).
    """
    from safetensors.torch import save

    with atomic_write(path) as file:
        file.write(save(packed(state, eight_bits)))


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """What :func:`write_weights` has written, as float32. Raises what safetensors raises of a damaged file."""
    from safetensors.torch import load_file

    return {name: value.float() for name, value in unpacked(load_file(path)).items()}
