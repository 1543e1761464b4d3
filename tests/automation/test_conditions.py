"""Statistics and release follow the shards although one is missing; all of it is off until it is switched on."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState
from dagster._core.definitions.freshness_evaluator import TimeWindowFreshnessPolicyEvaluator
from dagster._core.loader import LoadingContextForTest
from dagster._core.test_utils import freeze_time

from facecaption_assets.automation.schedules import available_data
from facecaption_assets.definitions import build_definitions
from facecaption_assets.partitions import BENCHMARK_ASSETS, SHARD_ASSETS, STATISTICS_ASSETS
from facecaption_assets.settings import SettingsError, load_settings

SUMMARIES = {*STATISTICS_ASSETS, "facecaption_release"}
SCHEDULES = ["nightly_backfill", *(f"weekly_{asset}" for asset in BENCHMARK_ASSETS.values())]
SENSORS = ["new_manifests", "failure_alerts", "summaries"]


@cache
def definitions(**more: object) -> dg.Definitions:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build_definitions(load_settings(**{"profile": "photos", **more}))


class Ticks:
    """The summaries' sensor tick by tick, at times of the test's own."""

    def __init__(self) -> None:
        self.definitions = definitions()
        self.instance = dg.DagsterInstance.ephemeral()
        self.cursor = None
        self.time = datetime(2026, 3, 2, 5, 50, tzinfo=UTC)

    def make(self, asset: str, partitions: Sequence[str | None]) -> None:
        for partition in partitions:
            self.instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition))

    def at(self, **ahead: int) -> set[str]:
        """The assets that are asked for when that much time has gone by."""
        self.time += timedelta(**ahead)
        result = dg.evaluate_automation_conditions(
            self.definitions, self.instance, cursor=self.cursor, evaluation_time=self.time
        )
        self.cursor = result.cursor
        wanted = (*SUMMARIES, "benchmark_tables")
        return {asset for asset in wanted if result.get_num_requested(dg.AssetKey(asset))}


@pytest.mark.slow
def test_summaries_follow_49_of_50_shards_once_at_the_next_tick() -> None:
    ticks = Ticks()
    shards = [f"shard-{number:05d}" for number in range(50)]
    ticks.instance.add_dynamic_partitions("shards", shards)
    assert ticks.at() == set()
    for asset in ("raw_images", "face_crops", "facecaption_dataset"):
        ticks.make(asset, shards[:49])
    assert ticks.at(minutes=5) == set()  # not the hour yet
    assert ticks.at(minutes=10) == SUMMARIES
    assert ticks.at(minutes=1) == set()
    for asset in SUMMARIES:
        ticks.make(asset, [None])
    assert ticks.at(minutes=1) == set()
    assert ticks.at(days=1) == set()  # no shard is newer
    ticks.make("facecaption_dataset", shards[49:])
    assert ticks.at(minutes=1) == SUMMARIES  # the last tick of the day before had nothing to do


def test_the_tables_follow_a_benchmark() -> None:
    ticks = Ticks()
    assert ticks.at() == set()
    ticks.make("retrieval_benchmark", ["sample|flip"])
    assert ticks.at(minutes=1) == {"benchmark_tables"}
    assert ticks.at(minutes=1) == set()


def test_everything_is_off_on_a_laptop_and_on_in_production() -> None:
    for profile, found in (("sample", "STOPPED"), ("photos", "STOPPED"), ("production", "RUNNING")):
        defs = definitions(profile=profile)
        for name in SCHEDULES:
            assert defs.resolve_schedule_def(name).default_status.value == found, (profile, name)
        for name in SENSORS:
            assert defs.resolve_sensor_def(name).default_status.value == found, (profile, name)
        assert {sensor.name for sensor in defs.get_repository_def().sensor_defs} == set(SENSORS)


def test_schedules_have_the_time_zone_and_the_cron_lines_of_the_settings() -> None:
    defs = definitions(timezone="Europe/Berlin", nightly_cron="5 4 * * *")
    assert all(defs.resolve_schedule_def(name).execution_timezone == "Europe/Berlin" for name in SCHEDULES)
    assert defs.resolve_schedule_def("nightly_backfill").cron_schedule == "5 4 * * *"
    with pytest.raises(SettingsError, match=r"FACECAPTION_TIMEZONE is 'Berlin': .*not a time zone"):
        load_settings(timezone="Berlin")
    for name in ("release_freshness_hours", "shard_freshness_hours"):
        with pytest.raises(SettingsError, match=rf"FACECAPTION_{name.upper()} is 0\.01"):
            load_settings(**{name: 0.01})


def test_no_summaries_without_their_cron_line() -> None:
    with_line = {spec.key.to_user_string() for spec in _specs() if spec.automation_condition}
    assert with_line == {*SUMMARIES, "benchmark_tables"}
    assert {spec.key.to_user_string() for spec in _specs(summary_cron="") if spec.automation_condition} == {
        "benchmark_tables"
    }


def _specs(**more: object) -> list[dg.AssetSpec]:
    return list(definitions(**more).resolve_all_asset_specs())


@pytest.mark.parametrize(("hours", "state"), [(1.0, FreshnessState.FAIL), (3.0, FreshnessState.PASS)])
def test_a_release_is_too_old_after_its_hours(hours: float, state: FreshnessState) -> None:
    """What the daemon, which looks every 30 s, says two hours after a release."""
    instance = dg.DagsterInstance.ephemeral()
    node = definitions(release_freshness_hours=hours).resolve_asset_graph().get(dg.AssetKey("facecaption_release"))

    def found() -> FreshnessState:
        evaluated = TimeWindowFreshnessPolicyEvaluator().evaluate_freshness(LoadingContextForTest(instance), node)
        return asyncio.run(evaluated)

    assert found() == FreshnessState.UNKNOWN
    instance.report_runless_asset_event(dg.AssetMaterialization("facecaption_release"))
    with freeze_time(datetime.now(UTC) + timedelta(hours=2)):
        assert found() == state


def test_what_the_night_keeps_fresh_has_an_age_at_which_it_is_too_old() -> None:
    def with_policy(**more: float) -> set[str]:
        return {spec.key.to_user_string() for spec in _specs(**more) if spec.freshness_policy}

    assert with_policy() == {*SHARD_ASSETS, *SUMMARIES}
    assert with_policy(release_freshness_hours=0.0) == set(SHARD_ASSETS)
    assert with_policy(shard_freshness_hours=0.0) == set(SUMMARIES)


@pytest.mark.slow
def test_weekly_benchmarks_measure_each_trained_variant_on_each_data_set_that_is_there(tmp_path: Path) -> None:
    defs = definitions(benchmark_celeba=str(tmp_path), benchmark_lfwa=str(tmp_path))
    instance = dg.DagsterInstance.local_temp(str(tmp_path))

    def asked(asset: str) -> list[str]:
        context = dg.build_schedule_context(
            instance=instance,
            scheduled_execution_time=datetime(2026, 3, 7, tzinfo=UTC),
            repository_def=defs.get_repository_def(),
        )
        data = defs.resolve_schedule_def(f"weekly_{asset}").evaluate_tick(context)
        return [request.tags["dagster/partition"] for request in data.run_requests or []]

    assert asked("retrieval_benchmark") == []
    for variant in ("flip", "flip_alt_text"):
        instance.report_runless_asset_event(dg.AssetMaterialization("flip_checkpoint", partition=variant))
    assert asked("retrieval_benchmark") == ["celeba_caption|flip", "celeba_caption|flip_alt_text"]
    assert asked("attribute_benchmark") == ["celeba|flip", "celeba|flip_alt_text", "lfwa|flip", "lfwa|flip_alt_text"]
    assert asked("sketch_benchmark") == ["sample|flip", "sample|flip_alt_text"]
    assert available_data(load_settings(profile="photos"), "attributes") == ["sample"]
