from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecaption_ml.taxonomy import ATTRIBUTES, CATEGORIES, EXCLUSIVE_GROUPS, FEMALE, settle_conflicts

labels = st.sets(st.sampled_from([*ATTRIBUTES, FEMALE]))
probabilities = st.fixed_dictionaries({name: st.floats(0.85, 1.0) for name in [*ATTRIBUTES, FEMALE]})


def test_five_categories_cover_the_40_attributes_once() -> None:
    assert sorted(name for group in CATEGORIES.values() for name in group) == sorted(ATTRIBUTES)
    assert len(ATTRIBUTES) == 40


@given(labels, probabilities)
def test_what_is_kept_is_consistent_and_nothing_is_lost(given_labels: set[str], p: dict[str, float]) -> None:
    kept, dropped = settle_conflicts(given_labels, p)
    assert sorted(kept + dropped) == sorted(given_labels)
    for group in EXCLUSIVE_GROUPS:
        assert len(set(group) & set(kept)) <= 1
    assert settle_conflicts(kept, p) == (kept, [])


@given(labels, probabilities)
def test_a_dropped_label_lost_against_a_likelier_one(given_labels: set[str], p: dict[str, float]) -> None:
    kept, dropped = settle_conflicts(given_labels, p)
    for name in dropped:
        rivals = {other for group in EXCLUSIVE_GROUPS if name in group for other in group} & set(kept)
        assert any(p[rival] >= p[name] for rival in rivals)


def test_the_likelier_of_two_hair_colours_stays() -> None:
    p = {"Black_Hair": 0.9, "Brown_Hair": 0.95}
    assert settle_conflicts(p, p) == (["Brown_Hair"], ["Black_Hair"])


def test_an_unknown_label_is_named() -> None:
    with pytest.raises(ValueError, match="Purple_Hair"):
        settle_conflicts(["Purple_Hair"])
