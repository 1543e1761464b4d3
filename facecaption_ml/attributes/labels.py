"""From 40 probabilities to the labels of a face (spec §1): the rule, gender, contradictions, and who is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from facecaption_ml.taxonomy import ATTRIBUTES, FEMALE, NAMES, Gender, settle_conflicts

PAPER_THRESHOLD: Final = 0.85
"""The probability above which an attribute is a label (paper §3.2)."""
_MALE: Final = ATTRIBUTES.index("Male")


class FaceOutcome(StrEnum):
    """What becomes of a crop in the attribute stage."""

    KEPT = "kept"
    TOO_FEW_LABELS = "too_few_labels"
    UNDECODABLE = "undecodable"


@dataclass(frozen=True)
class LabelRule:
    """When an attribute is a label: above which probability, for each of ``taxonomy.NAMES``.

    The last of these is ``Female``, whose probability is 1 − p(Male). ``words`` name the rule wherever its labels are shown.
    ``precision`` is the share of its labels that should be right; 0 where the rule is one threshold for all. A threshold of
    1 is never exceeded: the attribute is never a label.
    """

    words: str
    thresholds: Mapping[str, float]
    precision: float = 0.0

    @classmethod
    def plain(cls, threshold: float = PAPER_THRESHOLD) -> LabelRule:
        """One threshold for all, the paper's by default."""
        return cls(f"p > {threshold:g}", dict.fromkeys(NAMES, threshold))

    @property
    def silent(self) -> tuple[str, ...]:
        """The attributes that are never labels."""
        return tuple(name for name in NAMES if self.thresholds[name] >= 1)

    def likely(self, probabilities: Sequence[float]) -> dict[str, float]:
        """Of one face's 40 probabilities in the order of ``ATTRIBUTES``: those that exceed their threshold, by name.

        ``Female`` is among them where 1 − p(Male) exceeds its own. Contradictions are still in it.
        """
        found = {name: p for name, p in zip(ATTRIBUTES, probabilities, strict=True) if p > self.thresholds[name]}
        female = 1 - probabilities[_MALE]
        return {**found, FEMALE: female} if female > self.thresholds[FEMALE] else found

    def to_json(self) -> str:
        """For the metadata of a table: the words, the precision and every threshold."""
        return json.dumps({"rule": self.words, "precision": self.precision, "thresholds": dict(self.thresholds)})

    @classmethod
    def from_json(cls, text: str) -> LabelRule:
        """Raises ValueError or KeyError where ``text`` is not what ``to_json`` gives."""
        values = json.loads(text)
        return cls(values["rule"], {name: float(values["thresholds"][name]) for name in NAMES}, values["precision"])


RULE_NOTE: Final = "label_rule"
"""The note in each file of ``face_attributes`` that says which rule made its labels (``LabelRule.to_json``)."""
PAPER_RULE: Final = LabelRule.plain()
"""p > 0.85 for every attribute."""


@dataclass(frozen=True)
class FaceLabels:
    """The labels of one face: positive attributes in CelebA's order, and what contradicted them."""

    gender: Gender | None
    labels: tuple[str, ...]
    dropped_conflicts: tuple[str, ...]
    outcome: FaceOutcome


def label_faces(
    probabilities: np.ndarray | Sequence[Sequence[float]], rule: LabelRule = PAPER_RULE, min_labels: int = 6
) -> list[FaceLabels]:
    """Labels of each row of ``probabilities`` (float [N, 40], calibrated, in the order of ``ATTRIBUTES``).

    A valid label is an attribute whose probability exceeds its threshold under ``rule``; gender is male where p(Male) does,
    female where 1 − p(Male) exceeds the one of Female, else unknown. Contradictions go to the likelier side, whatever the
    thresholds. Faces with fewer than ``min_labels`` valid labels are not kept (the paper keeps those with more than five).
    """
    faces = []
    for row in np.asarray(probabilities, dtype=np.float64).tolist():
        likely = rule.likely(row)
        kept, dropped = settle_conflicts(likely, likely)
        gender: Gender | None = "male" if "Male" in kept else "female" if FEMALE in kept else None
        labels = tuple(name for name in kept if name != FEMALE)
        valid = len(labels) + (gender == "female")  # a known female gender counts as one, as Male does
        outcome = FaceOutcome.KEPT if valid >= min_labels else FaceOutcome.TOO_FEW_LABELS
        faces.append(FaceLabels(gender, labels, tuple(dropped), outcome))
    return faces
