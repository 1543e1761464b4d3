"""Faces in pictures: RetinaFace detection, upright crops at native resolution, and the table of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

_MODULE_OF = {
    "CropRules": "options",
    "CropTable": "crops",
    "DetectionRules": "options",
    "DetectorOptions": "options",
    "Face": "detector",
    "FaceDetector": "detector",
    "FaceOutcome": "crops",
    "ImageOutcome": "crops",
    "WeightsError": "weights",
    "align_and_crop": "alignment",
    "aligned_points": "alignment",
    "contact_sheet": "sheets",
    "crop_table": "crops",
    "draw_faces": "sheets",
    "load_weights": "weights",
    "roll_degrees": "alignment",
}


def __getattr__(name: str) -> Any:
    """Loads PyTorch and OpenCV only when something here is asked for."""
    if name in _MODULE_OF:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
