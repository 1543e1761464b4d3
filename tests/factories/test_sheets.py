"""Sheets of released faces with their captions: whichever rows and crops there are."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
import polars as pl
import pytest

from facecaption_assets.factories.sheets import caption_sheet, crops_of, picture_sheet
from facecaption_ml.decoding import encode_jpeg
from facecaption_ml.schemas import DATASET, SCHEMAS, empty
from facecaption_ml.storage.store import Store

SHARDS = ("shard-00000", "shard-00001")
FACE = encode_jpeg(np.full((40, 30, 3), 200, np.uint8))


def table(name: str, rows: list[dict[str, object]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=dict(SCHEMAS[name])) if rows else empty(name)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A first shard without released rows, a second with two, of which one has lost its crop."""
    store = Store(str(tmp_path))
    kept = [{"face_id": f"{letter * 16}_0", "image": {"bytes": FACE, "path": "a.jpg"}} for letter in "ac"]
    released = [{"face_id": f"{letter * 16}_0", "caption": "A smiling woman. " * 12, "labels": []} for letter in "abc"]
    for shard, rows, crops in ((SHARDS[0], [], []), (SHARDS[1], released, kept)):
        store.write_table(DATASET, table(DATASET, rows), shard)
        store.write_table("face_crops", table("face_crops", crops), shard)
    return store


def shape(markdown: str) -> tuple[int, ...]:
    data = base64.b64decode(markdown.partition("base64,")[2].removesuffix(")"))
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape


def test_the_first_shard_with_released_faces_is_shown_without_those_whose_crops_are_gone(store: Store) -> None:
    sheet = caption_sheet(store, SHARDS)["faces and captions"].value
    height, width, _ = shape(sheet)
    assert width == 2 * 220 + 3 * 6  # two faces side by side
    assert height > 220 + 8 * 12  # with a caption of many lines


def test_no_released_face_no_sheet(store: Store) -> None:
    assert caption_sheet(store, SHARDS[:1]) == {}
    assert caption_sheet(store, []) == {}
    assert caption_sheet(store, SHARDS[1:], empty(DATASET)) == {}


def test_crops_come_in_the_order_that_is_asked_for(store: Store) -> None:
    asked = [f"{letter * 16}_0" for letter in "cba"]
    found = crops_of(store, SHARDS[1], asked)
    assert found["face_id"].to_list() == asked
    assert found["image"].is_null().to_list() == [False, True, False]
    assert crops_of(store, SHARDS[1], []).is_empty()


def test_fetched_pictures_are_shown_with_their_sizes() -> None:
    raw = pl.DataFrame({"image": [{"bytes": FACE, "path": "a"}] * 5, "width": [30] * 5, "height": [40] * 5})
    height, width, _ = shape(picture_sheet(raw, "pictures").value)
    assert width == 4 * 166 + 6
    assert height > 2 * 160
