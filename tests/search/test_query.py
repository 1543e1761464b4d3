"""Descriptions read into labels, and faces scored by their probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.search.query import Query, best, combined, read_query
from facecaption_ml.taxonomy import ATTRIBUTES


def probabilities(*faces: dict[str, float]) -> np.ndarray:
    """Faces with the given probabilities, and 0.5 for all else."""
    rows = np.full((len(faces), len(ATTRIBUTES)), 0.5, np.float32)
    for row, face in zip(rows, faces, strict=True):
        for name, value in face.items():
            row[ATTRIBUTES.index(name)] = value
    return rows


@pytest.mark.parametrize(
    ("text", "wanted", "unwanted"),
    [
        ("a bald man with a mustache", {"Bald", "Male", "Mustache"}, set()),
        ("a smiling woman with blond hair and glasses", {"Smiling", "Female", "Blond_Hair", "Eyeglasses"}, set()),
        ("a man without glasses", {"Male"}, {"Eyeglasses"}),
        ("a woman who is not smiling", {"Female"}, {"Smiling"}),
        ("a young man with no beard", {"Male", "Young", "No_Beard"}, set()),
        ("someone in front of a window", set(), set()),
    ],
)
def test_a_description_is_read_into_labels(text: str, wanted: set[str], unwanted: set[str]) -> None:
    query = read_query(text)
    assert set(query.wanted) == wanted
    assert set(query.unwanted) == unwanted
    assert query.is_empty == (not wanted and not unwanted)


def test_a_man_with_a_beard_is_one_without_no_beard() -> None:
    assert "No_Beard" in read_query("a man with a beard").unwanted
    assert "No_Beard" in read_query("a man with facial hair").unwanted


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_an_empty_description_is_refused(text: str) -> None:
    with pytest.raises(FaceCaptionError, match="the description is empty"):
        read_query(text)


def test_a_description_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(FaceCaptionError, match="wants Eyeglasses and does not"):
        read_query("a woman with glasses. She wears no glasses.")


def test_a_score_is_the_log_probability_of_all_that_is_asked() -> None:
    faces = probabilities({"Bald": 0.9, "Male": 0.8, "Smiling": 0.3})
    found = Query(("Bald", "Male"), ("Smiling",)).scores(faces)
    assert found.dtype == np.float32
    assert found == pytest.approx([math.log(0.9 * 0.8 * 0.7)], rel=1e-5)
    assert Query(("Female",), ()).scores(faces) == pytest.approx([math.log(0.2)], rel=1e-5)
    assert Query((), ()).scores(faces) == pytest.approx([0.0])


def test_certainty_of_one_label_does_not_outweigh_all_others() -> None:
    """The predictor says 0 of a label that the face has: what fits otherwise still stands above what fits nothing."""
    faces = probabilities({"Bald": 0.0, "Male": 1.0, "Mustache": 1.0}, {"Bald": 0.0, "Male": 0.0, "Mustache": 0.0})
    scores = Query(("Bald", "Male", "Mustache"), ()).scores(faces)
    assert bool(np.isfinite(scores).all())
    assert scores[0] > scores[1]


def test_a_table_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[N, 40\], here \[2, 3\]"):
        Query(("Bald",), ()).scores(np.zeros((2, 3)))


@given(st.lists(st.floats(-50, 0, width=32), min_size=1, max_size=20), st.integers(1, 25))
@examples(60)
def test_the_best_come_first_and_ties_in_order(scores: list[float], k: int) -> None:
    found = best(np.array(scores, np.float32), k).tolist()
    assert found == sorted(range(len(scores)), key=lambda place: (-np.float32(scores[place]), place))[:k]


def test_two_kinds_of_scores_count_alike_whatever_their_scale() -> None:
    draw = np.random.default_rng(0)
    labels, similarity = draw.normal(size=50).astype(np.float32), draw.normal(size=50).astype(np.float32)
    found = combined(labels, similarity)
    assert np.array_equal(best(found, 50), best(combined(1000 * labels - 7, similarity), 50))
    assert combined(np.zeros(5, np.float32), similarity[:5]).argmax() == similarity[:5].argmax()


def test_every_denied_label_is_shown_as_denied() -> None:
    assert str(read_query("a bald man, not smiling, no glasses")) == "Bald, Male, not Eyeglasses, not Smiling"
