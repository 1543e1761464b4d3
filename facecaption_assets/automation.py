"""Jobs over the assets."""

from typing import Final

import dagster as dg

SHARD_ASSETS: Final = ("raw_images", "face_crops", "face_attributes", "template_captions", "facecaption_dataset")
"""The assets that are partitioned by shard, in the order in which they depend on each other."""

SHARD_PIPELINE = dg.define_asset_job(
    "shard_pipeline",
    selection=dg.AssetSelection.assets(*SHARD_ASSETS),
    description="One shard, or a range of them, from URLs to released pairs.",
)
