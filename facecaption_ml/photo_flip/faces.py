"""The faces of a CelebA folder as a hybrid image tower sees them, and captions of their labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file, save_file

from facecaption_ml.attributes.celeba import read_celeba
from facecaption_ml.attributes.checkpoints import CONFIG, WEIGHTS, checkpoint_folder, read_weights
from facecaption_ml.attributes.data import AttributeData
from facecaption_ml.attributes.ensemble import Ensemble, network_of
from facecaption_ml.attributes.network import AttributeNetwork, fold_norms
from facecaption_ml.captions import template_caption
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.flip.model.model import normalised
from facecaption_ml.flip.model.presets import MAP_CHANNELS, MAP_GRID
from facecaption_ml.flip.model.stem import ResidualStem
from facecaption_ml.pretrained import weights_version
from facecaption_ml.taxonomy import ATTRIBUTES, settle_conflicts

SIDE: Final = 96
"""Pixels of the square views that maps are made of."""
_AT_ONCE: Final = 64
_FEWEST, _MOST = 1, 4  # labels that a short caption names
_MALE: Final = ATTRIBUTES.index("Male")


@dataclass(frozen=True)
class MappedFaces:
    """A stem's maps of N faces, float16 [N, 2, 256, 6, 5]: as they are and mirrored. ``data`` has labels and splits."""

    maps: npt.NDArray[np.float16]
    data: AttributeData


def read_stem(predictor: str) -> tuple[ResidualStem, str]:
    """The trunk of the network ``tiny`` in an attribute checkpoint, with its norms folded, and the checkpoint's version.

    Raises CheckpointError where there is no checkpoint, and FaceCaptionError where no network of it is a ``tiny``.
    """
    folder = checkpoint_folder(predictor)
    whole = network_of(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
    whole.load_state_dict(read_weights(folder / WEIGHTS))
    fold_norms(whole.eval())
    stem = ResidualStem().eval().requires_grad_(False)
    for network in whole.networks if isinstance(whole, Ensemble) else [whole]:
        assert isinstance(network, AttributeNetwork)
        state = network.trunk.state_dict()
        if {name: value.shape for name, value in state.items()} == {
            name: value.shape for name, value in stem.trunk.state_dict().items()
        }:
            stem.trunk.load_state_dict(state)
            return stem, weights_version(folder / WEIGHTS)
    raise FaceCaptionError(f"attribute checkpoint {folder}: none of its networks is of the preset tiny")


def read_faces(
    folder: str | Path,
    stem: ResidualStem,
    version: str,
    kept: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> MappedFaces:
    """The faces of a folder with CelebA's layout. ``kept``: a file that the maps are read from, or written to.

    Raises AttributeDataError where the folder cannot be used, and FaceCaptionError where the kept maps are of another stem,
    whose ``version`` is given, or of other faces.
    """
    data = read_celeba(folder, (SIDE, SIDE))
    identity = f"{version} {data.fingerprint}"
    if kept is not None and kept.is_file():
        return MappedFaces(_kept_maps(kept, identity), data)
    maps = np.zeros((len(data.images), 2, MAP_CHANNELS, *MAP_GRID), np.float16)
    for start in range(0, len(maps), _AT_ONCE):
        rows = np.arange(start, min(start + _AT_ONCE, len(maps)))
        maps[rows] = views_of(stem, data.images.batch(rows, (SIDE, SIDE)))
        if on_progress:
            on_progress(int(rows[-1]) + 1, len(maps))
    if kept is not None:
        save_file({"maps": maps}, kept, {"identity": identity})
    return MappedFaces(maps, data)


@torch.inference_mode()
def views_of(stem: ResidualStem, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
    """float16 [B, 2, 256, 6, 5] of uint8 [B, S, S, 3]: maps of the pictures and of their mirror images."""
    pictures = normalised(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    return torch.stack([stem(pictures), stem(pictures.flip(3))], 1).half().numpy()


def _kept_maps(path: Path, identity: str) -> npt.NDArray[np.float16]:
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        if (file.metadata() or {}).get("identity") != identity:
            raise FaceCaptionError(
                f"{path}: maps of another network or of other faces: remove it, or name another file"
            )
    return np.asarray(load_file(path)["maps"], np.float16)


def caption_of(labels: npt.NDArray[np.bool_], seed: int) -> str:
    """A template caption of everything that CelebA's annotators said of a face, bool [40]."""
    held = [name for name, has in zip(ATTRIBUTES, labels.tolist(), strict=True) if has]
    return template_caption(list(settle_conflicts(held)[0]), "male" if labels[_MALE] else "female", seed)


def short_caption_of(labels: npt.NDArray[np.bool_], seed: int) -> str:
    """One that names the gender and one to four of the other labels, drawn: what people ask for is shorter than captions."""
    rng = np.random.default_rng((0x5407, seed))
    others = np.flatnonzero(labels)
    others = others[others != _MALE]
    named = rng.permutation(others)[: rng.integers(_FEWEST, _MOST + 1)]
    chosen = np.zeros_like(labels)
    chosen[named] = True
    chosen[_MALE] = labels[_MALE]
    return caption_of(chosen, seed)
