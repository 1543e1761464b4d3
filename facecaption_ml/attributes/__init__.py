"""The 40 facial attributes of a face crop: network, training, calibration, prediction, labels (paper §3.2).

Names are loaded when they are first asked for, so that importing the package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from facecaption_ml.attributes.labels import FaceLabels, FaceOutcome, label_faces
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
    from facecaption_ml.attributes.training import train_attributes

_HOMES: Final = {
    "AttributeData": "data",
    "AttributeDataError": "data",
    "AttributePredictor": "prediction",
    "CheckpointError": "prediction",
    "Evaluation": "evaluation",
    "attribute_table": "prediction",
    "checkpoint_folder": "prediction",
    "read_celeba": "celeba",
    "train_attributes": "training",
}

__all__ = [
    "ATTRIBUTES",
    "AttributeData",
    "AttributeDataError",
    "AttributePredictor",
    "CheckpointError",
    "Evaluation",
    "FaceLabels",
    "FaceOutcome",
    "attribute_table",
    "checkpoint_folder",
    "label_faces",
    "read_celeba",
    "train_attributes",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
