"""From 40 probabilities to the labels of a face (spec §1): thresholds, gender, contradictions, and who is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from facecaption_ml.taxonomy import ATTRIBUTES, FEMALE, Gender, settle_conflicts

PAPER_THRESHOLD: Final = 0.85
"""The probability above which an attribute is a label (paper §3.2)."""


class FaceOutcome(StrEnum):
    """What becomes of a crop in the attribute stage."""

    KEPT = "kept"
    TOO_FEW_LABELS = "too_few_labels"
    UNDECODABLE = "undecodable"


@dataclass(frozen=True)
class FaceLabels:
    """The labels of one face: positive attributes in CelebA's order, and what contradicted them."""

    gender: Gender | None
    labels: tuple[str, ...]
    dropped_conflicts: tuple[str, ...]
    outcome: FaceOutcome


def label_faces(
    probabilities: np.ndarray | Sequence[Sequence[float]], threshold: float = PAPER_THRESHOLD, min_labels: int = 6
) -> list[FaceLabels]:
    """Labels of each row of ``probabilities`` (float [N, 40], calibrated, in the order of ``ATTRIBUTES``).

    A valid label is an attribute with p > ``threshold``; gender is male above it, female where p(not Male) exceeds it, else
    unknown. Contradictions go to the likelier side. Faces with fewer than ``min_labels`` valid labels are not kept (the
    paper keeps those with more than five).
    """
    male = ATTRIBUTES.index("Male")
    faces = []
    for row in np.asarray(probabilities, dtype=np.float64):
        likely = {name: float(p) for name, p in zip(ATTRIBUTES, row, strict=True) if p > threshold}
        if 1 - row[male] > threshold:
            likely[FEMALE] = 1 - float(row[male])
        kept, dropped = settle_conflicts(likely, likely)
        gender: Gender | None = "male" if "Male" in kept else "female" if FEMALE in kept else None
        labels = tuple(name for name in kept if name != FEMALE)
        valid = len(labels) + (gender == "female")  # a known female gender counts as one, as Male does
        outcome = FaceOutcome.KEPT if valid >= min_labels else FaceOutcome.TOO_FEW_LABELS
        faces.append(FaceLabels(gender, labels, tuple(dropped), outcome))
    return faces
