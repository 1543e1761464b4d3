"""How many rows each stage of the pipeline has left, per shard or over all: one definition for status, card and figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from facecaption_ml.schemas import SHARD_TABLES
from facecaption_ml.storage.store import Store

_ROWS: Final = (
    "URLs",
    "images fetched",
    "face crops kept",
    "faces with enough labels",
    "captioned faces",
    "faces with their final caption",
    "released pairs",
)
STAGES: Final = tuple(zip(SHARD_TABLES, _ROWS, strict=True))
"""Table of each stage and what its rows are."""


def shard_counts(store: Store, shard: str) -> dict[str, int | None]:
    """Table → rows of one shard; None where the shard of that table is not there."""

    def count(table: str) -> int:
        if table == "raw_images":
            return int((store.read_table(table, shard, columns=["status"])["status"] == "ok").sum())
        return store.row_count(table, shard)

    return {table: count(table) if store.has_table(table, shard) else None for table, _ in STAGES}


def total_counts(store: Store, shards: Sequence[str]) -> dict[str, int]:
    """What the rows are → how many, over the given shards; shards that are not there count as nothing."""
    totals = dict.fromkeys((label for _, label in STAGES), 0)
    for shard in shards:
        for (_, label), count in zip(STAGES, shard_counts(store, shard).values(), strict=True):
            totals[label] += count or 0
    return totals
