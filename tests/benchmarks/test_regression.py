"""What counts as worse than before, what cannot be compared, and that a snapshot gives back what it was taken of."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecaption_ml.benchmarks.report.regression import Regressions, from_snapshot, regressions, snapshot
from facecaption_ml.benchmarks.result import BenchmarkResult, Measurement
from facecaption_ml.errors import FaceCaptionError


def result(
    value: float | None, spread: float | None = None, version: str = "a", model: str = "flip"
) -> BenchmarkResult:
    """A result with one number."""
    measured = Measurement(
        "1 %", "accuracy", value, spread, 3 if spread else 1, "" if value is not None else "one class"
    )
    return BenchmarkResult("attributes", model, "celeba", [measured], {}, versions={"data": version})


def test_a_fall_of_more_than_the_tolerance_is_one_line() -> None:
    found = regressions([result(0.9)], [result(0.88)], 0.01)
    assert found == Regressions(
        ["attributes, celeba, flip, 1 %, accuracy: 90.00 before, 88.00 now, 2.00 points lower, more than 1.00"], []
    )


def test_a_fall_of_the_tolerance_itself_or_a_rise_is_none() -> None:
    for before, now in ((0.9, 0.89), (0.3, 0.29), (0.1 + 0.2, 0.3 - 0.01), (0.5, 0.9)):
        assert regressions([result(before)], [result(now)], 0.01) == Regressions([], [])


def test_a_fall_within_two_standard_deviations_is_none() -> None:
    before, now = result(0.90, 0.03), result(0.81, 0.04)  # √(0.03² + 0.04²) = 0.05
    assert regressions([before], [now], 0.01).worse == []
    assert len(regressions([before], [result(0.79, 0.04)], 0.01).worse) == 1
    assert len(regressions([before], [result(0.81)], 0.01).worse) == 1


def test_what_is_no_longer_defined_or_measured_is_worse() -> None:
    now = replace(result(0.9), measurements=[])
    assert (
        regressions([result(0.9)], [result(None)], 1.0).worse[0].endswith("90.00 before, not defined now (one class)")
    )
    assert regressions([result(0.9)], [now], 1.0).worse[0].endswith("90.00 before, not measured any more")
    assert regressions([result(None)], [now], 0.0).worse == []
    assert regressions([result(None)], [result(0.5)], 0.0).worse == []


def test_what_was_not_measured_again_is_no_regression() -> None:
    assert regressions([result(0.9)], [result(0.1, model="clip")], 0.0) == Regressions([], [])


def test_other_data_is_not_comparable() -> None:
    found = regressions([result(0.9)], [result(0.1, version="b")], 0.0)
    assert found == Regressions([], ["attributes, celeba, flip: data version a before, b now"])
    unknown = replace(result(0.1), versions={})
    assert regressions([result(0.9)], [unknown], 0.0).not_comparable[0].endswith("a before, unknown now")


def test_a_result_twice_and_a_negative_tolerance_are_named() -> None:
    with pytest.raises(FaceCaptionError, match="benchmarks/attributes/celeba/flip stands twice in now"):
        regressions([result(0.9)], [result(0.9), result(0.8)], 0.0)
    for tolerance in (-0.1, float("nan")):
        with pytest.raises(FaceCaptionError, match="tolerance"):
            regressions([], [], tolerance)


shares = st.floats(0, 1)
spreads = st.none() | st.floats(0, 0.2)


@given(shares, shares, spreads, spreads, st.floats(0, 0.5))
def test_never_better_and_worse_at_once(a: float, b: float, s: float | None, t: float | None, tolerance: float) -> None:
    there = regressions([result(a, s)], [result(b, t)], tolerance).worse
    back = regressions([result(b, t)], [result(a, s)], tolerance).worse
    allowed = max(tolerance, 2 * ((s or 0) ** 2 + (t or 0) ** 2) ** 0.5)
    assert len(there) + len(back) <= 1
    if abs(abs(a - b) - allowed) > 1e-9:
        assert (len(there), len(back)) == (int(a - b > allowed), int(b - a > allowed))


def test_a_snapshot_gives_back_every_result_whatever_their_order() -> None:
    results = [
        replace(result(0.9, 0.01), notes=["a note"], curves={"m@A": [(1.0, 0.5), (50.0, 0.75)]}, counts={"test": 7}),
        replace(result(None, model="☃ <b>"), baselines={"chance": [Measurement("1 %", "accuracy", 0.5)]}),
    ]
    taken = snapshot(results)
    assert taken == snapshot(results[::-1])
    assert sorted(r.as_json() for r in from_snapshot(taken)) == sorted(r.as_json() for r in results)
    assert from_snapshot(taken)[0].curves == {"m@A": [(1.0, 0.5), (50.0, 0.75)]}
    assert snapshot(from_snapshot(taken)) == taken
    assert regressions(results, from_snapshot(taken), 0.0) == Regressions([], [])


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d[: len(d) // 2],
        lambda d: b"[]",
        lambda d: b"{}",
        lambda d: d.replace(b'"format": 1', b'"format": 2'),
        lambda d: d.replace(b'"value": 0.9', b'"value": NaN'),
        lambda d: json.dumps({"format": 1, "results": ["x"]}).encode(),
    ],
)
def test_a_damaged_snapshot_is_named(damage) -> None:  # type: ignore[no-untyped-def]
    whole = snapshot([result(0.9)])
    assert damage(whole) != whole
    with pytest.raises(FaceCaptionError, match="no snapshot of benchmark results"):
        from_snapshot(damage(whole))
