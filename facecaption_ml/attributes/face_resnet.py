"""The trunk of dlib's face recognition network, and how its published weights are read.

The network (D. E. King, dlib-models, ``dlib_face_recognition_resnet_model_v1``, CC0) is the residual network of He et al.
(CVPR 2016) with 29 convolutions, trained on some 3 million faces to tell people apart. Its affine layers are folded into
the convolutions here, so that a block is two convolutions with biases. Convolutions of stride 2 have no padding; a shortcut
has no weights: it is averaged where the block halves the picture, and what is smaller is filled up with zeros.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facecaption_ml.attributes.checkpoints import CheckpointError

SMALLEST_SIDE: Final = 131
"""Of a picture: with a smaller one nothing is left for the last block."""
_FILTERS: Final = (32, 32, 32, 64, 64, 64, 64, 128, 128, 128, 256, 256, 256, 256)
_HALVING: Final = (3, 7, 10, 13)
_STAGES: Final = (6, 9, 12)
"""Blocks after which a stage ends: what they put out is pooled to a grid, beside the last block's mean."""
_GRID: Final = 3
_FEATURE_SCALE: Final = 0.25  # the last stages' outputs are of the order of 4
MEAN: Final = (122.782, 117.001, 104.298)
"""Of a pixel, subtracted before its number is divided by ``RANGE``."""
RANGE: Final = 256.0
FEATURES: Final = sum(_FILTERS[block] for block in _STAGES) * _GRID * _GRID + _FILTERS[-1]


class FaceResnet(nn.Module):
    """Pixels to features: ``forward(float [B, 3, H, W], (RGB − MEAN) / RANGE) -> float [B, 4288]``, sides at least 131."""

    def __init__(self, frozen_blocks: int = 0) -> None:
        """``frozen_blocks``: that many, and the stem with them, are not trained."""
        super().__init__()
        self.stem = nn.Conv2d(3, _FILTERS[0], 7, 2)
        before = (_FILTERS[0], *_FILTERS)
        self.blocks = nn.ModuleList(
            _Block(before[number], filters, 2 if number in _HALVING else 1) for number, filters in enumerate(_FILTERS)
        )
        if frozen_blocks:
            for part in (self.stem, *self.blocks[:frozen_blocks]):
                part.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Raises ValueError of a smaller picture."""
        if min(x.shape[2:]) < SMALLEST_SIDE:
            raise ValueError(
                f"pictures of {x.shape[2]} × {x.shape[3]}: the face network needs {SMALLEST_SIDE} at least"
            )
        stages = self._outputs(x)
        pooled = [F.adaptive_avg_pool2d(stages[block], _GRID).flatten(1) for block in _STAGES]
        return torch.cat([*pooled, stages[-1].mean((2, 3))], 1) * _FEATURE_SCALE

    def descriptor(self, x: Tensor, embedding: Tensor) -> Tensor:
        """dlib's own 128 numbers of a face, [B, 128]: the last block's mean times ``embedding`` [128, 256]."""
        return self._outputs(x)[-1].mean((2, 3)) @ embedding.T

    def _outputs(self, x: Tensor) -> list[Tensor]:
        x = torch.relu_(F.max_pool2d(self.stem(x), 3, 2))  # the same either way round, and this one is smaller
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return outputs


class _Block(nn.Module):
    """Two 3×3 convolutions and a shortcut without weights."""

    def __init__(self, filters_in: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(filters_in, filters, 3, stride, 1 if stride == 1 else 0)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1)
        self.halves = stride == 2

    def forward(self, x: Tensor) -> Tensor:
        branch = self.conv2(torch.relu_(self.conv1(x)))
        shortcut = F.avg_pool2d(x, 2) if self.halves else x
        return torch.relu_(add_padded(branch, shortcut))


def add_padded(one: Tensor, other: Tensor) -> Tensor:
    """The sum of two [B, C, H, W]; the smaller one is filled up with zeros: channels at the end, places right and below."""
    if one.shape == other.shape:
        return one + other
    shape = [max(a, b) for a, b in zip(one.shape[1:], other.shape[1:], strict=True)]
    return _filled(one, shape) + _filled(other, shape)


def _filled(x: Tensor, shape: list[int]) -> Tensor:
    channels, height, width = (wanted - has for wanted, has in zip(shape, x.shape[1:], strict=True))
    return F.pad(x, (0, width, 0, height, 0, channels))


def load_trunk(trunk: FaceResnet, path: Path) -> Tensor:
    """Give ``trunk`` the weights of a ``face_resnet.safetensors``; the matrix of its 128 numbers, float32 [128, 256].

    Raises CheckpointError naming the file, and the tensor that is missing, unknown or of another shape.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        line = " ".join(str(error).split())[:120]
        raise CheckpointError(f"face network {path}: not a safetensors file: {line}") from None
    wanted = {name: tuple(value.shape) for name, value in trunk.state_dict().items()}
    wanted["embedding.weight"] = (128, _FILTERS[-1])
    for name, shape in wanted.items():
        if name not in found:
            raise CheckpointError(f"face network {path}: {name} is missing")
        if tuple(found[name].shape) != shape:
            raise CheckpointError(f"face network {path}: {name} is {list(found[name].shape)}, should be {list(shape)}")
    for name, value in found.items():
        if name not in wanted:
            raise CheckpointError(f"face network {path}: {name} is not a tensor of this network")
        if not torch.isfinite(value.float()).all():
            raise CheckpointError(f"face network {path}: {name} has numbers that are not finite")
    embedding = found.pop("embedding.weight").float()
    trunk.load_state_dict({name: value.float() for name, value in found.items()})
    return embedding
