"""The second look of a retrieval benchmark: the best K by the matching head, heads that start from the checkpoint's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml.benchmarks.encoders.features import FeatureCache
from facecaption_ml.benchmarks.encoders.models import FlipEncoder
from facecaption_ml.benchmarks.options import RETRIEVAL
from facecaption_ml.benchmarks.report.table import markdown
from facecaption_ml.benchmarks.report.tables import result_table
from facecaption_ml.benchmarks.result import BenchmarkResult
from facecaption_ml.benchmarks.tasks.probes import PairProbe
from facecaption_ml.benchmarks.tasks.reranking import PairScores, reranked
from facecaption_ml.benchmarks.tasks.retrieval import SplitPairs, measure_retrieval, pair_ranks
from facecaption_ml.flip.pairs.augmentation import plain_view
from facecaption_ml.storage.store import Store
from stub_models import micro_flip
from tone_world import cache_of, pairs, values

QUICK = RETRIEVAL.model_copy(update={"epochs": 1, "batch_size": 8, "runs": 1, "learning_rate": 1e-9})


def unit_rows(draw: np.random.Generator, count: int) -> np.ndarray:
    rows = draw.normal(size=(count, 4)).round(1) + 0.01
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 15), st.integers(0, 10_000))
@examples(60)
def test_ranks_are_those_of_a_slow_second_look(queries: int, items: int, k: int, seed: int) -> None:
    """Query by query: the best k by similarity first, among them by logit + similarity, then the rest as it stood."""
    draw = np.random.default_rng(seed)
    left, right = unit_rows(draw, queries), unit_rows(draw, items)
    logits = draw.normal(size=(queries, items)).astype(np.float32)
    own = draw.integers(0, items, queries)
    found = reranked(left, right, k, lambda rows, places: logits[rows, places], own, np.arange(items))
    for query in range(queries):
        similarity = (left[query].astype(float) @ right.astype(float).T).astype(np.float32)
        order = sorted(range(items), key=lambda item: (-similarity[item], item))
        best = sorted(order[:k], key=lambda item: -(logits[query, item] + similarity[item]))
        if own[query] in best:
            assert found[query] == best.index(own[query]) + 1
        else:
            rivals = [item for item in order[k:] if item != own[query] and similarity[item] >= similarity[own[query]]]
            assert found[query] == len(best) + len(rivals) + 1


def flip_cache(store: Store) -> FeatureCache:
    return FeatureCache(store, FlipEncoder(micro_flip(), "flip"), 8)


def test_scores_are_the_checkpoints_own_matching(store: Store) -> None:
    data, flip = pairs(store, 4, 6), micro_flip()
    rows = data.splits["test"].tolist()
    images = [image for image in data.pictures.read(rows) if image is not None]
    texts = [data.captions[row][0] for row in rows]
    found = PairScores(FlipEncoder(flip, "flip"), data.pictures, rows, texts, 4).of(
        np.array([0, 1, 5]), np.array([2, 1, 0])
    )
    tokens = flip.tokenizer([texts[2], texts[1], texts[0]])
    pixels = torch.from_numpy(np.stack([plain_view(images[row], 16) for row in (0, 1, 5)])).permute(0, 3, 1, 2)
    with torch.no_grad():
        logits = flip.model.match_logits(
            flip.tokenizer.multimodal(tokens.ids), tokens.mask, flip.model.image_tokens(pixels)
        )
    assert found == pytest.approx(logits[:, 1].numpy(), abs=5e-3)  # tokens are kept in half precision


def test_heads_that_are_pretrained_rank_as_the_checkpoint_does(store: Store) -> None:
    data, flip = pairs(store, 8, 12), micro_flip()
    encoder = FlipEncoder(flip, "flip")
    split = SplitPairs.of(data, FeatureCache(store, encoder, 8), "test", layers=False)
    probe = PairProbe(split.images.views[0].pooled.shape[1], split.text.shape[1], 0, encoder.heads)
    assert probe.log_scale.exp().item() == pytest.approx(1 / flip.model.temperature.item())
    assert all(parameter.requires_grad for parameter in probe.parameters())
    images = flip.encode_images(
        [image for image in data.pictures.read(split.images.rows.tolist()) if image is not None]
    )
    similarity = flip.encode_texts(split.captions) @ images.T
    to_image, _ = pair_ranks(probe, split)
    slow = [1 + int((row >= row[own]).sum()) - 1 for row, own in zip(similarity, split.owner, strict=True)]
    assert np.abs(to_image - np.array(slow)).max() <= 1  # features are kept in half precision


def test_both_are_off_by_default_and_footnoted_where_they_are_on(store: Store) -> None:
    data = pairs(store, 16, 12)

    def page(result: BenchmarkResult) -> str:
        return markdown([result_table(result)])

    plain = measure_retrieval(data, flip_cache(store), QUICK).result
    assert not plain.departures
    assert "authors do" not in page(plain)
    options = {"rerank": 5, "pretrained_heads": True}
    both = measure_retrieval(data, flip_cache(store), QUICK.model_copy(update=options)).result
    assert both.protocol["re-ranked"] == "the best 5 by the matching head"
    assert both.protocol["heads start from"] == "the checkpoint's own projections"
    for line in both.departures:
        assert line in page(both)
    assert values(both.measurements).keys() == values(plain.measurements).keys()


def test_a_model_without_a_matching_head_is_measured_without(store: Store) -> None:
    options = {"rerank": 5, "pretrained_heads": True}
    data = pairs(store, 16, 12)
    given, plain = (
        measure_retrieval(data, cache_of(store), protocol).result
        for protocol in (QUICK.model_copy(update=options), QUICK)
    )
    assert not given.departures
    assert given.measurements == plain.measurements
