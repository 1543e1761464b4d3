"""The processes of a training run, started by ``torchrun`` or alone, and their tensors gathered, with and without gradients."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, distributed

from facecaption_ml.devices import resolve_device

# the first process evaluates and writes checkpoints while the others wait
_TIMEOUT: Final = datetime.timedelta(minutes=30)


@dataclass(frozen=True)
class ProcessGroup:
    """This process among ``count``, and its device."""

    rank: int
    count: int
    device: torch.device

    @property
    def is_main_process(self) -> bool:
        return self.rank == 0

    def any(self, *flags: bool) -> list[bool]:
        """Each flag, true where it is true on any process: what all of them act upon together."""
        if self.count == 1:
            return list(flags)
        tensor = torch.tensor([float(flag) for flag in flags], device=self.device)
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)
        return [bool(value) for value in tensor.tolist()]

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes."""
        if self.count > 1:
            distributed.all_reduce(values)
            values /= self.count
        return values

    def broadcast(self, value: Any) -> Any:
        """The first process's ``value``, on every process."""
        if self.count == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def gather_object(self, value: Any) -> list[Any]:
        """Every process's ``value`` in order of rank, on the first process; elsewhere an empty list."""
        if self.count == 1:
            return [value]
        box: list[Any] = [None] * self.count
        distributed.gather_object(value, box if self.is_main_process else None, dst=0)
        return box if self.is_main_process else []

    def barrier(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def process_group(device: str) -> Iterator[ProcessGroup]:
    """The process group that ``torchrun`` describes in the environment; without one, this process alone.

    ``device``: auto, cpu or cuda; with CUDA, process i of a machine takes GPU i.
    """
    kind = resolve_device(device)
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    own = torch.device(kind, int(os.environ.get("LOCAL_RANK", "0"))) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(own)
    if count > 1:
        distributed.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        yield ProcessGroup(rank, count, own)
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def world_size() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def process_rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


@torch.no_grad()
def gather(x: Tensor) -> Tensor:
    """The tensors of all processes one after the other along dimension 0, without a gradient; all have one shape."""
    if world_size() == 1:
        return x.detach()
    # collectives of booleans are not everywhere; bytes are
    sent = x.detach().contiguous()
    sent = sent.view(torch.uint8) if sent.dtype is torch.bool else sent
    gathered = torch.empty((world_size() * len(sent), *sent.shape[1:]), dtype=sent.dtype, device=sent.device)
    distributed.all_gather_into_tensor(gathered, sent)
    return gathered.view(torch.bool) if x.dtype is torch.bool else gathered


def gather_with_gradient(x: Tensor) -> Tensor:
    """As ``gather``; the gradient that reaches this process's rows, on whichever process, comes back to ``x``.

    The sum over processes is exact for the sum of their losses; averaging gradients, as DistributedDataParallel does, then
    gives the gradient of the losses' mean.
    """
    return x if world_size() == 1 else _Gather.apply(x)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return gather(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # a copy: autograd may have handed the same tensor to others
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        if gradient.device.type == "cpu":  # gloo does not scatter
            distributed.all_reduce(gradient)
            return gradient.chunk(world_size())[process_rank()]
        own = torch.empty_like(gradient.chunk(world_size())[process_rank()])
        distributed.reduce_scatter_tensor(own, gradient)
        return own
