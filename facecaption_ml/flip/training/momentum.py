"""Momentum towers: an exponential moving average of the trained weights (He et al., CVPR 2020; ALBEF, §3.2)."""

from __future__ import annotations

import copy
from types import MethodType
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def momentum_copy(module: M) -> M:
    """A copy that no optimiser trains, in evaluation mode and kept there: its features are targets, so without dropout."""
    copied = copy.deepcopy(module).requires_grad_(False).eval()
    copied.train = MethodType(_stay_in_evaluation, copied)  # type: ignore[method-assign]
    return copied


def _stay_in_evaluation(self: nn.Module, mode: bool = True) -> nn.Module:
    return self


@torch.no_grad()
def update_momentum(source: nn.Module, target: nn.Module, momentum: float) -> None:
    """``target`` = ``momentum`` · ``target`` + (1 − ``momentum``) · ``source``, parameter by parameter; buffers are copied.

    ``target`` may lack parts of ``source``. Raises ValueError, with ``target`` as it was, naming a parameter or buffer of
    ``target`` that ``source`` lacks.
    """
    trained, averaged = dict(source.named_parameters()), dict(target.named_parameters())
    buffers, copied = dict(source.named_buffers()), dict(target.named_buffers())
    for kind, names, known in (("parameter", averaged, trained), ("buffer", copied, buffers)):
        for name in names:
            if name not in known:
                raise ValueError(f"the momentum copy has a {kind} {name!r} that the trained module lacks")
    torch._foreach_lerp_(list(averaged.values()), [trained[name] for name in averaged], 1 - momentum)
    for name, buffer in copied.items():
        buffer.copy_(buffers[name])
