"""What a trained predictor says of the training pictures, mixed with their labels (Hinton et al., 2015; Furlanello et al.,
ICML 2018): a label that the teacher doubts, rightly where people's opinions are noise, pulls less."""

from __future__ import annotations

from typing import Final

import numpy as np

from facecaption_ml.attributes.data import AttributeData
from facecaption_ml.attributes.prediction import AttributePredictor

TEACHER_SHARE: Final = 0.5
_BATCH: Final = 256


def soft_labels(data: AttributeData, teacher: AttributePredictor) -> np.ndarray:
    """float32 [N, 40]: the labels of ``data``; those of the training split mixed with the teacher's probabilities in halves."""
    labels = data.labels.astype(np.float32)
    rows = data.rows["train"]
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        said = teacher.predict(list(data.images.batch(batch, teacher.input)))
        labels[batch] = (1 - TEACHER_SHARE) * labels[batch] + TEACHER_SHARE * said
    return labels
