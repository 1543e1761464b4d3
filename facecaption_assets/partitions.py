"""How assets are partitioned."""

from __future__ import annotations

from typing import Final

import dagster as dg

SHARDS = dg.DynamicPartitionsDefinition(name="shards")
"""Shards of the source, registered by ``source_manifest``: ``shard-00000`` and on."""

RANGE_START_TAG: Final = "dagster/asset_partition_range_start"
RANGE_END_TAG: Final = "dagster/asset_partition_range_end"
PARTITION_TAG: Final = "dagster/partition"
"""Dagster's tags of a run: the ends of its range of partitions, or its only one."""

SEEDS: Final = ("0", "1", "2")
"""Of the ablation's trainings."""

HUB_MODELS: Final = ("clip", "blip", "align")
"""The baselines of the paper (``facecaption_ml.benchmarks.encoders.hub_models``)."""

VARIANTS = dg.StaticPartitionsDefinition(["flip", "flip_template", "flip_alt_text"])
"""FLIP, FLIP* and FLIP† of the paper: what a checkpoint learned from (``facecaption_ml.flip.training.config.TEXT_COLUMNS``)."""

BENCHMARK_DATA: Final = {
    "retrieval": ("celeba_caption", "mm_celeba_hq", "sample"),
    "attributes": ("celeba", "lfwa", "sample"),
    "sketches": ("fs2k_sde1", "fs2k_sde2", "user_sde", "photos", "sample"),
}
"""The data sets of each benchmark; ``sample`` is drawn (``facecaption_ml.benchmarks.datasets.sample``)."""

_NO_LAYERS: Final = "align"  # an EfficientNet: nothing to probe layer by layer


def benchmark_models(task: str) -> list[str]:
    """The models of a benchmark: FLIP's variants, and the baselines that can take part."""
    hub = [name for name in HUB_MODELS if task != "attributes" or name != _NO_LAYERS]
    return [*VARIANTS.get_partition_keys(), *hub]


BENCHMARK_GRIDS: Final = {
    task: dg.MultiPartitionsDefinition(
        {
            "data": dg.StaticPartitionsDefinition(list(data)),
            "model": dg.StaticPartitionsDefinition(benchmark_models(task)),
        }
    )
    for task, data in BENCHMARK_DATA.items()
}
"""Model × data set; a key is written ``data|model``."""

ABLATION = dg.MultiPartitionsDefinition({"seed": dg.StaticPartitionsDefinition(list(SEEDS)), "variant": VARIANTS})
"""Trainings of each variant with each seed; a key is written ``seed|variant``."""


def all_of(asset: str) -> dg.AssetDep:
    """Every partition depends on all partitions of ``asset``, whose keys are others.

    Without it Dagster looks for partitions of the same key, and a backfill fails where there are none.
    """
    return dg.AssetDep(asset, partition_mapping=dg.AllPartitionMapping())
