"""Tensors of all processes of a training run, with and without gradients. Alone, a process gathers only its own."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def process_count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def process_rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


@torch.no_grad()
def gather(x: Tensor) -> Tensor:
    """The tensors of all processes one after the other along dimension 0, without a gradient; all have one shape."""
    if process_count() == 1:
        return x.detach()
    # collectives of booleans are not everywhere; bytes are
    sent = x.detach().contiguous()
    sent = sent.view(torch.uint8) if sent.dtype is torch.bool else sent
    found = torch.empty((process_count() * len(sent), *sent.shape[1:]), dtype=sent.dtype, device=sent.device)
    dist.all_gather_into_tensor(found, sent)
    return found.view(torch.bool) if x.dtype is torch.bool else found


def gather_with_gradient(x: Tensor) -> Tensor:
    """As ``gather``; the gradient that reaches this process's rows, on whichever process, comes back to ``x``.

    The sum over processes is exact for the sum of their losses; averaging gradients, as DistributedDataParallel does, then
    gives the gradient of the losses' mean.
    """
    return x if process_count() == 1 else _Gather.apply(x)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return gather(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # a copy: autograd may have handed the same tensor to others
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        if gradient.device.type == "cpu":  # gloo does not scatter
            dist.all_reduce(gradient)
            return gradient.chunk(process_count())[process_rank()]
        own = torch.empty_like(gradient.chunk(process_count())[process_rank()])
        dist.reduce_scatter_tensor(own, gradient)
        return own
