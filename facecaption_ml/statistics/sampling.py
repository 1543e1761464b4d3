"""Samples that do not depend on the order of what is sampled: the names with the smallest hashes; and faces of a store."""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

import polars as pl

from facecaption_ml.schemas import DATASET
from facecaption_ml.storage.store import Store

_CROPS: Final = "face_crops"
_BATCH_ROWS: Final = 10_000  # of ids, without pixels
T = TypeVar("T")


def sample_key(name: str, seed: int = 0) -> int:
    """64 bits of the SHA-256 of ``seed`` and ``name``."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()[:8], "big")


def hashed_sample(items: Iterable[tuple[str, T]], limit: int | None, seed: int = 0) -> Iterator[tuple[str, T]]:
    """At most ``limit`` of the (name, item) pairs, those with the smallest keys, by key; all, as they come, for None.

    Holds ``limit`` items at a time. Raises ValueError for a negative limit.
    """
    if limit is None:
        return iter(items)
    if limit < 0:
        raise ValueError(f"limit: {limit} is negative")
    keyed = ((sample_key(name, seed), name, item) for name, item in items)
    chosen = heapq.nsmallest(limit, keyed, key=lambda entry: entry[:2])
    return ((name, item) for _, name, item in chosen)


def sampled_faces(store: Store, shards: Iterable[str], limit: int, seed: int) -> Mapping[str, Sequence[str]]:
    """Shard → the face ids of a sample of ``facecaption_dataset`` that lie in it; the sample does not depend on the shards."""
    faces = (
        (face_id, shard)
        for shard in shards
        for frame in store.iter_table(DATASET, shard, columns=("face_id",), batch_rows=_BATCH_ROWS)
        for face_id in frame["face_id"].to_list()
    )
    by_shard: dict[str, list[str]] = defaultdict(list)
    for face_id, shard in hashed_sample(faces, limit, seed):
        by_shard[shard].append(face_id)
    return dict(sorted(by_shard.items()))


def crops_of(store: Store, shard: str, face_ids: Sequence[str]) -> Iterator[bytes | None]:
    """The encoded crops of these faces, in no order; None for one that ``face_crops`` does not hold any more."""
    missing = set(face_ids)
    if store.has_table(_CROPS, shard):
        for frame in store.iter_table(_CROPS, shard, columns=("face_id", "image")):
            wanted = frame.filter(pl.col("face_id").is_in(list(missing)))
            for face_id, data in wanted.select("face_id", pl.col("image").struct.field("bytes")).iter_rows():
                missing.discard(face_id)
                yield data
            if not missing:
                return
    yield from [None] * len(missing)


def crop_frames(store: Store, shards: Iterable[str]) -> Iterator[pl.DataFrame]:
    """Face ids and pictures of every shard whose ``face_crops`` are there."""
    for shard in shards:
        if store.has_table(_CROPS, shard):
            yield from store.iter_table(_CROPS, shard, columns=("face_id", "image"))
