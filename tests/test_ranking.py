"""Ranks and what is computed from them: against a version that counts one by one, with ties, groups and blocks."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from facecaption_ml import ranking
from facecaption_ml.ranking import (
    percentile_of_ranks,
    rank_percentile,
    ranks,
    recall_at_k,
    recall_of_ranks,
    reciprocal_of_ranks,
    reciprocal_rank,
    retrieval_ranks,
)


def counted_rank(row: list[float], own: list[bool]) -> int:
    """One query's rank, counted item by item."""
    best = max(value for value, mine in zip(row, own, strict=True) if mine)
    return 1 + sum(value >= best for value, mine in zip(row, own, strict=True) if not mine)


def counted_ranks(similarity: np.ndarray, query_groups: np.ndarray, gallery_groups: np.ndarray) -> list[int]:
    return [
        counted_rank(row.tolist(), [group == own for group in gallery_groups])
        for row, own in zip(similarity, query_groups, strict=True)
    ]


@st.composite
def grouped_matrices(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A similarity matrix of few distinct values, so that ties are common, with groups that leave no query alone."""
    queries, items = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    value = st.one_of(st.integers(-2, 2).map(float), st.sampled_from([math.inf, -math.inf, 0.1]))
    similarity = draw(arrays(np.float64, (queries, items), elements=value))
    gallery_groups = draw(arrays(np.int64, items, elements=st.integers(-1, 3)))
    query_groups = draw(arrays(np.int64, queries, elements=st.sampled_from(gallery_groups.tolist())))
    return similarity, query_groups, gallery_groups


@given(grouped_matrices())
def test_ranks_are_those_counted_one_by_one(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    similarity, query_groups, gallery_groups = case
    groups = {"query_groups": query_groups, "gallery_groups": gallery_groups}
    expected = counted_ranks(similarity, query_groups, gallery_groups)
    items = similarity.shape[1]
    assert ranks(similarity, **groups).tolist() == expected
    for k in range(1, items + 1):
        assert recall_at_k(similarity, k, **groups) == pytest.approx(np.mean([rank <= k for rank in expected]))
    assert reciprocal_rank(similarity, **groups) == pytest.approx(np.mean([1 / rank for rank in expected]))
    if items > 1:
        percentiles = [(items - rank) / (items - 1) for rank in expected]
        assert rank_percentile(similarity, **groups) == pytest.approx(np.mean(percentiles))


@given(arrays(np.float32, st.integers(1, 7).map(lambda n: (n, n)), elements=st.integers(-3, 3).map(float)))
def test_without_groups_the_diagonal_is_what_belongs_together(similarity: np.ndarray) -> None:
    numbers = np.arange(len(similarity))
    assert ranks(similarity).tolist() == counted_ranks(similarity, numbers, numbers)


@given(grouped_matrices(), st.randoms(use_true_random=False))
def test_the_order_of_the_gallery_does_not_matter(case: tuple[np.ndarray, np.ndarray, np.ndarray], draw) -> None:  # type: ignore[no-untyped-def]
    similarity, query_groups, gallery_groups = case
    order = draw.sample(range(similarity.shape[1]), similarity.shape[1])
    before = ranks(similarity, query_groups=query_groups, gallery_groups=gallery_groups)
    after = ranks(similarity[:, order], query_groups=query_groups, gallery_groups=gallery_groups[order])
    assert before.tolist() == after.tolist()


def test_a_worked_example() -> None:
    similarity = [[0.9, 0.1, 0.3, 0.2], [0.5, 0.4, 0.1, 0.6], [0.1, 0.2, 0.3, 0.3], [0.9, 0.8, 0.7, 0.6]]
    assert ranks(similarity).tolist() == [1, 3, 2, 4]
    assert ranks(similarity).dtype == np.int64
    assert recall_at_k(similarity, 1) == 0.25
    assert recall_at_k(similarity, 2) == 0.5
    assert rank_percentile(similarity) == pytest.approx((3 + 1 + 2 + 0) / 3 / 4)
    assert reciprocal_rank(similarity) == pytest.approx((1 + 1 / 3 + 1 / 2 + 1 / 4) / 4)


def test_a_model_that_gives_everything_one_score_finds_nothing() -> None:
    assert ranks(np.zeros((5, 5))).tolist() == [5] * 5
    assert recall_at_k(np.zeros((20, 20)), 10) == 0.0
    assert rank_percentile(np.ones((5, 5), np.float16)) == 0.0
    # rows of one feature must tie to the last bit wherever they stand, whatever order the products are summed in
    features = np.repeat(np.random.default_rng(0).standard_normal((1, 256)).astype(np.float32), 5_003, axis=0)
    assert set(retrieval_ranks(features[:7], features, query_groups=range(7), gallery_groups=range(5_003))) == {5_003}


def test_a_second_caption_of_the_image_is_no_rival() -> None:
    similarity = [[0.8, 0.9, 0.7]]
    assert ranks(similarity, query_groups=[4], gallery_groups=[4, 4, 5]).tolist() == [1]
    assert ranks(similarity, query_groups=[5], gallery_groups=[4, 4, 5]).tolist() == [3]


def test_whole_numbers_and_other_float_types_are_similarities_too() -> None:
    expected = [1, 2, 3]
    similarity = np.array([[9, 1, 1], [5, 4, 0], [7, 7, 1]])
    for dtype in (np.int8, np.uint8, np.int64, np.float16, np.float32):
        assert ranks(similarity.astype(dtype)).tolist() == expected


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 50))
def test_blocks_give_the_ranks_of_the_whole_matrix(seed: int, block: int, items: int) -> None:
    draw = np.random.default_rng(seed)
    queries, gallery = (draw.integers(-2, 3, (n, 3)).astype(np.float32) for n in (draw.integers(1, 40), items))
    gallery_groups = draw.integers(0, 6, items)
    query_groups = draw.choice(gallery_groups, len(queries))
    found = retrieval_ranks(queries, gallery, query_groups=query_groups, gallery_groups=gallery_groups, block=block)
    assert found.tolist() == counted_ranks(queries @ gallery.T, query_groups, gallery_groups)


def test_blocks_of_any_size_agree_on_random_features(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(3)
    queries, noise = (draw.standard_normal((257, 64)).astype(np.float32) for _ in range(2))
    gallery = queries + 3 * noise
    exact = counted_ranks((queries.astype(np.float64) @ gallery.astype(np.float64).T), np.arange(257), np.arange(257))
    monkeypatch.setattr(ranking, "_GALLERY_AT_ONCE", 50)
    for block in (None, 1, 100, 257, 10_000):
        assert retrieval_ranks(queries, gallery, block=block).tolist() == exact


def test_a_comparison_of_thousands_never_holds_the_matrix() -> None:
    features = np.random.default_rng(0).standard_normal((8_000, 16)).astype(np.float32)  # the matrix: 256 MB of float32
    tracemalloc.start()
    try:
        found = retrieval_ranks(features, features, block=256)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40e6
    assert recall_of_ranks(found, 1, 8_000) > 0.5


def test_measures_of_ranks_at_hand_are_those_of_their_matrix() -> None:
    similarity = np.random.default_rng(1).standard_normal((30, 30))
    found = ranks(similarity)
    assert recall_of_ranks(found, 5, 30) == recall_at_k(similarity, 5)
    assert percentile_of_ranks(found, 30) == rank_percentile(similarity)
    assert reciprocal_of_ranks(found) == reciprocal_rank(similarity)


NAN = np.eye(3)
NAN[1, 2] = np.nan
FEATURES = np.ones((3, 2), np.float32)
BROKEN = np.array([[1.0, 2.0], [np.inf, 0.0], [1.0, 1.0]])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ranks(NAN), ["row 1", "NaN"]),
        (lambda: ranks(np.zeros((3, 4))), ["3 queries", "4 gallery items", "query_groups"]),
        (lambda: ranks(np.zeros(3)), ["similarity", "[3]"]),
        (lambda: ranks(np.zeros((0, 0))), ["empty"]),
        (lambda: ranks(np.array([["a"]])), ["similarity", "numbers"]),
        (lambda: ranks(np.eye(3), query_groups=[0, 1, 2]), ["both"]),
        (lambda: ranks(np.eye(3), query_groups=[0, 1], gallery_groups=[0, 1, 2]), ["query_groups", "3 whole numbers"]),
        (lambda: ranks(np.eye(2), query_groups=[0, 1], gallery_groups=[0.0, 1.0]), ["gallery_groups", "float64"]),
        (lambda: ranks(np.eye(3), query_groups=[0, 7, 1], gallery_groups=[0, 1, 2]), ["query 1", "7"]),
        (lambda: recall_at_k(np.eye(3), 5), ["R@5", "5 items", "has 3"]),
        (lambda: recall_at_k(np.eye(3), 0), ["k must be 1"]),
        (lambda: rank_percentile(np.eye(1)), ["2 items"]),
        (lambda: recall_of_ranks(np.zeros(0, np.int64), 1, 5), ["no ranks"]),
        (lambda: retrieval_ranks(FEATURES, BROKEN), ["row 1", "gallery", "infinity"]),
        (lambda: retrieval_ranks(FEATURES, np.ones((3, 5))), ["2 dimensions", "5"]),
        (lambda: retrieval_ranks(FEATURES, np.ones((4, 2))), ["3 queries", "4 gallery items"]),
        (lambda: retrieval_ranks(FEATURES, FEATURES, block=0), ["block", "0"]),
        (lambda: retrieval_ranks(FEATURES.astype(int), FEATURES), ["queries", "floating-point"]),
    ],
)
def test_what_cannot_be_ranked_is_named(call: Callable[[], object], words: list[str]) -> None:
    with pytest.raises(ValueError, match=words[0]) as error:
        call()
    for word in words[1:]:
        assert word in str(error.value)
