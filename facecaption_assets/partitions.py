"""How assets are partitioned."""

from __future__ import annotations

import dagster as dg

SHARDS = dg.DynamicPartitionsDefinition(name="shards")
"""Shards of the source, registered by ``source_manifest``: ``shard-00000`` and on."""
