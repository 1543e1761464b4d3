"""Faces in pictures: RetinaFace detection, upright crops at native resolution, and the table of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facecaption_ml.lazy import lazy_names

if TYPE_CHECKING:
    from facecaption_ml.faces.alignment import align_and_crop, aligned_points, roll_degrees
    from facecaption_ml.faces.crops import CropTable, FaceOutcome, ImageOutcome, crop_table
    from facecaption_ml.faces.detector import Face, FaceDetector
    from facecaption_ml.faces.options import CropRules, DetectionRules, DetectorOptions
    from facecaption_ml.faces.sheets import contact_sheet, draw_faces
    from facecaption_ml.faces.weights import WeightsError, load_weights

__all__ = [
    "CropRules",
    "CropTable",
    "DetectionRules",
    "DetectorOptions",
    "Face",
    "FaceDetector",
    "FaceOutcome",
    "ImageOutcome",
    "WeightsError",
    "align_and_crop",
    "aligned_points",
    "contact_sheet",
    "crop_table",
    "draw_faces",
    "load_weights",
    "roll_degrees",
]

__getattr__ = lazy_names(
    __name__,
    {
        "alignment": ("align_and_crop", "aligned_points", "roll_degrees"),
        "crops": ("CropTable", "FaceOutcome", "ImageOutcome", "crop_table"),
        "detector": ("Face", "FaceDetector"),
        "options": ("CropRules", "DetectionRules", "DetectorOptions"),
        "sheets": ("contact_sheet", "draw_faces"),
        "weights": ("WeightsError", "load_weights"),
    },
)
