"""From a face back to its URL: which shard holds it, and what each table says of it.

Finding the shard reads one column of ids of each shard of ``facecaption_dataset``, several shards at once, and stops at the
first that has the face; a face that is not released is looked for in ``source_manifest`` by its sample id. There is no index to
keep in step. Of the shard that has the face, single row groups are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, Final, TypeVar

import polars as pl

from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.schemas import DATASET, SCHEMAS, SHARD_TABLES
from facecaption_ml.storage.store import Store

_BY_SAMPLE: Final = ("source_manifest", "raw_images")
_ID: Final = re.compile(r"(?P<sample>[0-9a-f]{16})(?:_(?P<rank>\d+))?")
_AT_ONCE: Final = 16  # shards that are looked into side by side
_T = TypeVar("_T")


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
    of_face = pl.col("face_id") == face_id if face_id else pl.col("face_id").str.starts_with(f"{sample_id}_")
    # A repeated URL has a row in each place; the first is the one that was fetched.
    of_sample = (pl.col("sample_id") == sample_id) & ~pl.col("duplicate_url")
    for table, condition in ((DATASET, of_face), ("source_manifest", of_sample)):
        read = partial(store.read_table, table, columns=condition.meta.root_names())
        for shard, frame in over_shards(store, table, read):
            if not frame.filter(condition).is_empty():
                return shard
    shards = len(store.shards("source_manifest"))
    raise UnknownFaceError(f"no source row has the id {sample_id} ({shards} shards under {store.root})")


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
        key, value = ("sample_id", sample_id) if table in _BY_SAMPLE else ("face_id", face_id)
        has_shard = store.has_table(table, shard)
        steps.append(Step(table, has_shard, _row(store, table, shard, key, value) if value and has_shard else None))
    return steps


def _row(store: Store, table: str, shard: str, key: str, value: str) -> dict[str, Any] | None:
    """The first with ``value``, by row groups: the ids of each, and everything of the one that has it."""
    columns = [name for name in SCHEMAS[table] if name != "image" or table in ("raw_images", "face_crops")]
    with store.open_table(table, shard) as parquet:
        for group in range(parquet.num_row_groups):
            ids = parquet.read_row_group(group, columns=[key])[key].to_pylist()
            if value in ids:
                row = parquet.read_row_group(group, columns=columns).slice(ids.index(value), 1).to_pylist()[0]
                image = row.pop("image", None)
                return {**row, "bytes": len(image["bytes"])} if image and image["bytes"] else row
    return None


def over_shards(store: Store, table: str, look: Callable[[str], _T]) -> Iterator[tuple[str, _T]]:
    """``look`` at every shard of a table that the source has, several at once: in order, each with what it gave."""
    yield from over(store.registered_shards(table), look)


def over(shards: Sequence[str], look: Callable[[str], _T]) -> Iterator[tuple[str, _T]]:
    """``look`` at the named shards, several at once, in their order."""
    pool = ThreadPoolExecutor(_AT_ONCE, "shards")
    try:
        yield from zip(shards, pool.map(look, shards), strict=True)
    finally:
        pool.shutdown(cancel_futures=True)
