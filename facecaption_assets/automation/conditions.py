"""What follows the shards by itself: statistics, release and benchmark tables, and how old the release may be.

A shard that is missing or at work does not hold a summary up: the assets themselves leave out what is not there. Dagster's
own ``on_cron`` and ``eager`` would wait for all 5,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import dagster as dg

from facecaption_assets.automation.jobs import sensor_status
from facecaption_assets.automation.schedules import checked_cron
from facecaption_assets.partitions import STATISTICS_ASSETS
from facecaption_assets.settings import Settings

RELEASE_ASSET = dg.AssetKey("facecaption_release")
TABLES = dg.AssetKey("benchmark_tables")
_SUMMARIES = {*(dg.AssetKey(name) for name in STATISTICS_ASSETS), RELEASE_ASSET}


def automated(settings: Settings, assets: Sequence[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """The assets, where they summarise others with the condition under which they follow them, and the release's freshness.

    Raises SettingsError for a cron line that is none.
    """
    follow = summary_condition(settings)

    def with_condition(spec: dg.AssetSpec) -> dg.AssetSpec:
        if spec.key in _SUMMARIES and follow is not None:
            spec = spec.replace_attributes(automation_condition=follow)
        if spec.key == TABLES:
            spec = spec.replace_attributes(automation_condition=tables_condition())
        if spec.key == RELEASE_ASSET and settings.automation.release_freshness_hours:
            window = timedelta(hours=settings.automation.release_freshness_hours)
            spec = spec.replace_attributes(freshness_policy=dg.FreshnessPolicy.time_window(fail_window=window))
        return spec

    return [asset.map_asset_specs(with_condition) for asset in assets]


def summary_condition(settings: Settings) -> dg.AutomationCondition | None:
    """At each tick of ``summary_cron``: if anything upstream is newer, whatever else is missing; None without a cron line."""
    if not settings.automation.summary_cron:
        return None
    cron = checked_cron(settings, "summary_cron")
    tick: dg.AutomationCondition = dg.AutomationCondition.cron_tick_passed(cron, settings.automation.timezone)
    newer = dg.AutomationCondition.any_deps_updated().since_last_handled()
    return (tick.since_last_handled() & newer & ~dg.AutomationCondition.in_progress()).with_label(
        "daily, if any shard is newer"
    )


def tables_condition() -> dg.AutomationCondition:
    """When a benchmark has been measured and no other is being measured; the ablation's long trainings are not waited for."""
    measuring = dg.AutomationCondition.any_deps_in_progress().ignore(dg.AssetSelection.assets("flip_ablation"))
    newer = dg.AutomationCondition.any_deps_updated().since_last_handled()
    return (newer & ~measuring & ~dg.AutomationCondition.in_progress()).with_label("when benchmarks are done")


def summaries_sensor(settings: Settings) -> dg.AutomationConditionSensorDefinition:
    """The sensor that looks at these conditions, every 30 s."""
    return dg.AutomationConditionSensorDefinition(
        "summaries",
        target=dg.AssetSelection.assets(*_SUMMARIES, TABLES),
        default_status=sensor_status(settings),
        description="Statistics and release once a day if a shard is newer, benchmark_tables after benchmarks.",
    )
