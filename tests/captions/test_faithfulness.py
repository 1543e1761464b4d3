"""The faithfulness check against sentences written by hand; ``pytest -s`` prints precision and recall."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from facecaption_ml.captions import Faithfulness, check_faithful
from facecaption_ml.captions.labels import BIT, label_bits, names_of

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


def test_precision_and_recall():
    right = found_wrongly = not_found = 0
    for case in CASES:
        known = set(names_of(label_bits(case["labels"], case["gender"])))
        truth = known - set(case.get("missing", ())) | set(case.get("invented", ()))
        result = check_faithful(case["text"], case["labels"], case["gender"])
        found = known - set(result.missing) | set(result.invented)
        right += len(truth & found)
        found_wrongly += len(found - truth)
        not_found += len(truth - found)
    precision, recall = right / (right + found_wrongly), right / (right + not_found)
    print(f"\n{len(CASES)} sentences, asserted attributes: precision {precision:.3f}, recall {recall:.3f}")  # noqa: T201
    assert len(CASES) >= 120
    assert min(precision, recall) >= 0.97


def test_the_list_has_both_kinds():
    unfaithful = sum(bool({"missing", "invented", "denied"} & set(case)) for case in CASES)
    assert unfaithful >= 30
    assert len(CASES) - unfaithful >= 30


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
