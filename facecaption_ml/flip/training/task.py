"""FLIP's pre-training task, one step of it: momentum features, contrastive loss, hard negatives, matching loss (paper §5.1).

The order is ALBEF's (Li et al., NeurIPS 2021, §3.2): features of both towers, soft targets and candidates from the momentum
towers and the queue, negatives drawn by contrastive similarity, one multimodal pass over matching and mismatched pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from facecaption_ml.flip.model.model import FlipModel
from facecaption_ml.flip.training.distributed import gather, gather_with_gradient, process_rank, world_size
from facecaption_ml.flip.training.momentum import FeatureQueue, momentum_copy, update_momentum
from facecaption_ml.flip.training.objectives import (
    GatheredMomentum,
    batch_similarity,
    draw_hard_negatives,
    itc_loss,
    itm_loss,
)


@dataclass(frozen=True)
class PairLosses:
    """Scalars of a step; ``total`` carries the gradient. ``match_accuracy`` is over the pairs of the matching loss."""

    total: Tensor
    contrastive: Tensor
    matching: Tensor
    match_accuracy: Tensor
    without_negative: Tensor  # captions and pictures for which the batch held no other caption

    def logged(self) -> Tensor:
        """float32 [4]: contrastive, matching, match accuracy, pairs without a negative."""
        values = (self.contrastive, self.matching, self.match_accuracy, self.without_negative)
        return torch.stack([value.float() for value in values])


class FlipTask(nn.Module):
    """The model in training: with its momentum towers, its queue and its random numbers.

    ``momentum``: share of the old weights in the momentum towers at each step. ``queue_size``: features of each modality
    kept, a multiple of the global batch, or 0. ``seed`` draws the negatives. ``matched``: share of a batch that the matching
    loss looks at, which is most of a step's arithmetic; negatives come from the whole batch.
    """

    def __init__(
        self, model: FlipModel, enc_id: int, queue_size: int, momentum: float, seed: int, matched: float = 1.0
    ) -> None:
        super().__init__()
        self.model = model
        self.momentum_model = momentum_towers(model)
        self.queue = FeatureQueue(queue_size, model.preset.projection)
        self.momentum = momentum
        self.enc_id = enc_id
        self.matched = matched
        self._seed = seed
        self._generator: torch.Generator | None = None
        self._to_enqueue: GatheredMomentum | None = None

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor, caption_ids: Tensor, alpha: float) -> PairLosses:
        """Losses of a batch: pixels uint8 [B, 3, S, S], ids and mask [B, L], caption_ids int64 [B], alpha 0 … 1.

        With several processes B and L are equal on all of them. The batch's momentum features join the queue after the
        backward pass, which still needs the queue as it is now.
        """
        self._feed_queue()
        image_tokens = self.model.image_tokens(pixels)
        image = self.model.image_features(image_tokens)
        text = self.model.text_features(self.model.text_tokens(ids, mask))
        momentum_image, momentum_text = self._momentum_features(pixels, ids, mask)
        everyone = GatheredMomentum(
            gather(momentum_image), gather(momentum_text), gather(caption_ids), process_rank() * len(pixels)
        )
        contrastive = itc_loss(
            image,
            text,
            momentum_image,
            momentum_text,
            caption_ids,
            self.queue.view(),
            self.model.temperature,
            alpha,
            gathered=everyone,
        )
        first = slice(math.ceil(self.matched * len(pixels)))
        image_of_text = self._draw(text[first], gather(image), caption_ids[first], everyone.caption_ids)
        text_of_image = self._draw(image[first], gather(text), caption_ids[first], everyone.caption_ids)
        matching, accuracy, invalid = self._matching(ids, mask, image_tokens, image_of_text, text_of_image)
        self._to_enqueue = everyone
        return PairLosses(contrastive.loss + matching, contrastive.loss.detach(), matching.detach(), accuracy, invalid)

    @torch.no_grad()
    def after_step(self) -> None:
        """What follows an optimiser step: the queue is fed, the temperature kept in range, the momentum towers follow."""
        self._feed_queue()
        self.model.clamp_temperature()
        update_momentum(self.model, self.momentum_model, self.momentum)

    def _feed_queue(self) -> None:
        batch, self._to_enqueue = self._to_enqueue, None
        if batch is not None:
            self.queue.enqueue(batch.image_features, batch.text_features, batch.caption_ids)

    @torch.no_grad()
    def _momentum_features(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        model = self.momentum_model
        image = model.image_features(model.image_tokens(pixels))
        return image, model.text_features(model.text_tokens(ids, mask))

    def _draw(self, rows: Tensor, candidates: Tensor, own_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        similarity = batch_similarity(rows, candidates, self.model.temperature)
        return draw_hard_negatives(similarity, own_ids, candidate_ids, self.generator(similarity.device))

    def _matching(
        self, ids: Tensor, mask: Tensor, image_tokens: Tensor, image_of_text: Tensor, text_of_image: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Three kinds of pairs, one for each negative: matching; a caption with another's picture; a picture with another's
        caption. The pairs are the batch's first."""
        count = len(image_of_text)
        own = torch.arange(count, device=ids.device)
        first = slice(count)
        other_image, other_text = image_of_text.clamp_min(0), text_of_image.clamp_min(0)
        image_tokens = _as_computed(image_tokens)
        if world_size() > 1:
            # only the negatives of the other processes' pictures are needed here, each with keys and values of its own
            images = torch.cat([image_tokens[first], gather_with_gradient(image_tokens)[other_image]])
            rows = torch.cat([own, own + count, own])
        else:
            images, rows = image_tokens, torch.cat([own, other_image, own])
        pair_ids = torch.cat([ids[first], ids[first], gather(ids)[other_text]])
        pair_ids[:, 0] = self.enc_id
        pair_mask = torch.cat([mask[first], mask[first], gather(mask)[other_text]])
        logits = self.model.match_logits(pair_ids, pair_mask, images, rows)
        matches = torch.arange(3 * count, device=ids.device) < count
        valid = torch.cat([torch.ones_like(own, dtype=torch.bool), image_of_text >= 0, text_of_image >= 0])
        right = (logits.detach().argmax(1) == matches.long())[valid].float().mean()
        return itm_loss(logits, matches, valid), right, (~valid).sum()

    def generator(self, device: torch.device) -> torch.Generator:
        """The random numbers of the negatives, a stream for each process."""
        if self._generator is None or self._generator.device != device:
            self._generator = torch.Generator(device).manual_seed(self._seed + 7919 * process_rank())
        return self._generator


def _as_computed(tokens: Tensor) -> Tensor:
    """In the type that autocast computes in: every layer's cross-attention would cast them again, and half the traffic."""
    kind = tokens.device.type
    return tokens.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else tokens


def momentum_towers(model: FlipModel) -> FlipModel:
    """The momentum copy of what makes features: cross-attention and the matching head have no part in it."""
    copied = momentum_copy(model)
    del copied.match_head
    for layer in copied.text.encoder.layer:
        del layer.crossattention
    return copied
