"""Why a shard has no input: it is in no source, its file is gone, or the asset before it has not made it."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from facecaption_ml.schemas import SHARD_TABLES, SOURCE
from facecaption_ml.storage.store import Store


def why_missing(instance: dg.DagsterInstance, store: Store, assets: Sequence[str], shard: str) -> str | None:
    """The line for the first of these assets whose table lacks the shard, with what to do; None where none does."""
    if not store.has_table(SOURCE, shard):
        known = store.shards(SOURCE)
        there = f"its shards run from {known[0]} to {known[-1]}" if known else "it has no shard yet"
        return (
            f"{shard} is in no source ({there}): take the partition out again, or add a manifest with its images"
            if known
            else "there is no source_manifest yet: materialize source_manifest first"
        )
    for asset in (name for name in SHARD_TABLES if name in assets):
        if store.has_table(asset, shard):
            continue
        uri = store.uri(store.table_key(asset, shard))
        latest = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[shard]), limit=1
        ).records
        if latest:
            return f"{asset} has made {shard}, but its file {uri} is gone: materialize {asset} of {shard} again"
        return f"{asset} has not made {shard} yet: materialize it first"
    return None
