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

from facecaption_ml.flip.training.distributed import gather
from facecaption_ml.flip.training.task import FlipTask
from micro_flip import ENC, gradients, micro_model, random_pairs

GLOBAL_BATCH = 8
STEPS = 4
QUEUE = 2 * GLOBAL_BATCH  # full after two steps, overwritten after that


class MostSimilarNegatives(FlipTask):
    def _draw(self, similarity: Tensor, own_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        return super()._draw(1e6 * similarity, own_ids, candidate_ids)


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


def seen(rank: int, processes: int) -> dict[int, dict[str, Any]]:
    """Trainings with five captions among the eight pairs of a step, and with one."""
    return {captions: train(rank, processes, captions) for captions in (5, 1)}


def main() -> None:
    rank, processes = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[3]}", rank=rank, world_size=processes)
    torch.save(seen(rank, processes), Path(sys.argv[4]))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
