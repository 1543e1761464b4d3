"""The thresholds for a precision: never below the bound, never lower for a higher precision, never without a positive."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from examples import examples
from facecaption_ml.attributes import AttributePredictor, LabelRule, PrecisionError, Thresholds, checkpoint_folder
from facecaption_ml.attributes.calibration import sigmoid
from facecaption_ml.attributes.checkpoints import NEEDED, THRESHOLDS
from facecaption_ml.attributes.cross_fitting import at_precision, at_threshold, cross_fitted, cross_fitting_table
from facecaption_ml.attributes.label_scores import score_labels
from facecaption_ml.attributes.labels import label_faces
from facecaption_ml.attributes.thresholds import (
    CLAIM_ROWS,
    CONFIDENCE,
    GRID,
    LEAST_PROBABILITY,
    counts_above,
    precision_bounds,
    with_female,
)
from facecaption_ml.taxonomy import ATTRIBUTES, FEMALE, NAMES

ROWS = 60
faces = st.tuples(
    arrays(np.float64, (ROWS, 40), elements=st.floats(0, 1, width=32)), arrays(bool, (ROWS, 40), fill=st.booleans())
)
precisions = st.floats(0.5, 0.99)


def calibrated_faces(count: int, seed: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of 40 attributes from rare to common, and labels that are as likely as they say, or less by ``shift``."""
    rng = np.random.default_rng(seed)
    p = sigmoid(rng.normal(np.linspace(-4, 2, 40), 2.5, (count, 40)))
    return p, rng.random((count, 40)) < np.clip(p - shift, 0, 1)


@pytest.mark.slow
@examples(40)
@given(faces, precisions)
def test_above_its_threshold_an_attribute_reaches_the_precision_with_the_confidence(
    drawn: tuple[np.ndarray, np.ndarray], precision: float
) -> None:
    from scipy.stats import beta

    p, truth = with_female(*drawn)
    rule = Thresholds.fit(*drawn, "v").rule(precision)
    for i, name in enumerate(NAMES):
        threshold = rule.thresholds[name]
        assert threshold >= min(precision, LEAST_PROBABILITY)
        if threshold >= 1:
            continue
        above = p[:, i] > threshold
        claimed = p[above, i].mean() if above.any() else threshold
        right = truth[above, i].sum()
        assert truth[:, i].any()
        posterior = beta(CLAIM_ROWS * claimed + right, CLAIM_ROWS * (1 - claimed) + above.sum() - right + 1e-9)
        assert posterior.cdf(precision) <= 1 - CONFIDENCE + 1e-6


@examples(40)
@given(faces, precisions, precisions)
def test_a_higher_precision_has_no_lower_threshold(
    drawn: tuple[np.ndarray, np.ndarray], one: float, other: float
) -> None:
    table = Thresholds.fit(*drawn, "v")
    low, high = table.rule(min(one, other)), table.rule(max(one, other))
    assert all(low.thresholds[name] <= high.thresholds[name] for name in NAMES)
    assert not (asserted_labels_alone(drawn[0], high) & ~asserted_labels_alone(drawn[0], low)).any()


def asserted_labels_alone(p: np.ndarray, rule: LabelRule) -> np.ndarray:
    """Before contradictions are settled."""
    return with_female(p, p > 0.5)[0] > np.array([rule.thresholds[name] for name in NAMES])


