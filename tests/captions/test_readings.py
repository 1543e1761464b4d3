"""What the reader finds in sentences written to mislead it: attributes asserted and denied."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from facecaption_ml.captions import check_faithful, find_attributes

CASES = [
    json.loads(line) for line in Path(__file__).with_name("readings.jsonl").read_text(encoding="utf-8").splitlines()
]


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{case['text'][:40]}" for i, case in enumerate(CASES, 1)])
def test_reading(case: dict) -> None:
    found = tuple(map(set, find_attributes(case["text"])))
    right = found == (set(case["asserted"]), set(case["denied"]))
    assert right != case.get("misread", False), found  # some are read wrong, and known to be


def test_the_list_is_long_and_the_reader_is_right() -> None:
    pairs = [(set(sum(find_attributes(c["text"]), ())), {*c["asserted"], *c["denied"]}) for c in CASES]
    right = sum(len(found & wanted) for found, wanted in pairs)
    assert len(CASES) >= 240
    assert right / sum(len(found) for found, _ in pairs) >= 0.97
    assert right / sum(len(wanted) for _, wanted in pairs) >= 0.97


def test_a_womans_missing_beard_need_not_be_said() -> None:
    labels = ["No_Beard", "Smiling"]
    assert check_faithful("A smiling woman.", labels, "female").faithful
    assert check_faithful("A smiling woman with no beard.", labels, "female").faithful
    assert check_faithful("A smiling man.", labels, "male").missing == ("No_Beard",)
    assert check_faithful("A smiling person.", labels, None).missing == ("No_Beard",)
    assert check_faithful("A smiling woman with a beard.", labels, "female").missing == ("No_Beard",)
