"""Momentum towers: an exponential moving average of the trained weights (He et al., CVPR 2020; ALBEF, §3.2)."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def momentum_copy(module: M) -> M:
    """A copy that no optimiser trains, in evaluation mode and kept there: its features are targets, so without dropout."""
    copied = copy.deepcopy(module).requires_grad_(False).eval()
    copied.train = lambda mode=True: copied  # type: ignore[method-assign]
    return copied


@torch.no_grad()
def update_momentum(source: nn.Module, target: nn.Module, momentum: float) -> None:
    """``target`` = ``momentum`` · ``target`` + (1 − ``momentum``) · ``source``, parameter by parameter; buffers are copied.

    ``target`` may lack parts of ``source``. Raises ValueError naming a parameter of ``target`` that ``source`` lacks.
    """
    trained, averaged = dict(source.named_parameters()), dict(target.named_parameters())
    for name in averaged:
        if name not in trained:
            raise ValueError(f"the momentum copy has a parameter {name!r} that the trained module lacks")
    torch._foreach_lerp_(list(averaged.values()), [trained[name] for name in averaged], 1 - momentum)
    buffers = dict(source.named_buffers())
    for name, buffer in target.named_buffers():
        buffer.copy_(buffers[name])
