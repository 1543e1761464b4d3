from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from facecaption_ml.attributes import FaceOutcome, label_faces
from facecaption_ml.taxonomy import ATTRIBUTES, FEMALE, settle_conflicts

MALE = ATTRIBUTES.index("Male")


def row(**probabilities: float) -> np.ndarray:
    p = np.full((1, 40), 0.5)
    for name, value in probabilities.items():
        p[0, ATTRIBUTES.index(name)] = value
    return p


def test_only_what_exceeds_the_threshold_is_a_label() -> None:
    (found,) = label_faces(row(Smiling=0.851, Young=0.85, Big_Nose=0.849))
    assert found.labels == ("Smiling",)
    assert found.gender is None


def test_gender_is_known_at_both_ends_and_counts_as_a_label() -> None:
    assert label_faces(row(Male=0.86))[0].gender == "male"
    (woman,) = label_faces(row(Male=0.14, Smiling=0.9))
    assert (woman.gender, woman.labels) == ("female", ("Smiling",))
    for unsure in (0.15, 0.5, 0.85):
        assert label_faces(row(Male=unsure))[0].gender is None


def test_more_than_five_labels_are_needed() -> None:
    five = dict.fromkeys(["Smiling", "Young", "Big_Nose", "Eyeglasses", "Chubby"], 0.9)
    assert label_faces(row(**five))[0].outcome is FaceOutcome.TOO_FEW_LABELS
    assert label_faces(row(**five, Male=0.1))[0].outcome is FaceOutcome.KEPT
    assert label_faces(row(**five, Bald=0.9))[0].outcome is FaceOutcome.KEPT


def test_a_contradiction_is_settled_before_labels_are_counted() -> None:
    names = ["Smiling", "Young", "Big_Nose", "Eyeglasses"]
    (found,) = label_faces(row(**dict.fromkeys(names, 0.9), Black_Hair=0.9, Brown_Hair=0.95))
    assert found.dropped_conflicts == ("Black_Hair",)
    assert "Brown_Hair" in found.labels
    assert found.outcome is FaceOutcome.TOO_FEW_LABELS


@given(arrays(np.float64, (3, 40), elements=st.floats(0, 1)))
def test_labels_never_contradict_and_never_guess(p: np.ndarray) -> None:
    for probabilities, found in zip(p, label_faces(p), strict=True):
        names = [*found.labels, *([FEMALE] if found.gender == "female" else [])]
        assert settle_conflicts(names)[1] == []
        assert ("Male" in found.labels) == (found.gender == "male")
        assert all(probabilities[ATTRIBUTES.index(name)] > 0.85 for name in found.labels)
        assert (found.outcome is FaceOutcome.KEPT) == (len(found.labels) + (found.gender == "female") > 5)
