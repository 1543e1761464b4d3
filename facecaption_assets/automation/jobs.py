"""Jobs over the assets."""

from typing import Final

import dagster as dg

from facecaption_ml.schemas import SHARD_TABLES

SHARD_ASSETS: Final = SHARD_TABLES[1:]
"""The assets that are partitioned by shard, in the order in which they depend on each other."""

STATISTICS_ASSETS: Final = ("dataset_comparison", "image_quality", "text_statistics", "image_text_matching")
"""The statistics in the order of the paper, which the data card follows."""

MANIFEST_INTAKE = dg.define_asset_job(
    "manifest_intake",
    selection=dg.AssetSelection.assets("source_manifest"),
    description="The shards of FACECAPTION_SOURCE or, with a manifest in the run's config, those of one more manifest.",
)

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

BENCHMARK_ASSETS: Final = {
    "retrieval": "retrieval_benchmark",
    "attributes": "attribute_benchmark",
    "sketches": "sketch_benchmark",
}
"""The asset of each benchmark."""

BENCHMARK_JOBS = (
    *(
        dg.define_asset_job(
            f"{asset}_job",
            selection=dg.AssetSelection.assets(asset),
            description=f"The benchmark '{task}' of one model on one data set, or of the whole grid as a backfill.",
        )
        for task, asset in BENCHMARK_ASSETS.items()
    ),
    dg.define_asset_job(
        "ablation",
        selection=dg.AssetSelection.assets("flip_ablation"),
        description="One variant of FLIP trained anew with one seed and measured, or all of them as a backfill.",
    ),
    dg.define_asset_job(
        "benchmark_tables_job",
        selection=dg.AssetSelection.assets("benchmark_tables"),
        description="The tables of every benchmark that has been measured.",
    ),
)
