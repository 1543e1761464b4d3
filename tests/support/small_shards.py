"""A shard asset of one row a shard, for tests of what every shard asset does."""

from __future__ import annotations

import dagster as dg
import polars as pl

from facecaption_assets.factories.shards import ShardOpener, shard_asset
from facecaption_assets.machines.compute import CPU
from facecaption_assets.settings import Settings
from facecaption_ml.schemas import SCHEMAS

KEY = dg.AssetKey("template_captions")
SHARDS = ["shard-00000", "shard-00001", "shard-00002"]
RANGE = {"dagster/asset_partition_range_start": SHARDS[0], "dagster/asset_partition_range_end": SHARDS[-1]}


def rows(shard: str) -> pl.DataFrame:
    row = {"face_id": f"{shard}_0", "template_caption": "A person.", "labels": []}
    return pl.DataFrame([row], dict(SCHEMAS["template_captions"]))


def small_shard_asset(open_work: ShardOpener, settings: Settings, **checks: str) -> dg.AssetsDefinition:
    """``checks``: names to descriptions."""
    return shard_asset(
        name="template_captions", open_work=open_work, checks=checks, settings=settings, compute=CPU, code_version="1", reads=("seed",),
        deps=[], group="captions", kinds={"polars"}, description="under test",
    )  # fmt: skip
