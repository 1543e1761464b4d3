"""What is trained on frozen features: two linear layers for retrieval and sketches, one combined vector for attributes.

All probes share one loop: AdamW, cosine to 0 over all steps, an order of the rows that follows from seed and epoch alone. Where
there is a validation score the weights of its best epoch are kept, of equals the later; else those of the last epoch. A test
split is never asked.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facecaption_ml.benchmarks.encoders.models import PretrainedHeads
from facecaption_ml.benchmarks.options import ProbeProtocol
from facecaption_ml.errors import FaceCaptionError

PROJECTION: Final = 256  # FLIP's own shared space (paper §5.1)
_TEMPERATURE: Final = 0.07  # its start; learned, as in CLIP
_LARGEST_SCALE: Final = math.log(100.0)  # CLIP's cap of 1 / temperature (Radford et al., 2021, §2.5)


@dataclass(frozen=True)
class Trained:
    """Which epoch's weights a probe has, counted from 1, and the mean loss of every epoch."""

    epoch: int
    losses: Sequence[float]
    validation: float | None  # the score of that epoch


def train_probe(
    probe: nn.Module,
    loss_of: Callable[[Tensor, int], Tensor],
    count: int,
    protocol: ProbeProtocol,
    seed: int,
    score: Callable[[], float] | None = None,
) -> Trained:
    """Train ``probe`` in place on rows 0 … ``count`` − 1.

    ``loss_of(rows, epoch)`` gives the loss of int64 [B] rows in an epoch counted from 0; ``score()`` a number on validation
    data, larger is better, after every epoch. Equal seeds give equal weights on one machine; ``seed`` is that of this probe,
    not the protocol's first. Raises ValueError for no rows, FaceCaptionError for a loss that is not finite.
    """
    if count < 1:
        raise ValueError("a probe needs rows to train on")
    optimiser = torch.optim.AdamW(
        probe.parameters(), protocol.learning_rate, weight_decay=protocol.weight_decay, fused=True
    )
    steps = protocol.epochs * math.ceil(count / protocol.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    best: tuple[float, int, dict[str, Tensor]] | None = None
    losses = []
    for epoch in range(protocol.epochs):
        total = 0.0
        generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
        for rows in torch.randperm(count, generator=generator).split(protocol.batch_size):
            loss = loss_of(rows, epoch)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
        losses.append(total / count)
        if not math.isfinite(losses[-1]):
            raise FaceCaptionError(
                f"the probe's loss is {losses[-1]} in epoch {epoch + 1}: a lower learning rate is needed"
            )
        if score is not None:
            reached = score()
            if best is None or reached >= best[0]:  # a split too small to tell epochs apart must not pick the first
                best = (reached, epoch + 1, copy.deepcopy(probe.state_dict()))
    if best is None:
        return Trained(protocol.epochs, losses, None)
    probe.load_state_dict(best[2])
    return Trained(best[1], losses, best[0])


class PairProbe(nn.Module):
    """Two new linear layers over frozen features, into one space (paper Figure 6b and d).

    ``heads``: the layers that a pretrained model has itself, to start from in the place of new ones.
    """

    def __init__(self, image_width: int, text_width: int, seed: int, heads: PretrainedHeads | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.image = nn.Linear(image_width, PROJECTION)
            self.text = nn.Linear(text_width, PROJECTION)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(_TEMPERATURE)))
        if heads is not None:
            self.image, self.text = copy.deepcopy(heads.image).float(), copy.deepcopy(heads.text).float()
            with torch.no_grad():
                self.log_scale.fill_(-math.log(heads.temperature))
            self.requires_grad_(True)

    def images(self, features: Tensor) -> Tensor:
        """Unit rows float32 [N, 256] of features [N, D]; sketches are pictures too."""
        return F.normalize(self.image(features.float()), dim=-1)

    def texts(self, features: Tensor) -> Tensor:
        """Unit rows float32 [N, 256] of features [N, D]."""
        return F.normalize(self.text(features.float()), dim=-1)

    def loss(self, left: Tensor, right: Tensor, groups: Tensor) -> Tensor:
        """``contrastive_loss`` at the learned temperature."""
        return contrastive_loss(left, right, groups, self.log_scale.clamp(max=_LARGEST_SCALE).exp())


def contrastive_loss(left: Tensor, right: Tensor, groups: Tensor, scale: Tensor) -> Tensor:
    """InfoNCE in both directions over unit rows [B, D]: −log softmax(scale · left · rightᵀ) of the pairs, averaged.

    Rows with equal ``groups`` int64 [B] (the same photo, the same caption) are positives of each other and share the target.
    """
    logits = scale * left @ right.T
    same = (groups[:, None] == groups[None, :]).float()
    target = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


class AttributeProbe(nn.Module):
    """V layer-normed vectors combined with learned weights into one, then one linear layer of 40 logits (paper §5.3).

    ``normed`` takes the layer norm out of the training. It has no scale and shift of its own: Σ wᵥ (γ ⊙ xᵥ + β) followed by a
    linear layer is the same family of functions as Σ wᵥ xᵥ followed by one.
    """

    def __init__(self, vectors: int, width: int, outputs: int, seed: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.full((vectors,), 1 / vectors))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Linear(width, outputs)

    def forward(self, normed: Tensor) -> Tensor:
        """Logits float32 [N, outputs] of vectors [N, V, W] that ``normed`` gave."""
        return self.head(torch.einsum("nvw,v->nw", normed.float(), self.weights))


def normed(vectors: Tensor, rows_at_once: int = 4096) -> Tensor:
    """Each vector of float16 [N, V, W] with mean 0 and variance 1, float16 [N, V, W], ``rows_at_once`` in float32 at a time."""
    result = torch.empty_like(vectors, dtype=torch.float16)
    for start in range(0, len(vectors), rows_at_once):
        part = vectors[start : start + rows_at_once].float()
        result[start : start + rows_at_once] = F.layer_norm(part, part.shape[-1:]).half()
    return result
