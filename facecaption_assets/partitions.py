"""How assets are partitioned."""

from __future__ import annotations

import dagster as dg

SHARDS = dg.DynamicPartitionsDefinition(name="shards")
"""Shards of the source, registered by ``source_manifest``: ``shard-00000`` and on."""

VARIANTS = dg.StaticPartitionsDefinition(["flip", "flip_template", "flip_alt_text"])
"""FLIP, FLIP* and FLIP† of the paper: what a checkpoint learned from (``facecaption_ml.flip.config.TEXT_COLUMNS``)."""
