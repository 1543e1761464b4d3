"""The 40 facial attributes of a face crop: network, training, calibration, prediction, labels (paper §3.2).

Names are loaded when they are first asked for, so that importing the package does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from facecaption_ml.attributes.labels import FaceLabels, FaceOutcome, LabelRule, label_faces
from facecaption_ml.lazy import lazy_names
from facecaption_ml.taxonomy import ATTRIBUTES

if TYPE_CHECKING:
    from facecaption_ml.attributes.celeba import read_celeba
    from facecaption_ml.attributes.data import AttributeData, AttributeDataError
    from facecaption_ml.attributes.evaluation import Evaluation
    from facecaption_ml.attributes.prediction import (
        AttributePredictor,
        CheckpointError,
        attribute_table,
        checkpoint_folder,
    )
    from facecaption_ml.attributes.thresholds import PrecisionError, Thresholds
    from facecaption_ml.attributes.training import train_attributes

__all__ = [
    "ATTRIBUTES",
    "AttributeData",
    "AttributeDataError",
    "AttributePredictor",
    "CheckpointError",
    "Evaluation",
    "FaceLabels",
    "FaceOutcome",
    "LabelRule",
    "PrecisionError",
    "Thresholds",
    "attribute_table",
    "checkpoint_folder",
    "label_faces",
    "read_celeba",
    "train_attributes",
]

__getattr__ = lazy_names(
    __name__,
    {
        "celeba": ("read_celeba",),
        "data": ("AttributeData", "AttributeDataError"),
        "evaluation": ("Evaluation",),
        "prediction": ("AttributePredictor", "CheckpointError", "attribute_table", "checkpoint_folder"),
        "thresholds": ("PrecisionError", "Thresholds"),
        "training": ("train_attributes",),
    },
)
