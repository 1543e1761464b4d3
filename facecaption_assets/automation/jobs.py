"""Jobs over the assets, and whether what asks for them is on from the start."""

import dagster as dg

from facecaption_assets.partitions import BENCHMARK_ASSETS, SHARD_ASSETS, STATISTICS_ASSETS
from facecaption_assets.settings import Settings

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


def sensor_status(settings: Settings) -> dg.DefaultSensorStatus:
    return dg.DefaultSensorStatus.RUNNING if settings.automation.enabled else dg.DefaultSensorStatus.STOPPED
