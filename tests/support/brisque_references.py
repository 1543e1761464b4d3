"""Writes brisque_references.json: BRISQUE of the test's pictures by OpenCV's quality module and by the ``brisque`` package.

Run by hand in an environment of its own (both packages bring their own OpenCV or need one):
``pip install opencv-contrib-python-headless==5.0.0.93 scikit-image libsvm-official scipy pillow pytest hypothesis polars``,
``pip install --no-deps brisque==0.2.0``, then ``PYTHONPATH=. python tests/support/brisque_references.py`` from the
repository's root.
"""

from __future__ import annotations

import importlib.metadata
import json
import pickle
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np

HERE = Path(__file__).parents[1] / "statistics"

_MODEL = """%YAML:1.0
---
opencv_ml_svm:
   format: 3
   svmType: EPS_SVR
   kernel: {{ type: RBF, gamma: {gamma} }}
   C: 1024.
   p: 0.1
   term_criteria: {{ epsilon: 1.0e-3, iterations: 1000 }}
   var_count: 36
   class_count: 1
   sv_total: {count}
   support_vectors:
{vectors}
   decision_functions:
      -
         sv_count: {count}
         rho: {rho}
         alpha: [ {alpha} ]
         index: [ {index} ]
"""


def opencv_metric(folder: Path) -> Any:
    """OpenCV's BRISQUE with the regression of the ``brisque`` package, written in OpenCV's format."""
    package = importlib.metadata.distribution("brisque")
    header, _, body = Path(str(package.locate_file("brisque/models/svm.txt"))).read_text().partition("\nSV\n")
    settings = dict(line.split(" ", 1) for line in header.splitlines())
    rows = [line.split() for line in body.splitlines()]
    vectors = "\n".join(f"      - [ {', '.join(str(float(v.split(':')[1])) for v in row[1:])} ]" for row in rows)
    alpha, index = ", ".join(str(float(row[0])) for row in rows), ", ".join(str(k) for k in range(len(rows)))
    model = folder / "model.yml"
    model.write_text(_MODEL.format(count=len(rows), vectors=vectors, alpha=alpha, index=index, **settings))
    bounds = pickle.loads(Path(str(package.locate_file("brisque/models/normalize.pickle"))).read_bytes())
    ranges = cv2.FileStorage(str(folder / "range.yml"), cv2.FILE_STORAGE_WRITE)
    ranges.write("range", np.array([bounds["min_"], bounds["max_"]], np.float32))
    ranges.release()
    return cv2.quality.QualityBRISQUE_create(str(model), str(folder / "range.yml"))


def package_metric() -> Any:
    """The package's own code; its features are arrays of one number, which NumPy 2.4 no longer takes for numbers."""
    from brisque import BRISQUE

    class Mended(BRISQUE):
        def scale_features(self, features: np.ndarray) -> np.ndarray:
            return super().scale_features(np.array([np.asarray(feature).item() for feature in features]))

    return Mended()


def main() -> None:
    from test_brisque import reference_pictures

    with tempfile.TemporaryDirectory() as folder:
        opencv = opencv_metric(Path(folder))
    package = package_metric()
    pictures = {}
    for name, picture in reference_pictures().items():
        bgr = np.ascontiguousarray(picture[..., ::-1])
        pictures[name] = {
            "opencv": round(opencv.compute(bgr)[0], 4),
            "opencv_features": [float(f"{value:.6g}") for value in cv2.quality.QualityBRISQUE_computeFeatures(bgr)[0]],
            "brisque": round(float(package.score(picture)), 4),
        }
    versions = {
        name: importlib.metadata.version(name)
        for name in ("opencv-contrib-python-headless", "brisque", "scipy", "numpy")
    }
    text = json.dumps({"versions": versions, "pictures": pictures}, indent=1)
    (HERE / "brisque_references.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
