"""What follows the shards by itself: statistics, release and benchmark tables; and how old they and the shards may be.

A shard that is missing or at work does not hold a summary up: the assets themselves leave out what is not there. Dagster's
own ``on_cron`` and ``eager`` would wait for all 5,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import dagster as dg

from facecaption_assets.automation.jobs import sensor_status
from facecaption_assets.automation.schedules import checked_cron
from facecaption_assets.partitions import SHARD_ASSETS, STATISTICS_ASSETS
from facecaption_assets.settings import Settings

RELEASE_ASSET = dg.AssetKey("facecaption_release")
TABLES = dg.AssetKey("benchmark_tables")
_SHARDS = {dg.AssetKey(name) for name in SHARD_ASSETS}
_SUMMARIES = {*(dg.AssetKey(name) for name in STATISTICS_ASSETS), RELEASE_ASSET}


def automated(settings: Settings, assets: Sequence[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """The assets, where they summarise others with the condition under which they follow them, and how old they may be.

    Raises SettingsError for a cron line that is none.
    """
    follow = summary_condition(settings)

    def with_condition(spec: dg.AssetSpec) -> dg.AssetSpec:
        if spec.key in _SUMMARIES and follow is not None:
            spec = spec.replace_attributes(automation_condition=follow)
        if spec.key == TABLES:
            spec = spec.replace_attributes(automation_condition=tables_condition())
        hours = _freshness_hours(settings, spec.key)
        if hours:
            spec = spec.replace_attributes(
                freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=hours))
            )
        return spec

    return [asset.map_asset_specs(with_condition) for asset in assets]


def _freshness_hours(settings: Settings, key: dg.AssetKey) -> float:
    """The age at which an asset counts as too old: what the nightly backfill builds, and what follows it; 0: never."""
    if key in _SUMMARIES:
        return settings.automation.release_freshness_hours
    return settings.automation.shard_freshness_hours if key in _SHARDS else 0.0


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
