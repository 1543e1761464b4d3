"""The features of photographs' faces under one FLIP checkpoint, kept by the hash of each file beside the faces themselves.

``<cache>/<version of the faces>/<version of the checkpoint>/<SHA-256>.npy`` holds float16 [faces, D] of a file, in the order of
its faces; what is damaged or of another number of faces is encoded anew.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from facecaption_ml.search.photos import PhotoFace
from facecaption_ml.storage.local_files import atomic_write

if TYPE_CHECKING:
    from facecaption_ml.flip.use.face_features import FaceEncoder


def photo_features(
    faces: Sequence[PhotoFace],
    encoder: FaceEncoder,
    cache: Path,
    margin: float,
    on_progress: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float32]:
    """float32 [N, D] of ``faces``, those of a file together as ``PhotoFaces.of`` gives them.

    ``cache``: the folder of the faces' version. A face's crop has the ``margin``. Raises UndecodableImage or OSError where a
    file that is not kept yet has gone since its faces were found.
    """
    folder = cache / encoder.version
    features = []
    for _, group in itertools.groupby(faces, key=lambda face: face.path):
        own = list(group)
        kept = folder / f"{own[0].digest}.npy"
        found = _read(kept, len(own))
        if found is None:
            found = encoder.encode_images([face.crop(margin) for face in own]).astype(np.float16)
            _write(kept, found)
        features.append(found.astype(np.float32))
        if on_progress:
            on_progress(sum(map(len, features)), len(faces))
    return np.concatenate(features)


def _read(path: Path, faces: int) -> npt.NDArray[np.float16] | None:
    try:
        found = np.load(path)
    except (OSError, ValueError, EOFError):
        return None
    whole = found.ndim == 2 and len(found) == faces and bool(np.isfinite(found).all())
    return np.asarray(found, np.float16) if whole else None


def _write(path: Path, features: npt.NDArray[np.float16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    np.save(packed, features)
    with atomic_write(path, sync=False) as file:
        file.write(packed.getvalue())
