"""What the finished checkpoint comes to: the weight of FLIP from the validation split, the test split looked at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from facecaption_ml.attributes import AttributePredictor
from facecaption_ml.attributes.celeba import read_celeba
from facecaption_ml.flip import Flip
from facecaption_ml.flip.pairs.reader import caption_id
from facecaption_ml.flip.training.evaluation import HeldOutRecall, held_out_recall
from facecaption_ml.photo_flip.faces import MappedFaces, short_caption_of
from facecaption_ml.photo_flip.scoring import Asked, WayResult, asked, best_weight, measure
from facecaption_ml.photo_flip.training import held_out_texts, image_features, match_logits, text_features

WAYS: Final = ("labels", "flip", "both")
_SPLITS: Final = ("validation", "test")
_APART: Final = 7


@dataclass(frozen=True)
class Evaluation:
    """By split. ``weight``: of FLIP's scores beside those of labels. ``best``: the way with the most true labels among the best
    eight faces of short captions, on the validation split. ``matching``: area under the curve of the matching head, a face's
    own caption against another's."""

    weight: float
    best: str
    recalls: Mapping[str, HeldOutRecall]
    ways: Mapping[str, Mapping[str, WayResult]]
    matching: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        return {
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


def evaluate(flip: Flip, faces: MappedFaces, data: str, predictor: AttributePredictor) -> Evaluation:
    """``data``: the folder that the faces are of. All choices are made before the test split is looked at."""
    pictures = read_celeba(data, predictor.input)
    full, short, recalls, ways, matching = {}, {}, {}, {}, {}
    weight, best = 1.0, ""
    for split in _SPLITS:
        rows = faces.data.rows[split]
        probabilities = predictor.predict(list(pictures.images.batch(rows, predictor.input)))
        full[split], short[split], recalls[split] = _asked(flip, faces, split, probabilities)
        truth = faces.data.labels[rows]
        matching[split] = _matching(flip, faces, rows, held_out_texts(faces, split))
        groups = [caption_id(text) for text in held_out_texts(faces, split)]
        if split == "validation":
            weight = best_weight(full[split], groups)
        ways[split] = {way: measure(full[split], short[split], groups, truth, way, weight) for way in WAYS}
        if split == "validation":
            best = max(WAYS, key=lambda way: ways["validation"][way].right)
    return Evaluation(weight, best, recalls, ways, matching)


def _matching(flip: Flip, faces: MappedFaces, rows: np.ndarray, texts: list[str]) -> float:
    """Each face with its own caption and with that of the next face but six, where that says something else."""
    others = texts[_APART:] + texts[:_APART]
    differ = np.array([own != other for own, other in zip(texts, others, strict=True)])
    right = match_logits(flip.model, flip.tokenizer, faces, rows, texts)
    wrong = match_logits(flip.model, flip.tokenizer, faces, rows, others)[differ]
    return float(np.mean((right[:, None] > wrong) + 0.5 * (right[:, None] == wrong)))


def _asked(flip: Flip, faces: MappedFaces, split: str, probabilities: np.ndarray) -> tuple[Asked, Asked, HeldOutRecall]:
    rows = faces.data.rows[split]
    images = image_features(flip.model, faces, rows)
    texts = held_out_texts(faces, split)
    features = text_features(flip.model, flip.tokenizer, texts)
    shorter = [short_caption_of(faces.data.labels[row], row) for row in rows.tolist()]
    return (
        asked(texts, probabilities, features, images),
        asked(shorter, probabilities, text_features(flip.model, flip.tokenizer, shorter), images),
        held_out_recall(images, features, [caption_id(text) for text in texts]),
    )
