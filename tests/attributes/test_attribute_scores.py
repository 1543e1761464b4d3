from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from examples import examples
from facecaption_ml.attributes.calibration import (
    Calibration,
    expected_calibration_error,
    fit_offsets,
    fit_temperatures,
    share_right_between,
    sigmoid,
)
from facecaption_ml.attributes.evaluation import Evaluation, average_precision, evaluate
from facecaption_ml.attributes.weighting import adaptive_weights


def slow_average_precision(p: np.ndarray, y: np.ndarray) -> float:
    """Sum over thresholds, from the definition."""
    total, previous = 0.0, 0.0
    for threshold in sorted(set(p), reverse=True):
        chosen = p >= threshold
        recall, precision = y[chosen].sum() / y.sum(), y[chosen].mean()
        total += (recall - previous) * precision
        previous = recall
    return total


@given(arrays(np.float64, 30, elements=st.sampled_from([0.1, 0.2, 0.5, 0.7, 0.9])), arrays(bool, 30))
def test_average_precision_is_that_of_the_definition(p: np.ndarray, y: np.ndarray) -> None:
    if y.any() and not y.all():
        assert average_precision(p, y) == pytest.approx(slow_average_precision(p, y))
    else:
        assert math.isnan(average_precision(p, y))


def test_the_temperature_that_spoiled_logits_is_found() -> None:
    rng = np.random.default_rng(0)
    true_logits = rng.normal(0, 2, (20_000, 3))
    labels = rng.random((20_000, 3)) < sigmoid(true_logits)
    spoiled = true_logits * np.array([0.5, 1.0, 2.5])
    assert fit_temperatures(spoiled, labels) == pytest.approx([0.5, 1.0, 2.5], rel=0.06)


def test_a_rare_attribute_stays_near_the_shared_temperature() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (40, 5))
    labels = rng.random((40, 5)) < sigmoid(logits / 2)
    labels[:, 4] = logits[:, 4] > 0  # perfectly separated by chance: alone it would ask for no temperature at all
    assert fit_temperatures(logits, labels)[4] > 0.5


@settings(max_examples=8)
@given(st.integers(0, 99), st.floats(-1.5, 1.5))
def test_an_offset_takes_back_what_moved_the_logits(seed: int, moved: float) -> None:
    random = np.random.default_rng(seed)
    true = random.normal(0, 2, (2000, 3))
    labels = random.random(true.shape) < sigmoid(true)
    calibration = Calibration.fit(true - moved, labels)
    assert calibration.offsets == pytest.approx(moved, abs=0.4)
    assert calibration.probabilities(true - moved).mean(0) == pytest.approx(labels.mean(0), abs=0.02)


def test_a_handful_of_rows_move_an_offset_little() -> None:
    assert np.abs(fit_offsets(np.full((4, 2), -2.0), np.ones((4, 2), bool))).max() < 0.3


def test_calibrated_probabilities_have_no_calibration_error() -> None:
    rng = np.random.default_rng(2)
    p = rng.random(200_000)
    y = rng.random(200_000) < p
    assert expected_calibration_error(p, y) < 0.01
    assert expected_calibration_error(np.clip(p * 1.3, 0, 1), y) > 0.05
    assert share_right_between(p, y, 0.85, 0.95) == pytest.approx(0.9, abs=0.01)
    assert math.isnan(share_right_between(p * 0.5, y, 0.85, 0.95))


def test_the_evaluation_counts_as_by_hand(tmp_path: Path) -> None:
    p = np.tile([[0.9], [0.6], [0.2], [0.1]], (1, 40))
    y = np.zeros((4, 40), bool)
    y[0] = y[2] = True
    y[:, 39] = False
    share = np.full(40, 0.2)
    result = evaluate(p, y, share, "made", "v")
    assert result.scores[0].accuracy == 0.5
    assert result.scores[0].majority == 0.5
    assert result.scores[0].balanced_accuracy == 0.5
    assert result.scores[0].precision_above == 1.0
    assert result.scores[39].average_precision is None
    assert result.scores[39].majority == 1.0
    result.write(tmp_path / "scores.json")
    assert Evaluation.read(tmp_path / "scores.json") == result


@pytest.mark.parametrize(("threshold", "band", "precision"), [(0.85, (0.85, 0.95), 0.5), (0.94, (0.94, 0.98), 0.0)])
def test_the_threshold_that_held_is_in_the_scores(
    threshold: float, band: tuple[float, float], precision: float
) -> None:
    p = np.tile([[0.9], [0.96]], (1, 40))
    y = np.tile([[True], [False]], (1, 40))
    result = evaluate(p, y, np.full(40, 0.2), "made", "v", threshold)
    assert (result.threshold, result.band) == (threshold, band)
    assert (result.precision_above, result.scores[0].precision_above) == (precision, precision)


def slow_weights(history: np.ndarray, k: int) -> np.ndarray:
    """He et al.'s weights, one task at a time."""
    tasks = history.shape[1]
    raw = []
    currents = [sum(history[-1 - i][t] for i in range(k)) / k for t in range(tasks)]
    previous = [sum(history[-1 - k - i][t] for i in range(k)) / k for t in range(tasks)]
    trends = [abs(c - p) / c for c, p in zip(currents, previous, strict=True)]
    for t in range(tasks):
        raw.append(trends[t] / (sum(trends) / tasks) * currents[t] / (sum(currents) / tasks))
    raw = [min(max(value / (sum(raw) / tasks), 0.2), 5.0) for value in raw]
    return np.array([value / (sum(raw) / tasks) for value in raw])


@examples(50)
@given(arrays(np.float64, (7, 4), elements=st.floats(0.05, 1.0)), st.integers(1, 3))
def test_adaptive_weights_are_those_of_the_formula(history: np.ndarray, k: int) -> None:
    weights = adaptive_weights(list(history), k)
    assert weights.mean() == pytest.approx(1.0)
    if np.abs(np.diff(history, axis=0)).max() > 1e-6:
        current, before = history[-k:].mean(0), history[-2 * k : -k].mean(0)
        if np.abs(current - before).max() > 1e-6:
            assert weights == pytest.approx(slow_weights(history, k), rel=1e-6)


def test_weights_are_equal_before_there_is_a_trend() -> None:
    assert adaptive_weights([np.ones(3)] * 3, 2).tolist() == [1, 1, 1]
    assert adaptive_weights([np.array([1.0, 2.0])] * 4, 2, strength=0).tolist() == [1, 1]
