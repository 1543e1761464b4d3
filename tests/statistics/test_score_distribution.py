"""Distributions of scores: exact in any order of counting, quantiles within a bin."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml.statistics.score_distribution import ScoreDistribution, roc_auc


@examples(60)
@given(st.lists(st.floats(-150, 250, width=32), max_size=60), st.integers(0, 60))
def test_distributions_are_exact_in_any_order_and_quantiles_are_within_a_bin(values: list[float], cut: int) -> None:
    whole, parts = (ScoreDistribution(-100, 200, 3000) for _ in range(2))
    whole.add(values)
    parts.add(values[cut:][::-1])
    parts.add(values[:cut][::-1])
    assert parts.counts.tolist() == whole.counts.tolist()
    assert whole.summary_stats() == parts.summary_stats()
    if not values:
        assert set(whole.summary_stats().values()) == {None}
        return
    assert whole.mean == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert whole.sd == pytest.approx(statistics.pstdev(values), abs=1e-6)
    inside = np.clip(values, -100, 200)
    for share in (0.05, 0.25, 0.5, 0.75, 0.95):
        low, high = (np.quantile(inside, share, method=method) for method in ("lower", "higher"))
        found = whole.quantile(share)
        assert found is not None
        below, at_most = (inside < found - 0.1001).mean(), (inside <= found + 0.1001).mean()
        assert below <= share <= at_most, (found, low, high)


@examples(40)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=20),
    st.lists(st.integers(0, 9), min_size=1, max_size=20),
)
def test_roc_auc_is_the_share_of_pairs_in_order(higher: list[int], lower: list[int]) -> None:
    a, b = ScoreDistribution(-0.5, 9.5, 10), ScoreDistribution(-0.5, 9.5, 10)
    a.add(higher)
    b.add(lower)
    pairs = [1.0 if x > y else 0.5 if x == y else 0.0 for x in higher for y in lower]
    assert roc_auc(a, b) == pytest.approx(statistics.fmean(pairs))
    assert roc_auc(a, ScoreDistribution(-0.5, 9.5, 10)) is None


def test_scores_that_are_no_numbers_are_refused() -> None:
    distribution = ScoreDistribution(0, 1, 10)
    with pytest.raises(ValueError, match="NaN"):
        distribution.add([0.5, math.nan])
    assert distribution.n == 0
