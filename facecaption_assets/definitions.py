"""The code location: everything assembled, nothing else."""

import dagster as dg

from facecaption_assets.assets.ablation import ablation_assets
from facecaption_assets.assets.attributes import attribute_assets
from facecaption_assets.assets.benchmarks import benchmark_assets
from facecaption_assets.assets.captions import caption_assets
from facecaption_assets.assets.demonstration import demonstration_asset
from facecaption_assets.assets.faces import face_assets
from facecaption_assets.assets.flip import flip_assets
from facecaption_assets.assets.release import release_assets
from facecaption_assets.assets.source import source_assets
from facecaption_assets.assets.statistics import statistics_assets
from facecaption_assets.automation.alerts import failure_alert_sensor
from facecaption_assets.automation.conditions import automated, summaries_sensor
from facecaption_assets.automation.jobs import JOBS
from facecaption_assets.automation.schedules import schedules
from facecaption_assets.automation.sensors import new_manifests_sensor
from facecaption_assets.factories.code_links import with_code_links
from facecaption_assets.machines.executors import build_executor
from facecaption_assets.resources.data import build_resources
from facecaption_assets.settings import Settings, load_settings


def build_definitions(settings: Settings) -> dg.Definitions:
    """The definitions under given settings."""
    assets = [
        *source_assets(settings),
        *face_assets(settings),
        *attribute_assets(settings),
        *caption_assets(settings),
        demonstration_asset(settings),
        *statistics_assets(settings),
        *release_assets(settings),
        *flip_assets(settings),
        *benchmark_assets(settings),
        *ablation_assets(settings),
    ]
    return dg.Definitions(
        assets=with_code_links(settings, automated(settings, assets)),
        schedules=schedules(settings),
        sensors=[new_manifests_sensor(settings), failure_alert_sensor(settings), summaries_sensor(settings)],
        jobs=JOBS,
        resources=build_resources(settings),
        executor=build_executor(settings.deploy),
    )


defs = build_definitions(load_settings())
