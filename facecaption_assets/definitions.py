"""The code location: everything assembled, nothing else."""

import dagster as dg

from facecaption_assets.assets.ablation import ablation_assets
from facecaption_assets.assets.attributes import attribute_assets
from facecaption_assets.assets.benchmarks import benchmark_assets
from facecaption_assets.assets.captions import caption_assets
from facecaption_assets.assets.faces import face_assets
from facecaption_assets.assets.flip import flip_assets
from facecaption_assets.assets.release import release_assets
from facecaption_assets.assets.source import source_assets
from facecaption_assets.assets.statistics import statistics_assets
from facecaption_assets.automation import BENCHMARK_JOBS, FLIP_TRAINING, RELEASE, SHARD_PIPELINE
from facecaption_assets.resources import build_resources
from facecaption_assets.settings import Settings, load_settings


def build_definitions(settings: Settings) -> dg.Definitions:
    """The definitions under given settings."""
    return dg.Definitions(
        assets=[
            *source_assets(settings),
            *face_assets(settings),
            *attribute_assets(settings),
            *caption_assets(settings),
            *statistics_assets(settings),
            *release_assets(settings),
            *flip_assets(settings),
            *benchmark_assets(settings),
            *ablation_assets(settings),
        ],
        jobs=[SHARD_PIPELINE, RELEASE, FLIP_TRAINING, *BENCHMARK_JOBS],
        resources=build_resources(settings),
        # A run is a process of its own already; one more for each step would load torch anew each time.
        executor=dg.in_process_executor,
    )


defs = build_definitions(load_settings())
