"""Weights in files at a byte each: integers with a scale for each row or filter, whose largest weight becomes 127.

After Jacob et al. (CVPR 2018, §3), weights only: what is computed stays in float32. What is small or no matrix, such as norms
and biases, is kept in half precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

_SCALE: Final = ".scale"
_FROM: Final = 4096  # numbers: smaller tensors are kept as they are


def packed(state: Mapping[str, Tensor], eight_bits: bool = True) -> dict[str, Tensor]:
    """The tensors as a file keeps them: int8 with ``NAME.scale``, or, small ones and without ``eight_bits`` all, float16."""
    kept: dict[str, Tensor] = {}
    for name, value in state.items():
        x = value.detach().cpu()
        if eight_bits and x.ndim > 1 and x.numel() >= _FROM:
            scale = (x.flatten(1).abs().amax(1) / 127).clamp_min(1e-8).to(dtype=x.dtype)
            kept[name] = (x / scale.view(-1, *[1] * (x.ndim - 1))).round().char().contiguous()
            kept[name + _SCALE] = scale.contiguous()
        else:
            kept[name] = (x.half() if x.is_floating_point() else x).contiguous()
    return kept


def unpacked(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What :func:`packed` was given, as float32; tensors of a file that is not packed come as they are."""
    import torch

    state: dict[str, Tensor] = {}
    for name, value in found.items():
        if name.endswith(_SCALE) and name.removesuffix(_SCALE) in found:
            continue
        scale = found.get(name + _SCALE)
        if value.dtype is torch.int8 and scale is not None:
            state[name] = value.float() * scale.float().view(-1, *[1] * (value.ndim - 1))
        else:
            state[name] = value.float() if value.is_floating_point() else value
    return state
