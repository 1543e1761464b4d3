"""What the finished checkpoint comes to: the weight of FLIP from the validation split, the test split looked at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from facecaption_ml.attributes import AttributePredictor
from facecaption_ml.attributes.celeba import read_celeba
from facecaption_ml.attributes.data import AttributeData
from facecaption_ml.flip import Flip
from facecaption_ml.flip.pairs.reader import caption_id
from facecaption_ml.flip.training.evaluation import HeldOutRecall, held_out_recall
from facecaption_ml.pair_matching import area_under_curve, mismatched
from facecaption_ml.photo_flip.faces import SIDE, short_caption_of
from facecaption_ml.photo_flip.scoring import WayResult, asked, best_weight, measure
from facecaption_ml.photo_flip.training import held_out_texts
from facecaption_ml.search.ways import WAYS

_SPLITS: Final = ("validation", "test")


@dataclass(frozen=True)
class Evaluation:
    """What a checkpoint comes to, by split.

    ``predictor``: the version of the attribute predictor that labels come from. ``weight``: of FLIP's scores beside those of
    labels. ``best``: the way with the most true labels among the best eight faces of short captions, on the validation split.
    ``matching``: area under the curve of the matching head, a face's own caption against another's.
    """

    predictor: str
    weight: float
    best: str
    recalls: Mapping[str, HeldOutRecall]
    ways: Mapping[str, Mapping[str, WayResult]]
    matching: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        return {
            "predictor": self.predictor,
            "weight": self.weight,
            "best": self.best,
            "retrieval": {split: recall.as_dict() for split, recall in self.recalls.items()},
            "matching_auc": dict(self.matching),
            "ways": {split: {way: one.as_dict() for way, one in own.items()} for split, own in self.ways.items()},
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        for split, own in self.ways.items():
            yield f"{split}: {self.recalls[split]}; matching AUC {self.matching[split]:.3f}"
            for way, one in own.items():
                recalls = "/".join(f"{100 * value:.1f}" for value in one.recalls)
                yield f"{split} by {way}: R@1/5/10 {recalls}, labels right among the best eight {100 * one.right:.1f} %"
        yield f"weight of FLIP {self.weight}, best for short captions: {self.best}"


def evaluate(flip: Flip, data: AttributeData, folder: str, predictor: AttributePredictor) -> Evaluation:
    """``data``: the faces of a ``folder`` with CelebA's layout. All choices are made before the test split is looked at."""
    pictures = read_celeba(folder, predictor.input)
    recalls, ways, matching = {}, {}, {}
    weight, best = 1.0, ""
    for split in _SPLITS:
        rows = data.rows[split]
        probabilities = predictor.predict(list(pictures.images.batch(rows, predictor.input)))
        crops, texts = list(data.images.batch(rows, (SIDE, SIDE))), held_out_texts(data, split)
        images, features = flip.encode_images(crops), flip.encode_texts(texts)
        groups = np.array([caption_id(text) for text in texts])
        recalls[split] = held_out_recall(images, features, groups)
        matching[split] = _matching_auc(flip, crops, texts, groups)
        full = asked(texts, probabilities, features, images)
        shorter = [short_caption_of(data.labels[row], row) for row in rows.tolist()]
        short = asked(shorter, probabilities, flip.encode_texts(shorter), images)
        if split == "validation":
            weight = best_weight(full, groups)
        ways[split] = {way: measure(full, short, groups, data.labels[rows], way, weight) for way in WAYS}
        if split == "validation":
            best = max(WAYS, key=lambda way: ways["validation"][way].right)
    return Evaluation(predictor.version, weight, best, recalls, ways, matching)


def _matching_auc(flip: Flip, crops: list[np.ndarray], texts: list[str], groups: np.ndarray) -> float:
    pictures, others = mismatched(groups, each=1)
    right = flip.match(crops, texts)
    wrong = flip.match([crops[row] for row in pictures.tolist()], [texts[row] for row in others.tolist()])
    return area_under_curve(right, wrong)
