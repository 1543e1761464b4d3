"""Captions for the faces of single photographs: detection, attributes and grammar in one call."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from facecaption_ml.attributes import label_faces
from facecaption_ml.attributes.labels import PAPER_RULE, LabelRule
from facecaption_ml.captions import face_caption
from facecaption_ml.decoding import decode_image, encode_jpeg
from facecaption_ml.faces import Face, align_and_crop

if TYPE_CHECKING:
    import numpy as np

    from facecaption_ml.attributes import AttributePredictor, FaceLabels
    from facecaption_ml.captions import CaptionGrammar
    from facecaption_ml.faces import FaceDetector
    from facecaption_ml.taxonomy import Gender


@dataclass(frozen=True)
class CaptionedFace:
    """One face of a photograph. ``crop`` is the aligned uint8 RGB crop in native resolution."""

    face: Face
    gender: Gender | None
    labels: tuple[str, ...]
    caption: str
    crop: np.ndarray

    def as_json(self) -> dict[str, Any]:
        """Box in pixels to one decimal, score to four."""
        return {
            "box": [round(float(value), 1) for value in self.face.box],
            "score": round(float(self.face.score), 4),
            "gender": self.gender,
            "labels": list(self.labels),
            "caption": self.caption,
        }


@dataclass(frozen=True)
class PhotoCaptioner:
    """Captions every face that scores above ``min_score``, whatever its size and number of labels."""

    detector: FaceDetector
    predictor: AttributePredictor
    grammar: CaptionGrammar
    min_score: float = 0.9
    margin: float = 0.3
    rule: LabelRule = PAPER_RULE  # when an attribute is a label
    seed: int = 0
    excluded: Collection[str] = ()  # attributes kept out of captions; the labels have them

    def caption(self, data: bytes) -> tuple[np.ndarray, list[CaptionedFace]]:
        """The decoded RGB picture and its faces, likeliest first. Raises UndecodableImage where ``data`` is no picture.

        The same bytes always give the same captions.
        """
        image = decode_image(data)
        faces = [face for face in self.detector.detect([image])[0] if face.score > self.min_score]
        if not faces:
            return image, []
        crops = [align_and_crop(image, face, self.margin)[0] for face in faces]
        labelled = label_faces(self.predictor.predict(crops), self.rule, min_labels=0)
        photo = hashlib.sha256(data).hexdigest()[:16]
        return image, [
            CaptionedFace(face, found.gender, found.labels, self._text(found, f"{photo}_{k}"), crop)
            for k, (face, crop, found) in enumerate(zip(faces, crops, labelled, strict=True))
        ]

    def describe(self, image: np.ndarray) -> str:
        """A caption of the likeliest face of an RGB uint8 [H, W, 3] picture; where no face is found, of the whole picture."""
        data = encode_jpeg(image)
        faces = self.caption(data)[1]
        if faces:
            return faces[0].caption
        found = label_faces(self.predictor.predict([image]), self.rule, min_labels=0)[0]
        return self._text(found, hashlib.sha256(data).hexdigest()[:16])

    def _text(self, found: FaceLabels, key: str) -> str:
        return face_caption(self.grammar, key, found.labels, found.gender, self.seed, self.excluded)
