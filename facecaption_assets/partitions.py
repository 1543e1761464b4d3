"""How assets are partitioned, and their names by what they have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

import dagster as dg

from facecaption_ml.benchmarks.datasets.registry import data_sets
from facecaption_ml.benchmarks.encoders.registry import FLIP_VARIANTS, models_of
from facecaption_ml.benchmarks.result import TASKS
from facecaption_ml.schemas import SHARD_TABLES

T = TypeVar("T")

SHARD_ASSETS: Final = SHARD_TABLES[1:]
"""The assets that are partitioned by shard, in the order in which they depend on each other."""

STATISTICS_ASSETS: Final = ("dataset_comparison", "image_quality", "text_statistics", "image_text_matching")
"""The statistics in the order of the paper, which the data card follows."""

BENCHMARK_ASSETS: Final = {
    "retrieval": "retrieval_benchmark",
    "attributes": "attribute_benchmark",
    "sketches": "sketch_benchmark",
}
"""The asset of each benchmark."""

DEMONSTRATION: Final = "rewriting_demonstration"
"""What a small model would make of a few captions of the first shard."""

SHARDS = dg.DynamicPartitionsDefinition(name="shards")
"""Shards of the source, registered by ``source_manifest``: ``shard-00000`` and on."""

RANGE_START_TAG: Final = "dagster/asset_partition_range_start"
RANGE_END_TAG: Final = "dagster/asset_partition_range_end"
PARTITION_TAG: Final = "dagster/partition"
"""Dagster's tags of a run: the ends of its range of partitions, or its only one."""

REFETCH_TAG: Final = "facecaption/refetch"
"""The tag of a run that names, by commas, the statuses whose rows ``raw_images`` fetches again."""
RESUME_TAG: Final = "dagster/is_resume_retry"
"""Dagster's tag of a run that executes another one again from its failure."""

SEEDS: Final = ("0", "1", "2")
"""Of the ablation's trainings."""

VARIANTS = dg.StaticPartitionsDefinition(list(FLIP_VARIANTS))
"""FLIP, FLIP* and FLIP† of the paper: what a checkpoint learned from (``facecaption_ml.flip.training.config.TEXT_COLUMNS``)."""

BENCHMARK_GRIDS: Final = {
    task: dg.MultiPartitionsDefinition(
        {
            "data": dg.StaticPartitionsDefinition(list(data_sets(task))),
            "model": dg.StaticPartitionsDefinition(list(models_of(task))),
        }
    )
    for task in TASKS
}
"""Model × data set; a key is written ``data|model``."""

ABLATION = dg.MultiPartitionsDefinition({"seed": dg.StaticPartitionsDefinition(list(SEEDS)), "variant": VARIANTS})
"""Trainings of each variant with each seed; a key is written ``seed|variant``."""


def all_of(asset: str) -> dg.AssetDep:
    """Every partition depends on all partitions of ``asset``, whose keys are others.

    Without it Dagster looks for partitions of the same key, and a backfill fails where there are none.
    """
    return dg.AssetDep(asset, partition_mapping=dg.AllPartitionMapping())


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """``items`` in pieces of at most ``size``."""
    return (items[start : start + size] for start in range(0, len(items), size))
