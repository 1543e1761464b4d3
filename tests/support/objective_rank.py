"""One process of a small training run with FLIP's objectives, alone or among others: the same pairs, in equal parts.

Run as ``objective_rank.py RANK PROCESSES RENDEZVOUS OUT``; the processes meet at the file RENDEZVOUS, and each writes what it
saw to OUT. The towers are linear layers; queue, momentum, negatives and gathering are the real ones.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from facecaption_ml.flip.training.distributed import gather, gather_with_gradient, process_rank
from facecaption_ml.flip.training.momentum import momentum_copy, update_momentum
from facecaption_ml.flip.training.objectives import (
    GatheredMomentum,
    draw_hard_negatives,
    itc_loss,
    itm_loss,
    soft_target_alpha,
)
from facecaption_ml.flip.training.momentum import FeatureQueue

STEPS = 5
GLOBAL_BATCH = 8
QUEUE = 3 * GLOBAL_BATCH  # full after three steps, overwritten after that
CERTAIN = 1e6  # sharpens similarities until a draw is the largest, on any number of processes


class LinearTowers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Linear(6, 5)
        self.text = nn.Linear(7, 5)

    def forward(self, pictures: Tensor, captions: Tensor) -> tuple[Tensor, Tensor]:
        return self.image(pictures), self.text(captions)


class Pretraining(nn.Module):
    """Contrast and matching as in pre-training, over pictures [B, 6] and captions [B, 7]."""

    def __init__(self) -> None:
        super().__init__()
        self.towers = LinearTowers()
        self.match_head = nn.Linear(10, 2)
        self.temperature = nn.Parameter(torch.tensor(0.3))
        self.momentum_towers = momentum_copy(self.towers)
        self.queue = FeatureQueue(QUEUE, 5)

    def forward(self, pictures: Tensor, captions: Tensor, ids: Tensor, alpha: float) -> Tensor:
        image, text = self.towers(pictures, captions)
        with torch.no_grad():
            image_m, text_m = (F.normalize(x, dim=-1) for x in self.momentum_towers(pictures, captions))
        everyone = GatheredMomentum(gather(image_m), gather(text_m), gather(ids), process_rank() * len(pictures))
        unit_image, unit_text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
        queue, temperature = self.queue.view(), self.temperature
        contrast = itc_loss(unit_image, unit_text, image_m, text_m, ids, queue, temperature, alpha, gathered=everyone)
        image_of_text, text_of_image = (
            draw_hard_negatives(CERTAIN * similarity, ids, everyone.caption_ids, torch.Generator())
            for similarity in (contrast.similarity_text_to_image, contrast.similarity_image_to_text)
        )
        images = torch.cat([image, gather_with_gradient(image)[image_of_text], image])
        texts = torch.cat([text, text, gather_with_gradient(text)[text_of_image]])
        matches = torch.arange(len(images)) < len(image)
        matching = itm_loss(self.match_head(torch.cat([images, texts], 1).tanh()), matches, torch.ones_like(matches))
        self.latest = everyone
        return contrast.loss + matching

    def after_step(self) -> None:
        update_momentum(self.towers, self.momentum_towers, 0.9)
        self.queue.enqueue(self.latest.image_features, self.latest.text_features, self.latest.caption_ids)


def train(rank: int, processes: int) -> dict[str, Any]:
    """Mean losses and gradients of each step, and the state after the last."""
    torch.manual_seed(0)
    pretraining = Pretraining()
    # the queue is fed equally everywhere, so nothing is broadcast
    model = DistributedDataParallel(pretraining, broadcast_buffers=False) if processes > 1 else pretraining
    trained = {name: p for name, p in pretraining.named_parameters() if p.requires_grad}
    optimiser = torch.optim.SGD(trained.values(), lr=0.2)
    own = slice(rank * GLOBAL_BATCH // processes, (rank + 1) * GLOBAL_BATCH // processes)
    losses, gradients = [], []
    for step in range(STEPS):
        pictures, captions = torch.randn(GLOBAL_BATCH, 6), torch.randn(GLOBAL_BATCH, 7)
        ids = torch.tensor([0, 1, 2, 3, 1, 4, 5, 0])  # captions 0 and 1 come on both of two processes
        loss = model(pictures[own], captions[own], ids[own], soft_target_alpha(step, 2, 0.4, 2))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        pretraining.after_step()
        losses.append(gather(loss[None]).mean())
        gradients.append({name: p.grad.clone() for name, p in trained.items() if p.grad is not None})
    return {"losses": torch.stack(losses), "gradients": gradients, "state": pretraining.state_dict()}


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


def everything(rank: int, processes: int) -> dict[str, Any]:
    return {"run": train(rank, processes), "gathered": gathered(rank), "gradients": gathered_gradients(rank, processes)}


def main() -> None:
    rank, processes = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[3]}", rank=rank, world_size=processes)
    try:
        torch.save(everything(rank, processes), Path(sys.argv[4]))
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
