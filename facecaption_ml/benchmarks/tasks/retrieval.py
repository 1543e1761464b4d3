"""Text-image retrieval with frozen towers and two new linear layers (paper §5.2, Table 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from facecaption_ml.benchmarks.datasets.data import PairData
from facecaption_ml.benchmarks.datasets.pictures import content_version
from facecaption_ml.benchmarks.encoders.features import FeatureCache, Half
from facecaption_ml.benchmarks.encoders.models import FlipEncoder, PretrainedHeads
from facecaption_ml.benchmarks.options import ProbeProtocol
from facecaption_ml.benchmarks.result import PRETRAINED_HEADS, RERANKED, Measurement
from facecaption_ml.benchmarks.tasks.probes import PairProbe, Trained, train_probe
from facecaption_ml.benchmarks.tasks.protocol import (
    KS,
    VALIDATION_ROWS,
    Measured,
    SplitFeatures,
    chance_recall,
    over_runs,
    result_of,
    training_views,
)
from facecaption_ml.benchmarks.tasks.reranking import PairScores, reranked
from facecaption_ml.pair_matching import area_under_curve, mismatched
from facecaption_ml.ranking import Ranks, recall_of_ranks, retrieval_ranks

TEXT_TO_IMAGE: Final = "text → image"
IMAGE_TO_TEXT: Final = "image → text"
MATCHING: Final = "matching"
AUC: Final = "AUC"
_MATCHED_PICTURES: Final = 1_000  # of the test split, at most
_CAPTION_STREAM: Final = 7919


@dataclass(frozen=True)
class SplitPairs:
    """A split's pictures and all of its captions: ``owner`` int64 [T] is the picture that each caption belongs to.

    ``text`` float16 [T, D], ``caption_ids`` int64 [T]: captions with equal words have equal numbers.
    """

    images: SplitFeatures
    text: Half
    owner: npt.NDArray[np.int64]
    caption_ids: npt.NDArray[np.int64]
    captions: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        data: PairData,
        cache: FeatureCache,
        split: str,
        *,
        layers: bool,
        views: Sequence[int] = (0,),
        most: int = 0,
    ) -> SplitPairs:
        """``most`` pictures at most, spread over the split; 0: all."""
        rows = data.splits[split]
        if most and len(rows) > most:
            rows = rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]
        images = SplitFeatures.of(cache, data.pictures, rows, layers=layers, views=views)
        captions = [data.captions[row] for row in images.rows.tolist()]
        texts = [text for own in captions for text in own]
        numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        return cls(
            images,
            cache.texts(texts),
            np.repeat(np.arange(len(captions)), [len(own) for own in captions]),
            np.array([numbers[text] for text in texts], np.int64),
            texts,
        )


def measure_retrieval(data: PairData, cache: FeatureCache, protocol: ProbeProtocol, layers: bool = False) -> Measured:
    """R@1, R@5 and R@10 on the test split, both directions; several captions of a picture are queries of their own, and a
    picture has found a caption where any of its own is among the first K (Karpathy and Fei-Fei, CVPR 2015).

    A FLIP's matching head is measured as well, as it is: the area under the ROC curve over the pictures with their own captions
    and with others'. ``layers`` keeps features by layer too, where another task needs them of the same pictures. ``rerank`` and
    ``pretrained_heads`` of the protocol are for FLIP alone: other models have no matching head and no projections of this kind.
    Raises FeatureError or ValueError with one line where nothing can be measured.
    """
    train = SplitPairs.of(data, cache, "train", layers=layers, views=training_views(protocol))
    validated = bool(len(data.splits.get("validation", ())))
    validation = SplitPairs.of(data, cache, "validation", layers=layers, most=VALIDATION_ROWS) if validated else None
    test = SplitPairs.of(data, cache, "test", layers=layers)
    flip = cache.model if isinstance(cache.model, FlipEncoder) else None
    heads = flip.heads if flip and protocol.pretrained_heads else None
    scores = None
    if flip and protocol.rerank:
        rows = test.images.rows.tolist()
        scores = PairScores(flip, data.pictures, rows, test.captions, cache.batch_size)
    runs: list[dict[tuple[str, int], float | None]] = []
    epochs: list[int] = []
    for run in range(protocol.runs):
        probe, trained = train_retrieval_probe(train, validation, protocol, run, heads)
        found = pair_ranks(probe, test) if scores is None else reranked_pairs(probe, test, protocol.rerank, scores)
        runs.append(_recalls(*found, test))
        epochs.append(trained.epoch)
    gallery = {TEXT_TO_IMAGE: len(test.images.rows), IMAGE_TO_TEXT: len(test.owner)}
    measured = [
        over_runs(setting, f"R@{k}", [recalls[setting, k] for recalls in runs], f"a gallery of {gallery[setting]}")
        for setting in gallery
        for k in KS
    ]
    chance = _chance(test, gallery)
    if flip:
        measured.append(_matching(flip, data, test, cache, protocol.seed))
        chance.append(Measurement(MATCHING, AUC, 0.5))
    return Measured(
        result_of(
            "retrieval",
            data.source,
            cache.model,
            measurements=measured,
            baselines={"chance": chance},
            counts={
                "training pictures": len(train.images.rows),
                "validation pictures": len(validation.images.rows) if validation else 0,
                "test pictures": len(test.images.rows),
                "test captions": len(test.owner),
                "did not decode": sum(part.images.unreadable for part in (train, validation, test) if part),
            },
            protocol={
                **protocol.describe(validated),
                "epochs chosen": ", ".join(map(str, epochs)),
                **({PRETRAINED_HEADS: "the checkpoint's own projections"} if heads else {}),
                **({RERANKED: f"the best {protocol.rerank} by the matching head"} if scores else {}),
            },
        )
    )


def _matching(flip: FlipEncoder, data: PairData, test: SplitPairs, cache: FeatureCache, seed: int) -> Measurement:
    """Of at most a thousand pictures, spread over the split, with their first captions; kept with the features."""
    places = np.unique(np.linspace(0, len(test.images.rows) - 1, _MATCHED_PICTURES).round().astype(np.int64))
    first = np.searchsorted(test.owner, places)
    rows, captions = test.images.rows[places].tolist(), [test.captions[at] for at in first]
    pictures, texts = mismatched(test.caption_ids[first], seed=seed)
    if not len(pictures):
        return Measurement(MATCHING, AUC, None, why="one caption for all")

    def measure() -> float:
        scores = PairScores(flip, data.pictures, rows, captions, cache.batch_size)
        own = np.arange(len(places))
        return area_under_curve(scores.odds(own, own), scores.odds(pictures, texts))

    asked = content_version([str(seed), *map(str, rows), *captions])
    return Measurement(MATCHING, AUC, cache.number(data.pictures, f"matching-{asked}", measure))


def train_retrieval_probe(
    train: SplitPairs,
    validation: SplitPairs | None,
    protocol: ProbeProtocol,
    run: int,
    heads: PretrainedHeads | None = None,
) -> tuple[PairProbe, Trained]:
    """One caption of each picture an epoch, drawn anew. The epoch is the one with the best mean R@10 on ``validation``.

    R@K with K half the pictures where they are fewer than 20: among 10, every epoch's R@10 would be 1.
    """
    seed = protocol.seed + run
    images = [torch.from_numpy(view.pooled).to(protocol.device) for view in train.images.views]
    texts = torch.from_numpy(train.text).to(protocol.device)
    ids = torch.from_numpy(train.caption_ids).to(protocol.device)
    probe = PairProbe(images[0].shape[1], texts.shape[1], seed, heads).to(protocol.device)
    chosen = lru_cache(maxsize=1)(partial(drawn_captions, train.owner, seed))

    def loss_of(rows: Tensor, epoch: int) -> Tensor:
        captions = chosen(epoch)[rows]
        left = probe.images(images[epoch % len(images)][rows])
        return probe.loss(left, probe.texts(texts[captions]), ids[captions])

    def score() -> float:
        assert validation is not None
        k = max(1, min(KS[-1], len(validation.images.rows) // 2))
        recalls = _recalls(*pair_ranks(probe, validation), validation, (k,))
        return float(np.mean([value for value in recalls.values() if value is not None]))

    trained = train_probe(
        probe, loss_of, len(train.images.rows), protocol, seed, score if validation is not None else None
    )
    return probe, trained


def drawn_captions(owner: npt.NDArray[np.int64], seed: int, epoch: int) -> Tensor:
    """Which caption of each picture an epoch learns from, int64 [N]; those of one picture stand together in ``owner``."""
    counts = np.bincount(owner)
    drawn = np.random.default_rng((_CAPTION_STREAM, seed, epoch)).random(len(counts))
    return torch.from_numpy(np.cumsum(counts) - counts + (drawn * counts).astype(np.int64))


@torch.inference_mode()
def pair_ranks(probe: PairProbe, split: SplitPairs) -> tuple[Ranks, Ranks]:
    """The ranks of every caption's picture and of every picture's best caption."""
    images, texts = _features(probe, split)
    rows = np.arange(len(images))
    text_to_image = retrieval_ranks(texts, images, query_groups=split.owner, gallery_groups=rows)
    return text_to_image, retrieval_ranks(images, texts, query_groups=rows, gallery_groups=split.owner)


@torch.inference_mode()
def reranked_pairs(probe: PairProbe, split: SplitPairs, k: int, scores: PairScores) -> tuple[Ranks, Ranks]:
    """The same after the matching head's look at the best ``k``."""
    images, texts = _features(probe, split)
    rows = np.arange(len(images))
    text_to_image = reranked(texts, images, k, lambda text, image: scores.of(image, text), split.owner, rows)
    return text_to_image, reranked(images, texts, k, scores.of, rows, split.owner)


