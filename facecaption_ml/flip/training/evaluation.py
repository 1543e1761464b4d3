"""Held-out pairs: how well captions find their faces, and faces their captions, by contrastive similarity; and how well the
matching head tells true pairs from mismatched ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import torch

from facecaption_ml.devices import autocast
from facecaption_ml.flip.model.model import FlipModel
from facecaption_ml.flip.model.tokenization import CaptionTokenizer
from facecaption_ml.flip.pairs.loader import PairBatch
from facecaption_ml.pair_matching import area_under_curve, mismatched
from facecaption_ml.ranking import recall_of_ranks, reciprocal_of_ranks, retrieval_ranks

KS: Final = (1, 5, 10)
_TOGETHER: Final = 64  # pairs encoded at once


@dataclass(frozen=True)
class HeldOutRecall:
    """R@1, R@5, R@10 (0 … 1) in both directions over ``pairs`` pairs, and what guessing would reach.

    ``reciprocal_rank``: the mean of 1 / rank over both directions, which is what the best epoch is chosen by. Over few pairs
    it moves less by chance than recalls do: every query counts by where it stands, not by on which side of a line.
    A k above the number of pairs counts every query as found. Equal captions count as one another's.
    """

    pairs: int
    image_to_text: tuple[float, ...]
    text_to_image: tuple[float, ...]
    chance: tuple[float, ...]
    reciprocal_rank: float

    def __str__(self) -> str:
        """One line for people."""
        sides = (_percent(self.image_to_text), _percent(self.text_to_image), _percent(self.chance))
        return (
            "{} held-out pairs: R@1/5/10 image→text {}, text→image {} (chance {}), mean reciprocal rank {:.3f}".format(
                self.pairs, *sides, self.reciprocal_rank
            )
        )

    def as_dict(self) -> dict[str, object]:
        return {"ks": list(KS), **asdict(self)}

    def values(self) -> dict[str, float]:
        """By name, for logs."""
        sides = {"image_to_text": self.image_to_text, "text_to_image": self.text_to_image, "chance": self.chance}
        recalls = {f"{name}_r{k}": value for name, side in sides.items() for k, value in zip(KS, side, strict=True)}
        return {**recalls, "reciprocal_rank": self.reciprocal_rank}


@torch.inference_mode()
def encode_pairs(
    model: FlipModel,
    tokenizer: CaptionTokenizer,
    batches: Iterable[PairBatch],
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image features [N, D] and text features [N, D], float32 unit rows, and caption ids int64 [N]."""
    images, texts, ids = [], [], []
    training = model.training
    model.eval()
    try:
        for batch in _joined(batches):
            tokens = tokenizer(batch.texts).to(device)
            with autocast(dtype, device):
                images.append(model.image_features(model.image_tokens(batch.images.to(device))).cpu().numpy())
                texts.append(model.text_features(model.text_tokens(tokens.ids, tokens.mask)).cpu().numpy())
            ids.append(batch.caption_ids.numpy())
    finally:
        model.train(training)
    width = model.preset.projection
    empty = np.zeros((0, width), np.float32)
    return (
        np.concatenate([empty, *images]),
        np.concatenate([empty, *texts]),
        np.concatenate([np.zeros(0, np.int64), *ids]),
    )


@torch.inference_mode()
def matching_auc(
    model: FlipModel,
    tokenizer: CaptionTokenizer,
    batches: Iterable[PairBatch],
    device: torch.device,
    dtype: torch.dtype,
    seed: int = 0,
) -> float | None:
    """The area under the ROC curve (0 … 1; chance 0.5) of the matching head over the pairs of ``batches`` and as many times
    mismatched ones as ``pair_matching`` has it. None where all pairs have one caption."""
    pairs = [pair for batch in batches for pair in zip(batch.images, batch.texts, batch.caption_ids, strict=True)]
    pictures, texts = mismatched([int(caption) for _, _, caption in pairs], seed=seed)
    if not len(pictures):
        return None
    own = np.arange(len(pairs))
    asked = list(zip(np.concatenate([own, pictures]).tolist(), np.concatenate([own, texts]).tolist(), strict=True))
    scores = []
    training = model.training
    model.eval()
    try:
        for start in range(0, len(asked), _TOGETHER):
            part = asked[start : start + _TOGETHER]
            tokens = tokenizer([pairs[text][1] for _, text in part]).to(device)
            with autocast(dtype, device):
                image_tokens = model.image_tokens(torch.stack([pairs[picture][0] for picture, _ in part]).to(device))
                logits = model.match_logits(tokenizer.multimodal(tokens.ids), tokens.mask, image_tokens).float()
            scores.append((logits[:, 1] - logits[:, 0]).cpu().numpy())
    finally:
        model.train(training)
    odds = np.concatenate(scores)
    return area_under_curve(odds[: len(own)], odds[len(own) :])


def matching_by_split(
    model: FlipModel,
    tokenizer: CaptionTokenizer,
    held_out: Mapping[str, Sequence[PairBatch]],
    device: torch.device,
    dtype: torch.dtype,
    seed: int = 0,
) -> dict[str, float]:
    """``matching_auc`` of every split that has one."""
    found = {split: matching_auc(model, tokenizer, batches, device, dtype, seed) for split, batches in held_out.items()}
    return {split: auc for split, auc in found.items() if auc is not None}


def _joined(batches: Iterable[PairBatch]) -> Iterator[PairBatch]:
    """Batches of some pairs each, from ones of any size."""
    waiting: list[PairBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(len(one.texts) for one in waiting) >= _TOGETHER:
            yield _one(waiting)
            waiting = []
    if waiting:
        yield _one(waiting)


def _one(batches: list[PairBatch]) -> PairBatch:
    return PairBatch(
        torch.cat([batch.images for batch in batches]),
        [text for batch in batches for text in batch.texts],
        [face_id for batch in batches for face_id in batch.face_ids],
        torch.cat([batch.caption_ids for batch in batches]),
        sum(batch.undecodable for batch in batches),
    )


def held_out_recall(images: np.ndarray, texts: np.ndarray, caption_ids: Sequence[int] | np.ndarray) -> HeldOutRecall:
    """From features [N, D] of pairs. Raises ValueError for no pairs and for features that are not finite."""
    groups = np.asarray(caption_ids, np.int64)
    count = len(images)
    sides = [
        retrieval_ranks(queries, gallery, query_groups=groups, gallery_groups=groups)
        for queries, gallery in ((images, texts), (texts, images))
    ]
    recalls = [tuple(recall_of_ranks(ranks, min(k, count), gallery_size=count) for k in KS) for ranks in sides]
    chance = tuple(_chance(groups, min(k, count)) for k in KS)
    reciprocal = float(np.mean([reciprocal_of_ranks(ranks) for ranks in sides]))
    return HeldOutRecall(count, recalls[0], recalls[1], chance, reciprocal)


def _chance(groups: np.ndarray, k: int) -> float:
    """R@k of a random order: the mean over the queries of the chance that one of their own is among k of N drawn."""
    _, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    own = sizes[index].astype(np.float64)
    missed = np.ones(len(groups))
    for drawn in range(k):
        missed *= np.clip((len(groups) - own - drawn) / (len(groups) - drawn), 0, 1)
    return float(1 - missed.mean())


def _percent(shares: Sequence[float]) -> str:
    return "/".join(f"{100 * share:.1f}" for share in shares)
