"""Jobs over the assets."""

from typing import Final

import dagster as dg

SHARD_ASSETS: Final = (
    "raw_images",
    "face_crops",
    "face_attributes",
    "template_captions",
    "llm_captions",
    "facecaption_dataset",
)
"""The assets that are partitioned by shard, in the order in which they depend on each other."""

STATISTICS_ASSETS: Final = ("dataset_comparison", "image_quality", "text_statistics", "image_text_matching")
"""The statistics in the order of the paper, which the data card follows."""

SHARD_PIPELINE = dg.define_asset_job(
    "shard_pipeline",
    selection=dg.AssetSelection.assets(*SHARD_ASSETS),
    description="One shard, or a range of them, from URLs to released pairs.",
)

RELEASE = dg.define_asset_job(
    "release",
    selection=dg.AssetSelection.assets(*STATISTICS_ASSETS, "facecaption_release"),
    description="The statistics of every finished shard, and the packed release with its data card.",
)

FLIP_TRAINING = dg.define_asset_job(
    "flip_training",
    selection=dg.AssetSelection.assets("flip_checkpoint"),
    description="One variant of FLIP, or all three as a backfill, on every finished shard.",
)
