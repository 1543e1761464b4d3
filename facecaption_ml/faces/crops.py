"""From a shard of fetched pictures to its table of aligned face crops, with every row and every detection counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
import polars as pl

from facecaption_ml.decoding import UndecodableImage, decode_image, encode_jpeg
from facecaption_ml.faces.alignment import align_and_crop, has_eye_line
from facecaption_ml.faces.detector import Face, FaceDetector
from facecaption_ml.faces.options import CropRules
from facecaption_ml.faces.workers import core_count
from facecaption_ml.schemas import SCHEMAS, conform

# Pictures decoded at a time: enough to keep every core busy, and at most about 400 MB of pixels.
_ROWS_AT_A_TIME: Final = 64
_PIXELS_AT_A_TIME: Final = 128_000_000
_JPEG_QUALITY: Final = 95
_COLUMNS: Final = ("sample_id", "url", "alt_text", "status", "image", "width", "height")


class FaceOutcome(StrEnum):
    """What became of a detection; the first that applies, in this order, is counted."""

    KEPT = "kept"
    LOW_SCORE = "low_score"
    TOO_SMALL = "too_small"
    OUTSIDE_IMAGE = "outside_image"  # less than half of the box is picture
    DEGENERATE_LANDMARKS = "degenerate_landmarks"  # no eye line to level


class ImageOutcome(StrEnum):
    """What became of a row of raw_images."""

    WITH_FACES = "with_faces"  # at least one kept
    WITHOUT_FACES = "without_faces"
    NOT_FETCHED = "not_fetched"
    UNDECODABLE = "undecodable"


def judge_face(face: Face, image_size: tuple[int, int], rules: CropRules) -> FaceOutcome:
    """The outcome of ``face`` in a picture of ``image_size`` (height, width)."""
    if not face.score > rules.min_score:
        return FaceOutcome.LOW_SCORE
    if not min(face.width, face.height) > rules.min_side:
        return FaceOutcome.TOO_SMALL
    if _share_inside(face, image_size) < 0.5:
        return FaceOutcome.OUTSIDE_IMAGE
    return FaceOutcome.KEPT if has_eye_line(face) else FaceOutcome.DEGENERATE_LANDMARKS


@dataclass(frozen=True)
class CropTable:
    """The crops of some raw_images rows and the account of all of them.

    frame: face_crops schema, in the order of the rows, faces of a row best first. faces: detections by FaceOutcome.
    images: rows by ImageOutcome; their sum is the number of rows.
    """

    frame: pl.DataFrame
    faces: Mapping[str, int]
    images: Mapping[str, int]

    @classmethod
    def concatenated(cls, tables: Iterable[CropTable]) -> CropTable:
        """The tables of a shard's pieces as one."""
        frames, faces, images = [_frame([])], Counter[str](), Counter[str]()
        for table in tables:
            frames.append(table.frame)
            faces.update(table.faces)
            images.update(table.images)
        return cls(pl.concat(frames), _tally(FaceOutcome, faces), _tally(ImageOutcome, images))


def crop_table(raw: pl.DataFrame, detector: FaceDetector, rules: CropRules | None = None) -> CropTable:
    """The face crops of ``raw`` (raw_images rows; only those with status ``ok`` are looked into).

    Each picture is decoded once: the detector sees it reduced, the crops come from its own pixels. ``face_id`` is
    ``{sample_id}_{k}``, k the rank of the face among all detections of its picture (score descending, then x), so that ids
    stay the same when the rules change. Memory is bounded by the crops and some 128 megapixels of decoded pictures (or one
    picture, if it is larger).
    """
    rules = rules or CropRules()
    with ThreadPoolExecutor(core_count(), thread_name_prefix="crops") as pool:
        return CropTable.concatenated(_crop_group(rows, detector, rules, pool) for rows in _groups(raw))


