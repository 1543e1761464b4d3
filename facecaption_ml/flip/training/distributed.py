"""The processes of a training run, started by ``torchrun`` or alone."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.distributed as dist

from facecaption_ml.devices import resolve_device

_TIMEOUT: Final = datetime.timedelta(
    minutes=30
)  # the first process evaluates and writes checkpoints while the others wait


@dataclass(frozen=True)
class Processes:
    """This process among ``count``, and its device."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def any(self, *flags: bool) -> list[bool]:
        """Each flag, true where it is true on any process: what all of them act upon together."""
        if self.count == 1:
            return list(flags)
        tensor = torch.tensor([float(flag) for flag in flags], device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return [bool(value) for value in tensor.tolist()]

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over the processes."""
        if self.count > 1:
            dist.all_reduce(values)
            values /= self.count
        return values

    def share(self, value: Any) -> Any:
        """The first process's ``value``, on every process."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def collect(self, value: Any) -> list[Any]:
        """Every process's ``value`` in order of rank, on the first process; elsewhere an empty list."""
        if self.count == 1:
            return [value]
        box: list[Any] = [None] * self.count
        dist.gather_object(value, box if self.first else None, dst=0)
        return box if self.first else []

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """The process group that ``torchrun`` describes in the environment; without one, this process alone.

    ``device``: auto, cpu or cuda; with CUDA, process i of a machine takes GPU i.
    """
    kind = resolve_device(device)
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    place = torch.device(kind, int(os.environ.get("LOCAL_RANK", "0"))) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(place)
    if count > 1:
        dist.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        yield Processes(rank, count, place)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
