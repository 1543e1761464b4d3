"""From a face back to its URL: which shard holds it, and what each table says of it.

Finding the shard reads one column of ids of each shard of ``facecaption_dataset``, several shards at once, and stops at the
first that has the face; a face that is not released is looked for in ``source_manifest`` by its sample id. There is no index to
keep in step. Of the shard that has the face, single row groups are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import polars as pl

from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.schemas import DATASET, SCHEMAS, SHARD_TABLES
from facecaption_ml.storage.store import Store

_BY_SAMPLE: Final = ("source_manifest", "raw_images")
_ID: Final = re.compile(r"(?P<sample>[0-9a-f]{16})(?:_(?P<rank>\d+))?")
_AT_ONCE: Final = 16  # shards that are looked into side by side


class UnknownFaceError(FaceCaptionError):
    """An id that is malformed or that no table has; the message says what an id looks like, or where was looked."""


@dataclass(frozen=True)
class Step:
    """What one table says of a face. ``has_shard``: the table has the shard at all; ``row``: None where it has no such row.

    Of pictures, ``row`` has the number of bytes (``bytes``) and not the pixels.
    """

    table: str
    has_shard: bool
    row: dict[str, Any] | None


def package_version() -> str:
    """The version of the installed code."""
    return version("facecaption")


def parse_id(text: str) -> tuple[str, str | None]:
    """``(sample id, face id)`` of a face id, ``(sample id, None)`` of a sample id. Raises UnknownFaceError."""
    parts = _ID.fullmatch(text.strip().lower())
    if not parts:
        raise UnknownFaceError(
            f"{text[:60]!r} is no face id: 16 hex digits, an underscore and a number, such as 0123456789abcdef_0"
        )
    return parts["sample"], parts[0] if parts["rank"] else None


def find_shard(store: Store, sample_id: str, face_id: str | None) -> str:
    """The shard that holds a face, or a source row. Raises UnknownFaceError where none does."""
    start = face_id or f"{sample_id}_"
    released = _first_shard(store, DATASET, ["face_id"], lambda frame: _begins(frame, start, face_id))
    if released is not None:
        return released
    # A repeated URL has a row in each place; the first is the one that was fetched.
    own = (pl.col("sample_id") == sample_id) & ~pl.col("duplicate_url")
    columns = ["sample_id", "duplicate_url"]
    shard = _first_shard(store, "source_manifest", columns, lambda frame: not frame.filter(own).is_empty())
    if shard is None:
        shards = len(store.shards("source_manifest"))
        raise UnknownFaceError(f"no source row has the id {sample_id} ({shards} shards under {store.root})")
    return shard


def faces_of(store: Store, shard: str, sample_id: str) -> list[str]:
    """The ids of the kept faces of a picture, in order."""
    if not store.has_table("face_crops", shard):
        return []
    crops = store.read_table("face_crops", shard, columns=["face_id", "sample_id"])
    return crops.filter(pl.col("sample_id") == sample_id)["face_id"].sort().to_list()


def trail(store: Store, shard: str, sample_id: str, face_id: str | None) -> list[Step]:
    """A step for each table of ``SHARD_TABLES``; those that need a face have no row where ``face_id`` is None."""
    steps = []
    for table in SHARD_TABLES:
        if not store.has_table(table, shard):
            steps.append(Step(table, False, None))
            continue
        key, value = ("sample_id", sample_id) if table in _BY_SAMPLE else ("face_id", face_id)
        columns = [name for name in SCHEMAS[table] if name != "image" or table in ("raw_images", "face_crops")]
        steps.append(Step(table, True, None if value is None else _row(store, table, shard, key, value, columns)))
    return steps


def _begins(frame: pl.DataFrame, start: str, face_id: str | None) -> bool:
    ids = frame["face_id"]
    return bool((ids == face_id).any() if face_id else ids.str.starts_with(start).any())


def _first_shard(store: Store, table: str, columns: Sequence[str], holds: Callable[[pl.DataFrame], bool]) -> str | None:
    shards = store.shards(table)
    pool = ThreadPoolExecutor(_AT_ONCE, "search")
    try:
        answers = pool.map(lambda shard: holds(store.read_table(table, shard, columns=columns)), shards)
        return next((shard for shard, held in zip(shards, answers, strict=True) if held), None)
    finally:
        pool.shutdown(cancel_futures=True)


def _row(store: Store, table: str, shard: str, key: str, value: str, columns: Sequence[str]) -> dict[str, Any] | None:
    """The first row whose ``key`` is ``value``, by row groups: the ids of each, and everything of the one that has it."""
    with store.open_table(table, shard) as parquet:
        for group in range(parquet.num_row_groups):
            ids = parquet.read_row_group(group, columns=[key])[key].to_pylist()
            if value in ids:
                frame = pl.from_arrow(parquet.read_row_group(group, columns=list(columns)))
                assert isinstance(frame, pl.DataFrame)
                row = frame.row(ids.index(value), named=True)
                image = row.pop("image", None)
                return {**row, "bytes": len(image["bytes"])} if image and image["bytes"] else row
    return None
