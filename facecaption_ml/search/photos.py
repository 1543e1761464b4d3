"""The faces of a folder of photographs with their probabilities, kept by the hash of each file.

A photograph is looked at once: what was found of it lies as JSON under ``<cache>/<version>/<SHA-256>.json``, so a file that
was renamed or copied is not looked at again, and one that was changed is. The version names detector and predictor.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from facecaption_ml.decoding import UndecodableImage, decode_image
from facecaption_ml.faces import Face, align_and_crop
from facecaption_ml.storage.local_files import atomic_write

if TYPE_CHECKING:
    from facecaption_ml.attributes import AttributePredictor
    from facecaption_ml.faces import FaceDetector

_DIGITS: Final = 5  # of kept probabilities


@dataclass(frozen=True)
class PhotoFace:
    """A face of a photograph: the ``number``-th of its file, likeliest first, with probabilities float32 [40].

    ``digest``: the file's SHA-256, hexadecimal.
    """

    path: Path
    number: int
    face: Face
    probabilities: np.ndarray
    digest: str = ""

    @property
    def name(self) -> str:
        return f"{self.path.name}#{self.number}"

    def crop(self, margin: float) -> np.ndarray:
        """The aligned crop, RGB uint8 [H, W, 3]. Raises UndecodableImage or OSError where the file has gone since."""
        return align_and_crop(decode_image(self.path.read_bytes()), self.face, margin)[0]


@dataclass(frozen=True)
class PhotoFaces:
    """Finds faces that score above ``min_score``, labels them, and keeps both under ``cache``."""

    detector: Callable[[], FaceDetector]
    predictor: AttributePredictor
    cache: Path
    version: str
    margin: float
    min_score: float = 0.9

    @property
    def folder(self) -> Path:
        """Where what this version finds is kept."""
        return self.cache / self.version

    def of(
        self, paths: Sequence[Path], on_progress: Callable[[int, int], None] | None = None
    ) -> tuple[list[PhotoFace], list[str]]:
        """The faces of all files in their order, and a line for each file that cannot be read.

        The detector is loaded with the first file that is not kept yet; a file that is kept needs neither model.
        """
        found: list[PhotoFace] = []
        faults: list[str] = []
        for done, path in enumerate(paths, start=1):
            try:
                data = path.read_bytes()
                found += self._faces(path, data)
            except (OSError, UndecodableImage) as error:
                faults.append(f"{path}: {error.strerror if isinstance(error, OSError) and error.strerror else error}")
            if on_progress:
                on_progress(done, len(paths))
        return found, faults

    def _faces(self, path: Path, data: bytes) -> Iterator[PhotoFace]:
        digest = hashlib.sha256(data).hexdigest()
        kept = self.folder / f"{digest}.json"
        records = _read(kept)
        if records is None:
            records = self._look(data)
            kept.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(kept, sync=False) as file:
                file.write(json.dumps(records).encode())
        for number, record in enumerate(records):
            face = Face(tuple(record["box"]), np.array(record["landmarks"], np.float32), record["score"])
            yield PhotoFace(path, number, face, np.array(record["probabilities"], np.float32), digest)

    def _look(self, data: bytes) -> list[dict[str, Any]]:
        image = decode_image(data)
        faces = [face for face in self.detector().detect([image])[0] if face.score > self.min_score]
        if not faces:
            return []
        probabilities = self.predictor.predict([align_and_crop(image, face, self.margin)[0] for face in faces])
        return [
            {
                "box": [float(value) for value in face.box],
                "landmarks": np.asarray(face.landmarks, float).tolist(),
                "score": float(face.score),
                "probabilities": [round(float(value), _DIGITS) for value in own],
            }
            for face, own in zip(faces, probabilities, strict=True)
        ]


def looks_version(*parts: object) -> str:
    """12 hex digits of whatever decides what is found."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:12]


def _read(path: Path) -> list[dict[str, Any]] | None:
    """What is kept of a file; None where nothing is, or what is there is damaged."""
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        return records if all({"box", "landmarks", "score", "probabilities"} <= set(one) for one in records) else None
    except (OSError, ValueError, TypeError):
        return None
