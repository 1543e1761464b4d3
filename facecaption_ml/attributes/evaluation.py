"""How good a predictor is on held-out crops: accuracy, average precision and calibration, and the labels of each rule."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from facecaption_ml.attributes.calibration import expected_calibration_error, share_right_between
from facecaption_ml.attributes.label_scores import LabelScore, groups_of_faces, score_labels
from facecaption_ml.attributes.labels import PAPER_THRESHOLD, LabelRule
from facecaption_ml.storage.local_files import write_file
from facecaption_ml.taxonomy import ATTRIBUTES


@dataclass(frozen=True)
class AttributeScore:
    """One attribute on the test split. Undefined values (one class only, nothing above the threshold) are None."""

    name: str
    positives: float  # share of positives
    accuracy: float
    majority: float  # accuracy of always answering the training split's majority
    balanced_accuracy: float | None
    average_precision: float | None
    calibration_error: float
    precision_above: float | None  # of the labels given p > the threshold, the share that is right


@dataclass(frozen=True)
class ReliabilityBin:
    """The answers with a probability of at most ``high`` and above ``low``: how many, what they claim, and what is true.

    ``claimed`` is their mean probability, ``right`` the share of positives among them; both are None where there are none.
    """

    low: float
    high: float
    answers: int
    claimed: float | None
    right: float | None


@dataclass(frozen=True)
class Evaluation:
    """Scores of all attributes on one test split, and what they are scores of.

    ``threshold``: above it an attribute is a label. ``precision_above``: of all labels, the share that is right;
    ``share_right_in_band``: of those with a probability within ``band``. ``reliability``: all answers for all attributes by
    their probability. ``label_scores``: the labels that each rule gives, the plain threshold's first; contradictions are
    settled, gender is among them. ``group_accuracy``: of the groups of faces that the labels can tell, the mean accuracy.
    What an evaluation of an earlier version did not measure is empty.
    """

    data: str
    rows: int
    version: str
    scores: tuple[AttributeScore, ...]
    share_right_in_band: float | None
    precision_above: float | None
    threshold: float = PAPER_THRESHOLD
    reliability: tuple[ReliabilityBin, ...] = ()
    label_scores: tuple[LabelScore, ...] = ()
    group_accuracy: Mapping[str, float] = field(default_factory=dict)

    @property
    def band(self) -> tuple[float, float]:
        """From the threshold over two thirds of what lies above it: 0.85 to 0.95."""
        return confidence_band(self.threshold)

    @property
    def mean_accuracy(self) -> float:
        return float(np.mean([score.accuracy for score in self.scores]))

    @property
    def majority_accuracy(self) -> float:
        return float(np.mean([score.majority for score in self.scores]))

    @property
    def mean_average_precision(self) -> float:
        """Over the attributes that have both classes."""
        return float(np.mean([s.average_precision for s in self.scores if s.average_precision is not None]))

    def write(self, path: Path) -> None:
        write_file(path, json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if "share_right_85_95" in values:  # files of version 0.1
            values["share_right_in_band"] = values.pop("share_right_85_95")
        read: dict[str, Any] = {
            "scores": tuple(AttributeScore(**score) for score in values["scores"]),
            "reliability": tuple(ReliabilityBin(**bin) for bin in values.get("reliability", ())),
            "label_scores": tuple(LabelScore.from_dict(score) for score in values.get("label_scores", ())),
        }
        return cls(**{**values, **read})


def confidence_band(threshold: float) -> tuple[float, float]:
    """The probabilities of labels that are not quite certain."""
    return threshold, round(threshold + (1 - threshold) * 2 / 3, 4)


def evaluate(
    probabilities: np.ndarray,
    labels: np.ndarray,
    train_positive_share: np.ndarray,
    data: str,
    version: str,
    threshold: float = PAPER_THRESHOLD,
    rules: Sequence[LabelRule] = (),
) -> Evaluation:
    """Scores of ``probabilities`` [N, 40] against ``labels`` bool [N, 40].

    ``train_positive_share`` [40] decides the majority answer, so that the baseline does not look at the test split. Labels
    are scored under ``threshold`` and under each of ``rules``.
    """
    scores = tuple(
        _score(name, probabilities[:, i], labels[:, i], bool(train_positive_share[i] > 0.5), threshold)
        for i, name in enumerate(ATTRIBUTES)
    )
    return Evaluation(
        data,
        len(labels),
        version,
        scores,
        _defined(share_right_between(probabilities, labels, *confidence_band(threshold))),
        _defined(share_right_between(probabilities, labels, threshold, 1.0)),
        threshold,
        reliability(probabilities, labels),
        tuple(score_labels(probabilities, labels, rule) for rule in (LabelRule.plain(threshold), *rules)),
        {
            name: float(((probabilities > 0.5) == labels)[members].mean())
            for name, members in groups_of_faces(labels).items()
            if members.any()
        },
    )


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = 20) -> tuple[ReliabilityBin, ...]:
    """All answers of ``probabilities`` [N, T] in ``bins`` of equal width, with what ``labels`` bool [N, T] say of them."""
    place = np.minimum(np.ceil(probabilities * bins).astype(int).clip(1) - 1, bins - 1)
    found = []
    for number in range(bins):
        chosen = place == number
        claimed, right = (float(v[chosen].mean()) if chosen.any() else None for v in (probabilities, labels))
        found.append(ReliabilityBin(number / bins, (number + 1) / bins, int(chosen.sum()), claimed, right))
    return tuple(found)


def average_precision(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Area under the precision–recall curve as a step function, tied scores taken together; NaN with one class only."""
    positives = int(labels.sum())
    if positives in (0, len(labels)):
        return float("nan")
    order = np.argsort(-probabilities, kind="stable")
    sorted_p, hits = probabilities[order], np.cumsum(labels[order])
    last = np.flatnonzero(np.append(sorted_p[1:] != sorted_p[:-1], True))  # the end of each group of equal scores
    recall = hits[last] / positives
    precision = hits[last] / (last + 1)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _score(name: str, p: np.ndarray, truth: np.ndarray, majority_is_positive: bool, threshold: float) -> AttributeScore:
    right = (p > 0.5) == truth
    both = truth.any() and not truth.all()
    return AttributeScore(
        name=name,
        positives=float(truth.mean()),
        accuracy=float(right.mean()),
        majority=float((truth == majority_is_positive).mean()),
        balanced_accuracy=float((right[truth].mean() + right[~truth].mean()) / 2) if both else None,
        average_precision=_defined(average_precision(p, truth)),
        calibration_error=expected_calibration_error(p, truth),
        precision_above=_defined(share_right_between(p, truth, threshold, 1.0)),
    )


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value
