"""One process of a few real pre-training steps of a micro FLIP, alone or among others: the same pairs, in equal parts.

Run as ``pretraining_rank.py RANK PROCESSES RENDEZVOUS OUT``; the processes meet at the file RENDEZVOUS, and each writes what
it saw to OUT. ``seen(0, 1)`` is what a process sees alone. In truth each process draws its negatives by its own random
numbers; here they are the most similar candidates, which are the same however the pairs are dealt.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from facecaption_ml.flip.training.distributed import gather, gather_with_gradient
from facecaption_ml.flip.training.task import FlipTask
from micro_flip import ENC, gradients, micro_model, random_pairs

GLOBAL_BATCH = 8
STEPS = 4
QUEUE = 2 * GLOBAL_BATCH  # full after two steps, overwritten after that


class MostSimilarNegatives(FlipTask):
    def _draw(self, rows: Tensor, candidates: Tensor, own_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        return super()._draw(1e6 * rows, candidates, own_ids, candidate_ids)


def train(rank: int, processes: int, captions: int) -> dict[str, Any]:
    """Losses and averaged gradients of each step, and the state after the last; ``captions`` differ in a global batch."""
    pretraining = MostSimilarNegatives(micro_model(), ENC, QUEUE, momentum=0.9, seed=0).train()
    # as in training: the queue is fed equally everywhere, so nothing is broadcast
    model = DistributedDataParallel(pretraining, broadcast_buffers=False) if processes > 1 else pretraining
    optimiser = torch.optim.SGD([p for p in pretraining.parameters() if p.requires_grad], lr=0.05)
    own = slice(rank * GLOBAL_BATCH // processes, (rank + 1) * GLOBAL_BATCH // processes)
    losses, found = [], []
    for number in range(STEPS):
        batch = random_pairs(GLOBAL_BATCH, seed=number, captions=captions)[own]
        step = model(*batch.arguments(), alpha=0.1 * number)
        optimiser.zero_grad()
        step.total.backward()
        optimiser.step()
        pretraining.after_step()
        losses.append(gather(torch.stack([step.contrastive, step.matching])[None]).mean(0))
        found.append(gradients(pretraining))
    return {
        "losses": torch.stack(losses),
        "gradients": found,
        "state": pretraining.state_dict(),
        "without negative": gather(step.without_negative[None]).sum(),
        "random": pretraining.generator(torch.device("cpu")).initial_seed(),
    }


def gathered(rank: int) -> dict[str, Tensor]:
    """What ``gather`` makes of tensors of several types that tell their process."""
    numbers = torch.arange(6).reshape(2, 3) + 10 * rank
    dtypes = (torch.float32, torch.bfloat16, torch.int64, torch.uint8)
    found = {str(dtype): gather(numbers.to(dtype)) for dtype in dtypes}
    found["bool"] = gather(numbers % 3 == rank)
    found["transposed"] = gather(numbers.T)
    return found


def gathered_gradients(rank: int, processes: int) -> dict[str, Tensor]:
    """Gradients of losses whose weights differ between the processes. The backward pass hands ``added`` the same tensor as
    the gathered rows, and after them."""
    found: dict[str, Tensor | None] = {}
    for dtype in (torch.float32, torch.bfloat16):
        own = torch.full((2, 3), float(rank), dtype=dtype, requires_grad=True)
        added = torch.zeros(2 * processes, 3, dtype=dtype, requires_grad=True)
        made_first = 1 * added
        weights = (1 + rank) * torch.arange(1.0, 6 * processes + 1, dtype=dtype).reshape(2 * processes, 3)
        ((gather_with_gradient(own) + made_first) * weights).sum().backward()
        found |= {f"own {dtype}": own.grad, f"added {dtype}": added.grad}
    own = torch.ones(2, 3, requires_grad=True)
    gather_with_gradient(own).sum().backward()
    return {name: x for name, x in {**found, "sum": own.grad}.items() if x is not None}


def seen(rank: int, processes: int) -> dict[Any, Any]:
    """Trainings with five captions among the eight pairs of a step, and with one; and what gathering gives."""
    trainings = {captions: train(rank, processes, captions) for captions in (5, 1)}
    return {**trainings, "gathered": gathered(rank), "gradients": gathered_gradients(rank, processes)}


def main() -> None:
    rank, processes = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[3]}", rank=rank, world_size=processes)
    try:
        torch.save(seen(rank, processes), Path(sys.argv[4]))
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