@pytest.mark.slow
@examples(40)
@given(faces)
def test_bounds_never_fall_and_are_the_same_every_time_and_in_any_order(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    p, truth = with_female(*drawn)
    bounds = precision_bounds(p, truth)
    assert (np.diff(bounds, axis=1) >= 0).all()
    assert Thresholds.fit(*drawn, "v") == Thresholds.fit(*drawn, "v")
    order = np.random.default_rng(0).permutation(ROWS)
    assert precision_bounds(p[order], truth[order]) == pytest.approx(bounds)


@examples(40)
@given(faces, precisions)
def test_an_attribute_without_a_positive_is_never_said(drawn: tuple[np.ndarray, np.ndarray], precision: float) -> None:
    p, truth = drawn[0], drawn[1].copy()
    truth[:, ATTRIBUTES.index("Bald")] = False
    truth[:, ATTRIBUTES.index("Male")] = True  # so that no face is a woman's
    rule = Thresholds.fit(p, truth, "v").rule(precision)
    assert {"Bald", FEMALE} <= set(rule.silent)
    certain = np.ones((1, 40))
    certain[0, ATTRIBUTES.index("Male")] = 0
    (found,) = label_faces(certain, rule)
    assert "Bald" not in found.labels
    assert found.gender is None


def test_counts_are_those_by_hand() -> None:
    p, truth = np.array([[0.95], [0.8], [0.3]]), np.array([[True], [False], [True]])
    count, right, claimed = counts_above(p, truth)
    at = {threshold: place for place, threshold in enumerate(GRID)}
    assert [count[0, at[t]] for t in (0.5, 0.8, 0.9, 0.98)] == [2, 1, 1, 0]
    assert [right[0, at[t]] for t in (0.5, 0.8, 0.9, 0.98)] == [1, 1, 1, 0]
    assert [claimed[0, at[t]] for t in (0.5, 0.9, 0.98)] == pytest.approx([0.875, 0.95, 0.98])


@pytest.mark.slow
@pytest.mark.parametrize("precision", [0.8, 0.9, 0.95])
def test_labels_of_other_faces_are_as_often_right_as_was_asked(precision: float) -> None:
    rule = Thresholds.fit(*calibrated_faces(600, 1), "v").rule(precision)
    score = score_labels(*calibrated_faces(20_000, 2), rule)
    assert score.everyone.precision is not None
    assert score.everyone.precision >= precision
    said = [name for name, (count, _) in score.asserted.items() if count >= 200]
    short = [name for name in said if (score.precision_of(name) or 0) < precision - 0.02]
    assert len(said) > 15
    assert len(short) <= 2


@pytest.mark.slow
def test_probabilities_that_claim_too_much_are_found_out() -> None:
    honest = Thresholds.fit(*calibrated_faces(600, 1), "v").rule(0.9)
    boastful = Thresholds.fit(*calibrated_faces(600, 1, shift=0.15), "v").rule(0.9)
    common = NAMES[30:40]
    assert all(boastful.thresholds[name] > honest.thresholds[name] for name in common)
    score = score_labels(*calibrated_faces(20_000, 2, shift=0.15), boastful)
    plain = score_labels(*calibrated_faces(20_000, 2, shift=0.15), LabelRule.plain())
    assert (score.everyone.precision or 1) > (plain.everyone.precision or 0)


def test_a_rare_attribute_that_is_sure_is_said_though_it_was_seen_a_few_times_only() -> None:
    p, truth = np.full((600, 40), 0.01), np.zeros((600, 40), bool)
    bald = ATTRIBUTES.index("Bald")
    p[:6, bald], truth[:6, bald] = 0.97, True  # six in 600: their count alone bounds the precision by 0.68
    rule = Thresholds.fit(p, truth, "v").rule(0.9)
    assert rule.thresholds["Bald"] < 0.97
    truth[:3, bald] = False
    assert Thresholds.fit(p, truth, "v").rule(0.9).thresholds["Bald"] >= 0.97


def test_the_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = Thresholds.fit(*calibrated_faces(300, 3), "v")
    table.write(tmp_path / "thresholds.json")
    read = Thresholds.read(tmp_path / "thresholds.json")
    assert read == table
    assert read.rule(0.9) == table.rule(0.9)
    rule = table.rule(0.87)
    assert LabelRule.from_json(rule.to_json()) == rule
    assert rule.words == "per-attribute thresholds for a precision of 0.87"
    (tmp_path / "thresholds.json").write_text('{"version": "v"}')
    with pytest.raises(PrecisionError, match=r"thresholds\.json: not a table"):
        Thresholds.read(tmp_path / "thresholds.json")


@pytest.mark.parametrize("precision", [0.3, 0.995, 1.0, 90, float("nan")])
def test_a_precision_that_cannot_be_had_is_one_line(precision: float) -> None:
    with pytest.raises(PrecisionError, match=r"^a precision of .* cannot be had: choose 0.5 to 0.99$"):
        AttributePredictor.load("bundled").rule(precision)


@pytest.mark.slow
def test_cross_fitting_counts_every_face_once_an_order() -> None:
    p, truth = calibrated_faces(100, 4)
    logits = np.log(p / (1 - p))
    scores = cross_fitted(logits, truth, at_threshold(0.85))
    assert sum(score.everyone.rows for score in scores) == 600
    table = cross_fitting_table(logits, truth, [at_threshold(0.85), at_precision(0.9)])
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == [
        "p > 0.85",
        "per-attribute thresholds for a precision of 0.9",
    ]


@pytest.mark.models
def test_the_bundled_predictor_gives_labels_for_any_precision() -> None:
    predictor = AttributePredictor.load("bundled")
    p = calibrated_faces(200, 5)[0]
    plain = predictor.labels(p)
    assert plain == predictor.labels(p, precision=0)
    assert plain == [list(found.labels) for found in label_faces(p)]
    counts = [sum(map(len, predictor.labels(p, precision=target))) for target in (0.5, 0.7, 0.9, 0.99)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]
    assert all(set(labels) <= set(ATTRIBUTES) for labels in predictor.labels(p, precision=0.9))
    assert predictor.labels(np.zeros((0, 40)), precision=0.9) == []


@pytest.mark.models
def test_a_checkpoint_without_its_own_thresholds_says_so_and_keeps_the_plain_rule(tmp_path: Path) -> None:
    for name in NEEDED:
        shutil.copy(checkpoint_folder("bundled") / name, tmp_path)
    predictor = AttributePredictor.load(tmp_path)
    p = calibrated_faces(20, 6)[0]
    assert predictor.labels(p) == AttributePredictor.load("bundled").labels(p)
    with pytest.raises(PrecisionError, match=r"has no thresholds\.json.*finishing$"):
        predictor.labels(p, precision=0.9)
    Thresholds.fit(*calibrated_faces(50, 7), "other weights").write(tmp_path / THRESHOLDS)
    with pytest.raises(PrecisionError, match=r"thresholds\.json: of other weights \(other weights\)"):
        predictor.labels(p, precision=0.9)


@pytest.mark.models
@pytest.mark.parametrize("name", ["bundled", "drawn"])
def test_checkpoints_that_come_along_have_thresholds_of_their_own(name: str) -> None:
    """Else FACECAPTION_LABEL_PRECISION would be refused where one of them labels the faces."""
    predictor = AttributePredictor.load(name)
    strict, loose = (predictor.rule(precision).thresholds for precision in (0.95, 0.85))
    assert all(strict[label] >= loose[label] for label in loose)
    assert sum(loose.values()) < sum(strict.values())
