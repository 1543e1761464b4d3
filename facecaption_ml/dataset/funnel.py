"""How many rows each stage of the pipeline has left, per shard or over all: one definition for status, card and figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from facecaption_ml.schemas import SHARD_TABLES
from facecaption_ml.storage.store import Store

_ROWS: Final = (
    "URLs",
    "images fetched",
    "face crops kept",
    "faces with more than five labels",
    "captioned faces",
    "faces with their final caption",
    "released pairs",
)
STAGES: Final = tuple(zip(SHARD_TABLES, _ROWS, strict=True))
"""Table of each stage and what its rows are."""


def shard_counts(store: Store, shard: str) -> dict[str, int | None]:
    """Table → rows of one shard; None where the shard of that table is not there."""
    return {table: _count(store, table, shard) if store.has_table(table, shard) else None for table, _ in STAGES}


def total_counts(store: Store, shards: Sequence[str]) -> dict[str, int]:
    """What the rows are → how many, over the given shards; shards that are not there count as nothing."""
    totals = dict.fromkeys((label for _, label in STAGES), 0)
    for shard in shards:
        for (_, label), count in zip(STAGES, shard_counts(store, shard).values(), strict=True):
            totals[label] += count or 0
    return totals


def _count(store: Store, table: str, shard: str) -> int:
    counter = _COUNTERS.get(table)
    return counter(store, shard) if counter else store.row_count(table, shard)


def _fetched(store: Store, shard: str) -> int:
    return int((store.read_table("raw_images", shard, columns=["status"])["status"] == "ok").sum())


_COUNTERS: Final[dict[str, Callable[[Store, str], int]]] = {"raw_images": _fetched}
