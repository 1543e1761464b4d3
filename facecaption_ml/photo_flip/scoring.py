"""Descriptions against faces in three ways: by the labels that they name, by FLIP, and by both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from facecaption_ml.ranking import ranks, recall_of_ranks, reciprocal_of_ranks
from facecaption_ml.search.query import Query, combined, read_query
from facecaption_ml.taxonomy import ATTRIBUTES, FEMALE

WEIGHTS: Final = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
"""Of FLIP's scores beside those of labels, of which one is chosen on the validation split."""
TOP: Final = 8
_KS: Final = (1, 5, 10)
Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class WayResult:
    """Full captions: R@1, R@5, R@10 and mean reciprocal rank of the caption's own face. Short ones: of the labels that they
    name and deny, the share that is true of the best eight faces. 0 … 1 all."""

    recalls: tuple[float, ...]
    reciprocal_rank: float
    right: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Asked:
    """Queries and how well N faces fit each, by labels and by FLIP: float32 [Q, N] both."""

    queries: Sequence[Query]
    labels: Matrix
    flip: Matrix

    def by(self, way: str, weight: float = 1.0) -> Matrix:
        """The scores by ``labels``, ``flip`` or ``both``."""
        if way != "both":
            return self.labels if way == "labels" else self.flip
        return np.stack([combined(own, flip, weight) for own, flip in zip(self.labels, self.flip, strict=True)])


def asked(texts: Sequence[str], probabilities: Matrix, text_features: Matrix, image_features: Matrix) -> Asked:
    """``texts`` with their features [Q, D], and faces with probabilities [N, 40] and features [N, D]."""
    queries = [read_query(text) for text in texts]
    return Asked(
        queries, np.stack([query.scores(probabilities) for query in queries]), text_features @ image_features.T
    )


def measure(
    full: Asked, short: Asked, groups: npt.ArrayLike, truth: npt.NDArray[np.bool_], way: str, weight: float
) -> WayResult:
    """``full``: a caption of each face, in the order of the faces, with equal numbers in ``groups`` [N] for equal captions;
    ``short``: short captions. ``truth`` bool [N, 40]: the faces' labels."""
    found = ranks(full.by(way, weight), query_groups=groups, gallery_groups=groups)
    recalls = tuple(recall_of_ranks(found, min(k, len(truth)), gallery_size=len(truth)) for k in _KS)
    return WayResult(recalls, reciprocal_of_ranks(found), _right(short, short.by(way, weight), truth))


def best_weight(full: Asked, groups: npt.ArrayLike) -> float:
    """The weight of FLIP with the best mean reciprocal rank of full captions."""

    def rank(weight: float) -> float:
        return reciprocal_of_ranks(ranks(full.by("both", weight), query_groups=groups, gallery_groups=groups))

    return max(WEIGHTS, key=rank)


def confirmed(query: Query, truth: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """bool [N, K]: which of the K labels that a query names or denies are as it says, of faces with the labels bool [N, 40]."""
    names = [(name, True) for name in query.wanted] + [(name, False) for name in query.unwanted]
    male = ATTRIBUTES.index("Male")
    held = [~truth[:, male] if name == FEMALE else truth[:, ATTRIBUTES.index(name)] for name, _ in names]
    return np.stack([own == wanted for own, (_, wanted) in zip(held, names, strict=True)], 1)


def _right(short: Asked, scores: Matrix, truth: npt.NDArray[np.bool_]) -> float:
    shares = []
    for query, own in zip(short.queries, scores, strict=True):
        if not query.is_empty:
            best = np.argsort(-own, kind="stable")[:TOP]
            shares.append(confirmed(query, truth[best]).mean())
    return float(np.mean(shares))
