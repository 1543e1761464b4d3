"""The losses of FLIP: image-text contrast with a queue and soft targets, and image-text matching with hard negatives.

Contrast as in ALBEF (Li et al., NeurIPS 2021): candidates are the momentum features of the batch and of the queue (§3.2,
equations 1 and 2), targets are mixed with the momentum towers' own opinion (§3.3, equation 6; cross-entropy in the place of
the divergence, which has the same gradient). Two additions: candidates with the very same caption share the target between
them, as in the retrieval training of BLIP (Li et al., ICML 2022), since faces with equal labels often have equal captions;
and what would be a negative for the matching loss never has the same caption.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from facecaption_ml.flip.training.momentum import QueueView


@dataclass(frozen=True)
class GatheredMomentum:
    """Momentum features float32 [G, D] and caption ids int64 [G] of all processes' batches; one's own begin at ``offset``."""

    image_features: Tensor
    text_features: Tensor
    caption_ids: Tensor
    offset: int = 0


@dataclass(frozen=True)
class ItcLoss:
    """``loss`` is the mean of both directions, scalars all three."""

    loss: Tensor
    image_to_text: Tensor
    text_to_image: Tensor


def itc_loss(
    image_features: Tensor,
    text_features: Tensor,
    momentum_image_features: Tensor,
    momentum_text_features: Tensor,
    caption_ids: Tensor,
    queue: QueueView,
    temperature: Tensor,
    alpha: float,
    *,
    gathered: GatheredMomentum | None = None,
) -> ItcLoss:
    """The contrastive loss of B pairs: unit rows float32 [B, D], caption ids int64 [B], ``alpha`` 0 … 1.

    Candidates of a picture are the momentum text features of all G pairs of the step, then of the queue's filled rows; of a
    caption, the picture features. The target is ``alpha`` · softmax of the momentum towers' similarities + (1 − ``alpha``)
    · the candidates with the caption's id, in equal parts. Targets and candidates carry no gradient. Computed in float32
    whatever autocast says. The mean of this loss over processes with equal B is the loss of one process with all their pairs.
    """
    everyone = gathered or GatheredMomentum(momentum_image_features, momentum_text_features, caption_ids)
    with torch.autocast(image_features.device.type, enabled=False):
        ids = torch.cat([everyone.caption_ids, queue.caption_ids])
        missing = torch.cat([torch.zeros_like(everyone.caption_ids, dtype=torch.bool), ~queue.valid])
        hard = ((caption_ids[:, None] == ids) & ~missing).float()
        hard = hard / hard.sum(1, keepdim=True)
        texts = everyone.text_features, queue.text_features
        images = everyone.image_features, queue.image_features
        sides = [
            _one_direction(own.float(), momentum.float(), candidates, hard, missing, temperature.float(), alpha)
            for own, momentum, candidates in (
                (image_features, momentum_image_features, texts),
                (text_features, momentum_text_features, images),
            )
        ]
    to_text, to_image = sides
    return ItcLoss((to_text + to_image) / 2, to_text, to_image)


def _one_direction(
    own: Tensor,
    momentum: Tensor,
    candidates: tuple[Tensor, Tensor],
    hard: Tensor,
    missing: Tensor,
    temperature: Tensor,
    alpha: float,
) -> Tensor:
    """Cross-entropy against the mixed targets, a scalar."""
    similarity = _similarity(own, candidates) / temperature
    with torch.no_grad():
        targets = hard
        if alpha:
            opinion = (_similarity(momentum, candidates) / temperature).masked_fill(missing, -torch.inf).softmax(1)
            targets = alpha * opinion + (1 - alpha) * hard
    log_shares = similarity.masked_fill(missing, -torch.inf).log_softmax(1)
    # rows not filled have no target and log 0: left out, since 0 · −∞ is not 0 for the machine
    return -(targets * log_shares.masked_fill(missing, 0.0)).sum(1).mean()


def _similarity(rows: Tensor, candidates: tuple[Tensor, Tensor]) -> Tensor:
    """Inner products with the batch's candidates and with the queue's, which is too large to be copied for each step."""
    return torch.cat([rows @ part.float().T for part in candidates], 1)


@torch.no_grad()
def batch_similarity(rows: Tensor, candidates: Tensor, temperature: Tensor) -> Tensor:
    """float32 [B, G]: what hard negatives are drawn by, features [B, D] against all processes' trained features [G, D].

    BLIP and FLIP's authors compare trained features with trained ones, ALBEF with the momentum towers'.
    """
    with torch.autocast(rows.device.type, enabled=False):
        return rows.float() @ candidates.float().T / temperature.float()


def draw_hard_negatives(
    similarity: Tensor, own_ids: Tensor, candidate_ids: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """int64 [B]: for each row of ``similarity`` [B, G] one candidate with another caption id, −1 where there is none.

    Drawn with probability softmax(``similarity``) over those candidates (ALBEF, §3.2); ids int64 [B] and [G].
    ``similarity`` is already divided by the temperature; no value of it, infinite or NaN, lets an equal caption through.
    """
    same = own_ids[:, None] == candidate_ids
    lowest = torch.finfo(torch.float32).min
    scores = similarity.float().nan_to_num(nan=lowest).masked_fill(same, -torch.inf)
    # relative to the best one, so that far from zero the noise is not lost in the rounding
    scores = scores - scores.amax(1, keepdim=True)
    # Gumbel's trick: the largest of score + noise is a draw from the softmax, however far apart the scores are
    drawn = torch.empty_like(scores).exponential_(generator=generator)
    noise = -drawn.clamp_min(torch.finfo(torch.float32).tiny).log()
    return torch.where(same.all(1), -1, (scores + noise).argmax(1))


def itm_loss(logits: Tensor, matches: Tensor, valid: Tensor) -> Tensor:
    """Cross-entropy of (no match, match) logits [N, 2] against ``matches`` bool [N], over the ``valid`` rows bool [N].

    Zero, still with a graph, where no row is valid.
    """
    per_row = F.cross_entropy(logits.float(), matches.long(), reduction="none")
    return (per_row * valid).sum() / valid.sum().clamp_min(1)


def soft_target_alpha(step: int, steps_per_epoch: int, alpha: float, ramp_epochs: float) -> float:
    """The weight of soft targets at optimiser step ``step``: from 0 to ``alpha`` in a straight line over ``ramp_epochs``."""
    ramp = ramp_epochs * steps_per_epoch
    return alpha * min(1.0, step / ramp) if ramp > 0 else alpha
