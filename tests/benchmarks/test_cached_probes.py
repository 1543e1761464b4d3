"""Probes on cached features are those of the slow way, which runs the frozen model anew on every batch of every epoch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from facecaption_ml.attributes.evaluation import average_precision
from facecaption_ml.benchmarks.datasets.data import PairData, Source
from facecaption_ml.benchmarks.encoders.features import FeatureCache
from facecaption_ml.benchmarks.encoders.models import FlipEncoder
from facecaption_ml.benchmarks.options import ATTRIBUTES, RETRIEVAL
from facecaption_ml.benchmarks.tasks.attributes import normed_layers, scores, train_attribute_probe
from facecaption_ml.benchmarks.tasks.probes import AttributeProbe, PairProbe, train_probe
from facecaption_ml.benchmarks.tasks.protocol import SplitFeatures
from facecaption_ml.benchmarks.tasks.retrieval import SplitPairs, pair_ranks, train_retrieval_probe
from facecaption_ml.ranking import recall_of_ranks
from facecaption_ml.storage.store import Store
from stub_models import TEXTS, micro_flip
from tone_world import encoded_anew, labelled, splits_of, stored, tones_of


def half(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float16).astype(np.float32)


@pytest.fixture(scope="module")
def encoder() -> FlipEncoder:
    return FlipEncoder(micro_flip(), "micro")


PAIRS_PROTOCOL = RETRIEVAL.model_copy(update={"epochs": 4, "batch_size": 8})
LABELS_PROTOCOL = ATTRIBUTES.model_copy(update={"epochs": 4, "batch_size": 16})


@pytest.mark.parametrize(("rounded", "tolerance"), [(True, 2e-4), (False, 5e-3)])
def test_a_retrieval_probe_on_cached_features_is_that_of_encoding_anew_in_every_epoch(
    store: Store, encoder: FlipEncoder, rounded: bool, tolerance: float
) -> None:
    """To float tolerance against features rounded to half precision anew, and to that rounding against float32."""
    count, tested = 24, 16
    pictures = stored(store, "pictures", tones_of(count + tested))
    texts = [f"{TEXTS[i % 8]} {TEXTS[i // 16]}" for i in range(count + tested)]  # some are the same
    data = PairData(Source("tones", "1"), pictures, [(text,) for text in texts], splits_of(count, tested))
    cache = FeatureCache(store, encoder)
    train, test = (SplitPairs.of(data, cache, split, layers=False) for split in ("train", "test"))
    probe, trained = train_retrieval_probe(train, None, PAIRS_PROTOCOL, run=1)

    slow = PairProbe(16, 16, PAIRS_PROTOCOL.seed + 1)
    kept = half if rounded else np.asarray

    def loss_of(rows: Tensor, epoch: int) -> Tensor:
        images = torch.from_numpy(kept(encoded_anew(encoder, pictures, rows.tolist()).pooled))
        words = torch.from_numpy(kept(encoder.encode_texts([texts[row] for row in rows.tolist()])))
        return slow.loss(slow.images(images), slow.texts(words), torch.from_numpy(train.caption_ids)[rows])

    slowly = train_probe(slow, loss_of, count, PAIRS_PROTOCOL, PAIRS_PROTOCOL.seed + 1)
    assert trained.losses == pytest.approx(slowly.losses, rel=tolerance)
    for name, weight in slow.state_dict().items():
        torch.testing.assert_close(probe.state_dict()[name], weight, atol=tolerance, rtol=0, msg=name)
    for fast_ranks, slow_ranks in zip(pair_ranks(probe, test), pair_ranks(slow, test), strict=True):
        for k in (1, 5, 10):
            recalls = [recall_of_ranks(ranks, k, tested) for ranks in (fast_ranks, slow_ranks)]
            assert recalls[0] == pytest.approx(recalls[1], abs=0 if rounded else 1.01 / tested)


@pytest.mark.parametrize(("rounded", "tolerance"), [(True, 2e-3), (False, 2e-2)])
def test_an_attribute_probe_on_cached_features_is_that_of_encoding_anew_in_every_epoch(
    store: Store, encoder: FlipEncoder, rounded: bool, tolerance: float
) -> None:
    """At the paper's rate of 0.3, which makes weights of several units out of the rounding's thousandths."""
    count, tested = 64, 32
    data = labelled(store, count, tested)
    cache = FeatureCache(store, encoder)
    train, test = (SplitFeatures.of(cache, data.pictures, data.splits[s], layers=True) for s in ("train", "test"))
    target = data.labels[:count]
    probe, trained = train_attribute_probe(
        [normed_layers(train.views[0])], target, np.arange(count), None, LABELS_PROTOCOL, run=0
    )

    slow = AttributeProbe(6, 16, 40, LABELS_PROTOCOL.seed)
    kept = half if rounded else np.asarray

    def vectors(rows: list[int]) -> Tensor:
        found = encoded_anew(encoder, data.pictures, rows).layers
        assert found is not None
        return torch.from_numpy(kept(F.layer_norm(torch.from_numpy(kept(found)), (16,)).numpy()))

    def loss_of(rows: Tensor, epoch: int) -> Tensor:
        labels = torch.from_numpy(target).float()[rows]
        return F.binary_cross_entropy_with_logits(slow(vectors(rows.tolist())), labels)

    slowly = train_probe(slow, loss_of, count, LABELS_PROTOCOL, LABELS_PROTOCOL.seed)
    assert trained.losses == pytest.approx(slowly.losses, rel=tolerance)
    assert trained.losses[-1] < trained.losses[0]
    for name, weight in slow.state_dict().items():
        torch.testing.assert_close(probe.state_dict()[name], weight, atol=5 * tolerance, rtol=0, msg=name)
    truth = data.labels[count:]
    accuracy, precision = scores(probe, normed_layers(test.views[0]), truth)
    found = slow(vectors(list(range(count, count + tested)))).detach().numpy()
    slow_precisions = [average_precision(found[:, i], truth[:, i]) for i in range(40)]
    assert accuracy == pytest.approx(((found > 0) == truth).mean(), abs=tolerance)
    assert precision == pytest.approx(np.nanmean(slow_precisions), abs=2 * tolerance)
