"""Stores of face_crops and facecaption_dataset with pictures of one colour each, for the tests of the loader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from facecaption_ml.decoding import encode_jpeg
from facecaption_ml.flip.pairs.index import PairIndex, PairSource
from facecaption_ml.schemas import SCHEMAS
from facecaption_ml.storage.store import Store

SIDE = 24


def face_id(row: int) -> str:
    return f"{row:016x}_0"


def row_of(face: str) -> int:
    return int(face.partition("_")[0], 16)


def colour(row: int) -> tuple[int, int, int]:
    """Tells rows apart even after JPEG: steps of 16 in each channel."""
    return row % 16 * 16 + 8, row // 16 % 16 * 16 + 8, row // 256 % 16 * 16 + 8


def picture(row: int) -> bytes:
    return encode_jpeg(np.full((SIDE, SIDE, 3), colour(row), np.uint8))


def write_crops(
    store: Store, shard: str, rows: Sequence[int], *, broken: Sequence[int] = (), row_group_rows: int = 10
) -> None:
    """``broken`` rows have bytes that are no picture."""
    images = [{"bytes": b"\xff\xd8\xff broken" if row in broken else picture(row), "path": None} for row in rows]
    found = [{"face_id": face_id(row), "image": image} for row, image in zip(rows, images, strict=True)]
    frame = pl.DataFrame(found, dict(SCHEMAS["face_crops"]))
    store.write_table("face_crops", frame, shard, row_group_rows=row_group_rows)


def write_captions(
    store: Store, shard: str, captions: Mapping[int, str | None], splits: Mapping[int, str] | None = None
) -> None:
    """``captions`` by row; alt texts are their upper case. ``splits`` by row, train where there is none."""
    found = [
        {
            "face_id": face_id(row),
            "caption": text,
            "template_caption": text,
            "alt_text": text and text.upper(),
            "split": (splits or {}).get(row, "train"),
        }
        for row, text in captions.items()
    ]
    store.write_table("facecaption_dataset", pl.DataFrame(found, dict(SCHEMAS["facecaption_dataset"])), shard)


def write_pairs(
    store: Store, sizes: Sequence[int], *, broken: Sequence[int] = (), row_group_rows: int = 10
) -> PairSource:
    """Shards of so many pairs, rows counted through; row r's caption is "person r"."""
    shards, first = [], 0
    for number, size in enumerate(sizes):
        shard, rows = f"shard-{number:05d}", range(first, first + size)
        write_crops(store, shard, rows, broken=broken, row_group_rows=row_group_rows)
        # in another order than the crops: they are joined by id
        write_captions(store, shard, {row: f"person {row}" for row in reversed(rows)})
        shards.append(shard)
        first += size
    return PairSource(store, tuple(shards), "caption")


def index_of(groups: Sequence[int], store: Store) -> PairIndex:
    """An index of row groups with so many pairs each, without anything in the store."""
    rows = [np.arange(size, dtype=np.uint32) for size in groups]
    return PairIndex(
        PairSource(store, ("shard-00000",), "caption"),
        np.zeros(len(groups), np.int32),
        np.arange(len(groups), dtype=np.int32),
        np.cumsum([0, *groups], dtype=np.int64),
        np.concatenate([np.zeros(0, np.uint32), *rows]),
        Counter(pairs=int(sum(groups))),
        "version",
    )