def _crop_group(
    rows: Sequence[dict[str, Any]], detector: FaceDetector, rules: CropRules, pool: ThreadPoolExecutor
) -> CropTable:
    """The crops of a few rows, whose pictures are in memory together."""
    pictures = list(pool.map(_decoded, rows))
    there = [(row, picture) for row, picture in zip(rows, pictures, strict=True) if isinstance(picture, np.ndarray)]
    images = Counter(str(outcome) for outcome in pictures if isinstance(outcome, ImageOutcome))
    faces = Counter[str]()
    kept: list[tuple[dict[str, Any], np.ndarray, int, Face]] = []
    for (row, picture), found in zip(there, detector.detect([picture for _, picture in there]), strict=True):
        outcomes = [judge_face(face, picture.shape[:2], rules) for face in found]
        faces.update(outcomes)
        images[ImageOutcome.WITH_FACES if FaceOutcome.KEPT in outcomes else ImageOutcome.WITHOUT_FACES] += 1
        for rank, (face, outcome) in enumerate(zip(found, outcomes, strict=True)):
            if outcome is FaceOutcome.KEPT:
                kept.append((row, picture, rank, face))
    crops = list(pool.map(lambda job: _crop_row(job[0], job[1], job[2], job[3], rules), kept))
    return CropTable(_frame(crops), _tally(FaceOutcome, faces), _tally(ImageOutcome, images))


def _groups(raw: pl.DataFrame) -> Iterator[list[dict[str, Any]]]:
    """Rows in order, a few at a time: at most 64, and 128 megapixels by what the table says of their size."""
    group: list[dict[str, Any]] = []
    pixels = 0
    for row in raw.select(_COLUMNS).iter_rows(named=True):
        size = (row["width"] or 0) * (row["height"] or 0)
        if group and (len(group) == _ROWS_AT_A_TIME or pixels + size > _PIXELS_AT_A_TIME):
            yield group
            group, pixels = [], 0
        group.append(row)
        pixels += size
    if group:
        yield group


def _decoded(row: dict[str, Any]) -> np.ndarray | ImageOutcome:
    if row["status"] != "ok":
        return ImageOutcome.NOT_FETCHED
    data = (row["image"] or {}).get("bytes")
    try:
        return decode_image(data) if data else ImageOutcome.UNDECODABLE
    except UndecodableImage:
        return ImageOutcome.UNDECODABLE


def _crop_row(row: dict[str, Any], picture: np.ndarray, rank: int, face: Face, rules: CropRules) -> dict[str, Any]:
    """The face_crops row of a kept face."""
    crop, roll = align_and_crop(picture, face, rules.margin)
    face_id = f"{row['sample_id']}_{rank}"
    return {
        "face_id": face_id,
        "sample_id": row["sample_id"],
        "url": row["url"],
        "alt_text": row["alt_text"],
        "image": {"bytes": encode_jpeg(crop, _JPEG_QUALITY), "path": f"{face_id}.jpg"},
        "width": crop.shape[1],
        "height": crop.shape[0],
        "box": list(face.box),
        "landmarks": face.landmarks.tolist(),
        "score": face.score,
        "roll_degrees": roll,
    }


def _share_inside(face: Face, image_size: tuple[int, int]) -> float:
    """The share of the box's area that lies in the picture."""
    height, width = image_size
    x0, y0, x1, y1 = face.box
    inside = max(0.0, min(x1, width) - max(x0, 0.0)) * max(0.0, min(y1, height) - max(y0, 0.0))
    return inside / (face.width * face.height) if face.width > 0 and face.height > 0 else 0.0


def _frame(crops: Sequence[dict[str, Any]]) -> pl.DataFrame:
    return conform(pl.DataFrame(list(crops), schema=dict(SCHEMAS["face_crops"])), "face_crops")


def _tally(outcomes: type[StrEnum], counts: Mapping[str, int]) -> dict[str, int]:
    """Counts of every outcome in the enum's order, those that did not occur as 0."""
    return {outcome.value: counts.get(outcome.value, 0) for outcome in outcomes}
