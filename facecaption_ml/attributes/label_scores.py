"""How good the labels are that a rule gives on held-out faces: how many, how often right, for whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from facecaption_ml.attributes.labels import FaceOutcome, LabelRule, label_faces
from facecaption_ml.taxonomy import ATTRIBUTES, FEMALE, NAMES

EVERYONE: Final = "everyone"
_MALE, _YOUNG = ATTRIBUTES.index("Male"), ATTRIBUTES.index("Young")


@dataclass(frozen=True)
class LabelFigures:
    """The labels of some faces under a rule; a known gender counts as a label, contradictions are settled.

    ``kept``: the share of the faces with more than five labels. ``precision``: of the labels, the share that is right; None
    where there is no label.
    """

    rows: int
    per_face: float
    kept: float
    precision: float | None


@dataclass(frozen=True)
class LabelScore:
    """What a rule gives: on everyone and on each group of faces, and for each attribute how many labels, how many right."""

    rule: str
    target: float  # the precision that the rule is for; 0: it is one threshold for all
    groups: Mapping[str, LabelFigures]
    asserted: Mapping[str, tuple[int, int]]

    @property
    def everyone(self) -> LabelFigures:
        return self.groups[EVERYONE]

    def precision_of(self, name: str) -> float | None:
        count, right = self.asserted[name]
        return right / count if count else None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelScore:
        groups = {name: LabelFigures(**figures) for name, figures in values["groups"].items()}
        asserted = {name: (int(pair[0]), int(pair[1])) for name, pair in values["asserted"].items()}
        return cls(values["rule"], values["target"], groups, asserted)


def groups_of_faces(labels: np.ndarray) -> dict[str, np.ndarray]:
    """bool [N] for each group that CelebA's own labels (bool [N, 40]) can tell: gender, age, and both together."""
    male, young = labels[:, _MALE], labels[:, _YOUNG]
    return {
        EVERYONE: np.ones(len(labels), bool),
        "women": ~male,
        "men": male,
        "young": young,
        "not young": ~young,
        "young women": ~male & young,
        "young men": male & young,
        "women, not young": ~male & ~young,
        "men, not young": male & ~young,
    }


def asserted_labels(probabilities: np.ndarray, rule: LabelRule) -> np.ndarray:
    """bool [N, 41] in the order of ``taxonomy.NAMES``: the labels of each face, Female where that is the gender."""
    place = {name: i for i, name in enumerate(NAMES)}
    found = np.zeros((len(probabilities), len(NAMES)), bool)
    for row, face in enumerate(label_faces(probabilities, rule)):
        found[row, [place[name] for name in face.labels]] = True
        found[row, place[FEMALE]] = face.gender == "female"
    return found


def score_labels(probabilities: np.ndarray, labels: np.ndarray, rule: LabelRule) -> LabelScore:
    """The labels that ``rule`` gives for ``probabilities`` [N, 40], against ``labels`` bool [N, 40]."""
    asserted = asserted_labels(probabilities, rule)
    truth = np.c_[labels, ~labels[:, _MALE]]
    kept = np.array([face.outcome is FaceOutcome.KEPT for face in label_faces(probabilities, rule)], bool)
    groups = {
        name: _figures(asserted[members], truth[members], kept[members])
        for name, members in groups_of_faces(labels).items()
        if members.any()
    }
    right = asserted & truth
    counts = {name: (int(asserted[:, i].sum()), int(right[:, i].sum())) for i, name in enumerate(NAMES)}
    return LabelScore(rule.words, rule.precision, groups, counts)


def _figures(asserted: np.ndarray, truth: np.ndarray, kept: np.ndarray) -> LabelFigures:
    total = int(asserted.sum())
    precision = float((asserted & truth).sum() / total) if total else None
    return LabelFigures(len(asserted), total / len(asserted), float(kept.mean()), precision)