def _features(probe: PairProbe, split: SplitPairs) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Unit rows of the pictures and of the captions."""
    device = probe.log_scale.device
    images = probe.images(torch.from_numpy(split.images.views[0].pooled).to(device)).cpu().numpy()
    return images, probe.texts(torch.from_numpy(split.text).to(device)).cpu().numpy()


def _recalls(
    text_to_image: Ranks, image_to_text: Ranks, split: SplitPairs, ks: Sequence[int] = KS
) -> dict[tuple[str, int], float | None]:
    asked = ((TEXT_TO_IMAGE, text_to_image, len(split.images.rows)), (IMAGE_TO_TEXT, image_to_text, len(split.owner)))
    return {
        (setting, k): recall_of_ranks(ranks, k, gallery) if gallery >= k else None
        for setting, ranks, gallery in asked
        for k in ks
    }


def _chance(test: SplitPairs, gallery: dict[str, int]) -> list[Measurement]:
    own = {TEXT_TO_IMAGE: np.ones(len(test.owner)), IMAGE_TO_TEXT: np.bincount(test.owner)}
    return [
        Measurement(setting, f"R@{k}", chance_recall(own[setting], gallery[setting], k))
        if gallery[setting] >= k
        else Measurement(setting, f"R@{k}", None, why=f"a gallery of {gallery[setting]}")
        for setting in gallery
        for k in KS
    ]
