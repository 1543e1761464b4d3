"""Nucleus sampling without a sorted vocabulary draws from the same tokens, with the same shares, as one that sorts."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml.captions.backends import nucleus


def sorted_nucleus(logits: np.ndarray, temperature: float, top_p: float) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and their shares, by the definition."""
    weights = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    order = np.argsort(-weights, kind="stable")
    cumulated = np.cumsum(weights[order])
    kept = order[: int(np.searchsorted(cumulated, top_p * cumulated[-1])) + 1]
    return kept, weights[kept] / weights[kept].sum()


@pytest.mark.slow
@pytest.mark.parametrize("deviation", [0.0, 0.5, 2.0, 8.0, 100.0])
@pytest.mark.parametrize("top_p", [0.1, 0.9, 1.0])
def test_draws_have_the_shares_of_a_sorted_nucleus(deviation: float, top_p: float) -> None:
    logits = (deviation * np.random.default_rng(1).standard_normal(60)).astype(np.float32)
    kept, shares = sorted_nucleus(logits, 0.7, top_p)
    rng = random.Random(2)
    count = 20_000
    drawn = Counter(nucleus.drawn(logits, 0.7, top_p, rng) for _ in range(count))
    assert set(drawn) <= set(kept.tolist())
    for token, share in zip(kept.tolist(), shares, strict=True):
        assert abs(drawn[token] / count - share) < 5 * (share / count) ** 0.5 + 1e-3, token


@pytest.mark.parametrize("top_p", [0.3, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 20.0])
def test_a_draw_is_that_of_the_whole_sorted_vocabulary(top_p: float, temperature: float) -> None:
    numbers = np.random.default_rng(3)
    for seed in range(60):
        logits = numbers.normal(0, 4, 500).astype(np.float32)
        logits[::7] = logits[0]  # ties
        weights = nucleus.weights_of(logits, temperature)
        order = np.argsort(-weights, kind="stable")
        shares = np.cumsum(weights[order])
        kept = shares[: int(np.searchsorted(shares, top_p * weights.sum())) + 1]
        place = int(np.searchsorted(kept, random.Random(seed).random() * kept[-1], side="right"))
        expected = int(order[min(place, len(kept) - 1)])
        assert nucleus.among(weights, top_p, random.Random(seed)) == expected
        assert nucleus.drawn(logits, temperature, top_p, random.Random(seed)) == expected


@examples(60)
@given(st.integers(0, 2**32), st.floats(0, 12), st.floats(0.05, 0.999), st.floats(0.05, 2))
def test_no_draw_leaves_the_nucleus(seed: int, deviation: float, top_p: float, temperature: float) -> None:
    logits = (deviation * np.random.default_rng(seed).standard_normal(3000)).astype(np.float32)
    # Rounding may let in the token that just fails to be needed, and one that is as likely as the last.
    kept, _ = sorted_nucleus(logits, temperature, min(top_p * (1 + 1e-5), 1.0))
    least = float(logits[kept].min()) - 1e-5 * max(temperature, 1e-4)
    rng = random.Random(seed)
    for _ in range(20):
        assert logits[nucleus.drawn(logits, temperature, top_p, rng)] >= least


def test_temperature_0_takes_the_best_and_masked_tokens_are_never_drawn() -> None:
    logits = np.array([1.0, 3.0, -np.inf, 2.999, -np.inf], np.float32)
    rng = random.Random(0)
    assert {nucleus.drawn(logits, 0.0, 0.9, rng) for _ in range(50)} == {1}
    assert {nucleus.drawn(logits, 5.0, 1.0, rng) for _ in range(300)} == {0, 1, 3}
    assert {nucleus.among(np.array([0.0, 2.0, 0.0]), 0.9, rng) for _ in range(50)} == {1}
