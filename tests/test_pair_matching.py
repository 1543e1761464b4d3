"""The area under the ROC curve against counting every two scores; mismatched pairs are drawn, wrong, and the same each time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml.pair_matching import area_under_curve, mismatched

SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=12)


@given(SCORES, SCORES)
@examples(60)
def test_the_area_is_the_share_of_two_scores_in_the_right_order(true: list[int], false: list[int]) -> None:
    counted = [1.0 if a > b else 0.5 if a == b else 0.0 for a in true for b in false]
    assert area_under_curve(true, false) == pytest.approx(np.mean(counted))


def test_scores_that_are_missing_or_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="0 true and 2 false scores"):
        area_under_curve([], [1, 2])
    with pytest.raises(ValueError, match="finite"):
        area_under_curve([np.nan], [1])


@given(st.lists(st.integers(0, 3), max_size=20), st.integers(0, 99))
@examples(60)
def test_no_text_is_the_pictures_own_or_one_with_the_same_words(groups: list[int], seed: int) -> None:
    pictures, texts = mismatched(groups, each=3, seed=seed)
    numbered = np.asarray(groups, np.int64)
    assert (numbered[pictures] != numbered[texts]).all()
    expected = 3 * len(groups) if len(set(groups)) > 1 else 0
    assert len(pictures) == len(texts) == expected
    assert (np.bincount(pictures, minlength=1) == 3).all() or not expected
    again = mismatched(groups, each=3, seed=seed)
    assert (again[0] == pictures).all()
    assert (again[1] == texts).all()
