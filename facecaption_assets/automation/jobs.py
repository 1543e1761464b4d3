"""Jobs over the assets, and whether what asks for them is on from the start."""

from collections.abc import Collection
from typing import Final

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from facecaption_assets.partitions import BENCHMARK_ASSETS, SHARD_ASSETS, STATISTICS_ASSETS
from facecaption_assets.settings import Settings

_ASSETS: Final[dict[str, tuple[str, ...]]] = {}
"""What each job may materialize, by its name."""


def _job(name: str, assets: Collection[str], description: str) -> UnresolvedAssetJobDefinition:
    _ASSETS[name] = tuple(assets)
    return dg.define_asset_job(name, selection=dg.AssetSelection.assets(*assets), description=description)


MANIFEST_INTAKE = _job(
    "manifest_intake",
    ["source_manifest"],
    "The shards of FACECAPTION_SOURCE or, with a manifest in the run's config, those of one more manifest.",
)

ATTRIBUTE_TRAINING = _job(
    "attribute_training",
    ["attribute_model"],
    "The predictor of the 40 attributes: trained here, or as the settings name it.",
)

SHARD_PIPELINE = _job("shard_pipeline", SHARD_ASSETS, "One shard, or a range of them, from URLs to released pairs.")

RELEASE = _job(
    "release",
    [*STATISTICS_ASSETS, "facecaption_release"],
    "The statistics of every finished shard, and the packed release with its data card.",
)

FLIP_TRAINING = _job(
    "flip_training",
    ["flip_checkpoint"],
    "One variant of FLIP, or all three as a backfill, on every finished shard.",
)

BENCHMARK_JOBS = (
    *(
        _job(
            f"benchmark_{task}",
            [asset],
            f"The benchmark '{task}' of one model on one data set, or of the whole grid as a backfill.",
        )
        for task, asset in BENCHMARK_ASSETS.items()
    ),
    _job(
        "ablation",
        ["flip_ablation"],
        "One variant of FLIP trained anew with one seed and measured, or all of them as a backfill.",
    ),
    _job("benchmark_report", ["benchmark_tables"], "The tables of every benchmark that has been measured."),
)

JOBS = (MANIFEST_INTAKE, ATTRIBUTE_TRAINING, SHARD_PIPELINE, RELEASE, FLIP_TRAINING, *BENCHMARK_JOBS)


def job_of(assets: Collection[str]) -> str | None:
    """The name of the job that materializes all of ``assets``; None where none does."""
    return next((name for name, own in _ASSETS.items() if set(assets) <= set(own)), None)


def sensor_status(settings: Settings) -> dg.DefaultSensorStatus:
    return dg.DefaultSensorStatus.RUNNING if settings.automation.enabled else dg.DefaultSensorStatus.STOPPED
