"""What a check found is one sentence with its numbers, whether it passes or not."""

from __future__ import annotations

import polars as pl
import pytest

from facecaption_assets.checks import benchmarks, statistics, tables
from facecaption_assets.factories.check import Check
from facecaption_assets.factories.whole_dataset import complete
from facecaption_ml.benchmarks.result import BenchmarkResult, Measurement
from facecaption_ml.schemas import empty

WHOLE = tables.conserved("faces_conserved", 200, 198, {"too_few_labels": 2}, "crops")
LOST = tables.conserved("faces_conserved", 200, 190, {"too_few_labels": 2}, "crops")


def result(value: float | None) -> BenchmarkResult:
    measured = [Measurement("1 %", "accuracy", value, why="" if value is not None else "one class only")]
    return BenchmarkResult(
        "attributes", "flip", "sample", measured, {"majority class": [Measurement("1 %", "accuracy", 0.825)]}
    )


@pytest.mark.parametrize(
    ("check", "passed", "found"),
    [
        (WHOLE, True, "200 crops = 198 kept + 2 dropped by reason"),
        (LOST, False, "200 crops, but 190 kept + 2 dropped by reason: +8 not accounted for"),
        (tables.beats_majority(0.812, 0.825), False, "the mean accuracy 81.2% is 1.3 points under the majority class, 82.5%"),
        (tables.beats_majority(0.9, 0.825), True, "the mean accuracy 90.0% is 7.5 points above the majority class, 82.5%"),
        (tables.calibrated(0.9, 0.85, 0.95), True, "90.0% of the labels with a probability of 85% to 95% are right"),
        (tables.calibrated(None, 0.85, 0.95), False, "no held-out label has a probability of 85% to 95%"),
        (tables.acceptance(94, 168, 0.5), True, "94 of 168 captions are the LLM's, 56.0%: at or above the floor of 50%"),
        (tables.acceptance(0, 168, 0.5, asked=False), True, "no language model was asked: 168 template captions stay"),
        (tables.acceptance(10, 168, 0.5), False, "10 of 168 captions are the LLM's, 6.0%: under the floor of 50%"),
        (
            tables.unique(pl.DataFrame({"face_id": ["a", "b", "b"]}), "face_id", "unique_faces"),
            False,
            "1 of 2 values of face_id occur once; others do not, such as b",
        ),
        (tables.no_conflicts(empty("face_attributes")), True, "0 of 0 faces carry no two labels that contradict each other"),
        (
            benchmarks.above_baselines([result(0.812)]),
            False,
            "1 of 1 numbers do not exceed what learns nothing: 1 % accuracy of flip on sample is 81.2%, "
            "1.3 points under majority class (82.5%)",
        ),
        (benchmarks.above_baselines([result(0.9)]), True, "all 1 numbers with a baseline exceed it"),
        (benchmarks.defined([result(None)]), False, "1 of 1 numbers are not defined: sample, 1 % accuracy: one class only"),
        (complete([]), True, "all models and folders that the settings can name were there"),
        (
            complete(["FACECAPTION_CLIP is not set", "no BRISQUE"]),
            False,
            "2 missing: FACECAPTION_CLIP is not set",
        ),
        (
            statistics.shares_sum_to_one(
                pl.DataFrame({"labels": [3, 1], "share": [0.75, 0.5]}),
                pl.DataFrame({"source": ["caption"], "share": [1.0]}),
            ),
            False,
            "1 of 2 distributions sum to 1; not labels sums to 1.25",
        ),
    ],
)  # fmt: skip
def test_a_check_says_what_it_found(check: Check, passed: bool, found: str) -> None:
    assert (check.passed, check.found) == (passed, found)
    assert check.result().description == found
    assert check.evaluation("face_crops", "shard-00000").description == found


def test_what_offends_is_cut_where_it_is_long() -> None:
    url = f"data:image/png;base64,{'A' * 9000}"
    row = {"url": url, "status": "ok", "image_bytes": None, "sha256": None, "width": 1, "height": 1, "error": None}
    raw = pl.DataFrame([row], schema_overrides={"image_bytes": pl.Int64, "sha256": pl.String, "error": pl.String})
    check = tables.failures_explained(raw)
    assert not check.passed
    assert check.found.endswith("others do not, such as data:image/png,… (9,022 characters)")
    assert len(str(check.metadata)) < 300
