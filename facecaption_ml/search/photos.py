"""The faces of a folder of photographs with their probabilities, kept by the hash of each file.

A photograph is looked at once: what was found of it lies as JSON under ``<cache>/<version>/<SHA-256>.json``, so a file that
was renamed or copied is not looked at again, and one that was changed is. The version names detector and predictor.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
_AT_ONCE: Final = 16  # photographs that are looked at together; more gain nothing on a CPU
_PIXELS_AT_ONCE: Final = 32_000_000  # of them in memory, and one more photograph


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

        Several photographs are looked at together, and kept before the next ones are read. The detector is loaded with the
        first file that is not kept yet; files that are kept need neither model.
        """
        detector = functools.cache(self.detector)
        digests: dict[Path, str] = {}
        known: dict[str, list[dict[str, Any]]] = {}
        waiting: dict[str, np.ndarray] = {}
        faults: list[str] = []
        for done, path in enumerate(paths, start=1):
            try:
                data = path.read_bytes()
                digest = hashlib.sha256(data).hexdigest()
                if digest not in known and digest not in waiting:
                    kept = _read(self._place(digest))
                    if kept is None:
                        waiting[digest] = decode_image(data)
                    else:
                        known[digest] = kept
                digests[path] = digest
            except (OSError, UndecodableImage) as error:
                faults.append(f"{path}: {error.strerror if isinstance(error, OSError) and error.strerror else error}")
            if waiting and (done == len(paths) or _is_enough(waiting.values())):
                known |= self._looked_at(detector(), waiting)
                waiting = {}
            if on_progress:
                on_progress(done, len(paths))
        found = [face for path, digest in digests.items() for face in _faces(path, digest, known[digest])]
        return found, faults

    def _place(self, digest: str) -> Path:
        return self.folder / f"{digest}.json"

    def _looked_at(self, detector: FaceDetector, images: Mapping[str, np.ndarray]) -> dict[str, list[dict[str, Any]]]:
        """What is found of pictures by digest, which is kept then."""
        found = [
            [face for face in faces if face.score > self.min_score] for faces in detector.detect(list(images.values()))
        ]
        crops = [
            align_and_crop(image, face, self.margin)[0]
            for image, faces in zip(images.values(), found, strict=True)
            for face in faces
        ]
        probabilities = iter(self.predictor.predict(crops) if crops else ())
        records = {
            digest: [_record(face, next(probabilities)) for face in faces]
            for digest, faces in zip(images, found, strict=True)
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        for digest, own in records.items():
            with atomic_write(self._place(digest), sync=False) as file:
                file.write(json.dumps(own).encode())
        return records


def _is_enough(images: Collection[np.ndarray]) -> bool:
    return len(images) >= _AT_ONCE or sum(image.shape[0] * image.shape[1] for image in images) >= _PIXELS_AT_ONCE


def _record(face: Face, probabilities: np.ndarray) -> dict[str, Any]:
    return {
        "box": [float(value) for value in face.box],
        "landmarks": np.asarray(face.landmarks, float).tolist(),
        "score": float(face.score),
        "probabilities": [round(float(value), _DIGITS) for value in probabilities],
    }


def _faces(path: Path, digest: str, records: Sequence[Mapping[str, Any]]) -> Iterator[PhotoFace]:
    for number, record in enumerate(records):
        face = Face(tuple(record["box"]), np.array(record["landmarks"], np.float32), record["score"])
        yield PhotoFace(path, number, face, np.array(record["probabilities"], np.float32), digest)


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
