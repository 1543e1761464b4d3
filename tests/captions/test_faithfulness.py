"""The faithfulness check against sentences written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from facecaption_ml.captions import Faithfulness, check_faithful
from facecaption_ml.captions.labels import BIT

CASES = [
    json.loads(line) for line in Path(__file__).with_name("rewrites.jsonl").read_text(encoding="utf-8").splitlines()
]


def in_order(names):
    return tuple(sorted(names, key=list(BIT).index))


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{case['text'][:40]}" for i, case in enumerate(CASES, 1)])
def test_hand_written_rewrite(case):
    found = check_faithful(case["text"], case["labels"], case["gender"])
    assert found.missing == in_order(case.get("missing", ()))
    assert found.invented == in_order(case.get("invented", ()))
    assert found.denied == in_order(case.get("denied", ()))
    assert found.faithful == (not {"missing", "invented", "denied"} & set(case))


def test_the_list_is_long_and_has_both_kinds():
    unfaithful = sum(bool({"missing", "invented", "denied"} & set(case)) for case in CASES)
    assert len(CASES) >= 120
    assert 30 <= unfaithful <= len(CASES) - 30


def test_names_come_in_celeba_order():
    result = check_faithful("A man in a hat.", ["Young", "Bald"], "female")
    assert result == Faithfulness(missing=("Bald", "Young", "Female"), invented=("Male", "Wearing_Hat"))
    assert not result.faithful


def test_no_text_asserts_nothing():
    assert check_faithful("", [], None).faithful
    assert check_faithful("", ["Bald"], None).missing == ("Bald",)
    assert check_faithful("\n ...,,; —", ["Bald"], None).missing == ("Bald",)


def test_labels_are_checked():
    with pytest.raises(ValueError, match="Red_Hair"):
        check_faithful("", ["Red_Hair"], None)
    with pytest.raises(ValueError, match="female"):
        check_faithful("", ["Male"], "female")
