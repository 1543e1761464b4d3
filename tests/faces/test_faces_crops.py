"""The crop table: every row and every detection accounted for, every kept crop within the rules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecaption_ml.decoding import decode_image, encode_jpeg
from facecaption_ml.faces import (
    CropRules,
    CropTable,
    Face,
    FaceDetector,
    FaceOutcome,
    ImageOutcome,
    crop_table,
    roll_degrees,
)
from facecaption_ml.faces.crops import judge_face
from facecaption_ml.schemas import SCHEMAS, conform


def raw_images(pictures: Sequence[tuple[str, str, bytes | None]]) -> pl.DataFrame:
    """raw_images rows of (sample_id, status, bytes)."""
    rows = []
    for sample_id, status, data in pictures:
        size: tuple[int | None, int | None] = (None, None)
        if data is not None:
            try:
                size = decode_image(data).shape[1::-1]
            except ValueError:
                size = (10, 10)
        rows.append(
            {
                "sample_id": sample_id,
                "url": f"http://example.org/{sample_id}",
                "alt_text": f"text of {sample_id}",
                "status": status,
                "error": None,
                "image": None if data is None else {"bytes": data, "path": sample_id},
                "width": size[0],
                "height": size[1],
                "sha256": None,
                "attempts": 1,
                "fetched_at": None,
            }
        )
    return conform(pl.DataFrame(rows, schema=dict(SCHEMAS["raw_images"])), "raw_images")


@pytest.fixture(scope="module")
def shard(photo_files: dict[str, bytes]) -> pl.DataFrame:
    grey = encode_jpeg(np.full((300, 400, 3), 90, dtype=np.uint8))
    photographs = [(name.split(".")[0], "ok", data) for name, data in photo_files.items()]
    broken = next(iter(photo_files.values()))
    return raw_images(
        [
            ("dead", "http_error", None),
            *photographs[:4],
            ("empty", "ok", grey),
            ("cut", "ok", broken[: len(broken) // 2]),
            *photographs[4:],
            ("noimage", "ok", None),
            ("text", "ok", b"<html>not here</html>"),
            ("slow", "timeout", None),
        ]
    )


@pytest.fixture(scope="module")
def table(shard: pl.DataFrame, detector: FaceDetector) -> CropTable:
    return crop_table(shard, detector)


@pytest.mark.slow
def test_counts_add_up(table: CropTable, shard: pl.DataFrame, detector: FaceDetector) -> None:
    assert table.images[ImageOutcome.NOT_FETCHED] == 2
    assert table.images[ImageOutcome.UNDECODABLE] == 3
    assert sum(table.images.values()) == shard.height
    decodable = [row["image"]["bytes"] for row in shard.to_dicts() if row["image"] and len(row["image"]["bytes"]) > 100]
    broken = shard.filter(pl.col("sample_id") == "cut")["image"][0]["bytes"]
    detections = detector.detect([data for data in decodable if data != broken])
    assert sum(table.faces.values()) == sum(map(len, detections))
    assert table.faces[FaceOutcome.KEPT] == table.frame.height
    assert table.images[ImageOutcome.WITH_FACES] == table.frame["sample_id"].n_unique()
    assert set(table.faces) == set(FaceOutcome)
    assert set(table.images) == set(ImageOutcome)


def test_every_kept_crop_fulfils_the_rules(table: CropTable) -> None:
    assert table.frame.height >= 5
    conform(table.frame, "face_crops")
    for row in table.frame.to_dicts():
        x0, y0, x1, y1 = row["box"]
        assert row["score"] > 0.98
        assert min(x1 - x0, y1 - y0) > 128
        crop = decode_image(row["image"]["bytes"])
        assert crop.shape == (row["height"], row["width"], 3)
        assert row["width"] == pytest.approx(1.6 * (x1 - x0), abs=1)
        assert row["height"] == pytest.approx(1.6 * (y1 - y0), abs=1)
        landmarks = np.array(row["landmarks"], dtype=np.float32)
        assert row["roll_degrees"] == pytest.approx(roll_degrees(Face(tuple(row["box"]), landmarks, 1.0)), abs=1e-3)
        assert row["image"]["path"] == f"{row['face_id']}.jpg"
        assert row["url"] == f"http://example.org/{row['sample_id']}"


def test_crops_show_the_face_again(table: CropTable, detector: FaceDetector) -> None:
    """The pixels are those of the face: the detector finds it in the middle of its crop, upright."""
    crops = [decode_image(image["bytes"]) for image in table.frame["image"]]
    for crop, faces in zip(crops, detector.detect(crops), strict=True):
        assert faces
        best = faces[0]
        centre = np.array([(best.box[0] + best.box[2]) / 2, (best.box[1] + best.box[3]) / 2])
        assert np.abs(centre / crop.shape[1::-1] - 0.5).max() < 0.1
        assert abs(roll_degrees(best)) < 5


def test_ids_do_not_depend_on_the_rules(table: CropTable, shard: pl.DataFrame, detector: FaceDetector) -> None:
    loose = crop_table(shard, detector, CropRules(min_score=0.6, min_side=20, margin=0.1))
    assert loose.frame.height > table.frame.height
    assert sum(loose.faces.values()) == sum(table.faces.values())
    boxes = dict(loose.frame.select("face_id", "box").iter_rows())
    for face_id, box in table.frame.select("face_id", "box").iter_rows():
        assert list(boxes[face_id]) == list(box)
    crowd = loose.frame.filter(pl.col("sample_id") == "crowd")
    ranks = [int(face_id.removeprefix("crowd_")) for face_id in crowd["face_id"]]
    assert ranks == sorted(ranks)
    assert crowd["score"].to_list() == sorted(crowd["score"], reverse=True)


def test_same_rows_in_pieces(table: CropTable, shard: pl.DataFrame, detector: FaceDetector) -> None:
    pieces = CropTable.concatenated(crop_table(piece, detector) for piece in shard.iter_slices(3))
    assert pieces.frame.equals(table.frame)
    assert pieces.faces == table.faces
    assert pieces.images == table.images


def test_repeated_pictures_are_counted_row_by_row(photo_files: dict[str, bytes], detector: FaceDetector) -> None:
    obama = photo_files["obama.jpg"]
    found = crop_table(raw_images([("same", "ok", obama), ("same", "ok", obama)]), detector)
    assert found.images[ImageOutcome.WITH_FACES] == 2
    assert found.frame.height == 2


def test_an_empty_shard(shard: pl.DataFrame, detector: FaceDetector) -> None:
    nothing = crop_table(shard.clear(), detector)
    assert nothing.frame.schema == pl.Schema(SCHEMAS["face_crops"])
    assert set(nothing.faces.values()) | set(nothing.images.values()) == {0}


def face(box: tuple[float, float, float, float], score: float, eyes: float = 40) -> Face:
    landmarks = np.array([[0, 0], [eyes, 0], [20, 20], [5, 40], [35, 40]], dtype=np.float32)
    return Face(box, landmarks, score)


@pytest.mark.parametrize(
    ("candidate", "outcome"),
    [
        (face((100, 100, 300, 300), 0.99), FaceOutcome.KEPT),
        (face((100, 100, 300, 300), 0.98), FaceOutcome.LOW_SCORE),
        (face((100, 100, 228, 300), 0.99), FaceOutcome.TOO_SMALL),
        (face((100, 100, 300, 228), 0.99), FaceOutcome.TOO_SMALL),
        (face((-150, 100, 50, 300), 0.99), FaceOutcome.OUTSIDE_IMAGE),
        (face((-90, 100, 110, 300), 0.99), FaceOutcome.KEPT),
        (face((100, 100, 300, 300), 0.99, eyes=3), FaceOutcome.DEGENERATE_LANDMARKS),
        (face((100, 100, 110, 110), 0.1, eyes=0), FaceOutcome.LOW_SCORE),
    ],
)
def test_outcomes(candidate: Face, outcome: FaceOutcome) -> None:
    assert judge_face(candidate, (400, 400), CropRules()) is outcome


@given(
    corner=st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
    sides=st.tuples(st.floats(1, 600), st.floats(1, 600)),
    score=st.floats(0.5, 1),
)
def test_stricter_rules_never_keep_more(corner: tuple[float, float], sides: tuple[float, float], score: float) -> None:
    candidate = face((*corner, corner[0] + sides[0], corner[1] + sides[1]), score)
    if judge_face(candidate, (400, 400), CropRules()) is FaceOutcome.KEPT:
        assert judge_face(candidate, (400, 400), CropRules(min_score=0.9, min_side=64)) is FaceOutcome.KEPT
        assert score > 0.98
        assert candidate.width > 128
        assert candidate.height > 128


@pytest.mark.parametrize(
    ("rule", "value"), [("min_score", 1.1), ("min_score", -0.1), ("min_side", 0), ("margin", 3.0), ("margin", -0.1)]
)
def test_bad_rules_are_named(rule: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"\n{rule}\n"):
        CropRules(**{rule: value})  # type: ignore[arg-type]
