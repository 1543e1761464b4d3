"""Schedules: the nightly backfill within a budget, and the weekly benchmarks of the variants that are trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

import dagster as dg

from facecaption_assets.automation.jobs import BENCHMARK_JOBS, MANIFEST_INTAKE, SHARD_PIPELINE
from facecaption_assets.automation.nightly_backfill import UNFINISHED, Task, find_backlog, stored_shards
from facecaption_assets.automation.ranges import range_request
from facecaption_assets.automation.sensors import MANIFEST_TAG
from facecaption_assets.partitions import BENCHMARK_ASSETS, SHARD_ASSETS, SHARDS, VARIANTS, chunks
from facecaption_assets.settings import SETTINGS, Settings, SettingsError
from facecaption_ml.benchmarks.datasets.registry import data_sets
from facecaption_ml.dataset.manifests import Ledger

_NAMED: Final = 20  # shards of a line of the log
_LEFT_TO_THE_SENSOR: Final = timedelta(hours=6)  # enough to ask for thousands of runs, and over by the next night


def schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """Every schedule, on from the start where ``automation`` is set. Raises SettingsError for a cron line that is none."""
    return [_nightly_backfill(settings), *(_weekly_benchmark(settings, task) for task in BENCHMARK_ASSETS)]


def checked_cron(settings: Settings, name: str) -> str:
    """The cron line of a setting. Raises SettingsError."""
    line = str(SETTINGS[name].value(settings))
    try:
        dg.ScheduleDefinition(name=name, cron_schedule=line, job_name="any")
    except dg.DagsterInvalidDefinitionError:
        raise SettingsError(
            f"FACECAPTION_{name.upper()} is {line!r}: not a cron line of five fields, such as '0 1 * * *'"
        ) from None
    return line


def _status(settings: Settings) -> dg.DefaultScheduleStatus:
    return dg.DefaultScheduleStatus.RUNNING if settings.automation.enabled else dg.DefaultScheduleStatus.STOPPED


def _nightly_backfill(settings: Settings) -> dg.ScheduleDefinition:
    nightly = settings.automation

    @dg.schedule(
        name="nightly_backfill",
        job=SHARD_PIPELINE,
        cron_schedule=checked_cron(settings, "nightly_cron"),
        execution_timezone=nightly.timezone,
        default_status=_status(settings),
        description=(
            f"Builds at most {nightly.nightly_shards:,} shards: missing ones, then those that have failed fewer than "
            f"{nightly.nightly_attempts} times in {nightly.nightly_days} days, each in a run of its own, then stale ones."
        ),
    )
    def nightly_backfill(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        instance, now = context.instance, context.scheduled_execution_time
        busy = _backfill_in_flight(instance)
        if busy:
            yield dg.SkipReason(f"backfill {busy} is building shards; the nightly backfill waits for its end")
            return
        assert context.repository_def
        memory = timedelta(days=nightly.nightly_days)
        backlog = find_backlog(
            instance,
            context.repository_def,
            now,
            nightly.nightly_attempts,
            memory,
            stored_shards(settings.open_store()),
        )
        awaited = awaited_shards(instance, settings, now)
        wanted = [task for task in backlog.tasks if task.reason != "missing" or task.stage or task.shard not in awaited]
        left = len(backlog.tasks) - len(wanted)
        backlog = replace(backlog, tasks=wanted)
        chosen = backlog.within(nightly.nightly_shards)
        line = (
            f"{len(chosen):,} of {len(backlog.tasks):,} shards to build, {len(backlog.running):,} at work, "
            f"{len(backlog.quarantined):,} quarantined after {nightly.nightly_attempts} failures"
            + (f", {left:,} new ones left to new_manifests" if left else "")
        )
        context.log.info(line)
        if backlog.quarantined:
            context.log.warning("quarantined: %s", _listed(backlog.quarantined))
        if not chosen:
            yield dg.SkipReason(line)
        assert SHARDS.name
        registered = instance.get_dynamic_partitions(SHARDS.name)
        for tasks in run_ranges(chosen, registered, settings.source.shards_per_run):
            first, last = tasks[0], tasks[-1]
            context.log.info(_reason_line(tasks))
            key = f"{now:%Y-%m-%d}:{first.shard}...{last.shard}:{SHARD_ASSETS[first.stage]}"
            yield range_request(first.shard, last.shard, key, first.reason, first.stage)

    return nightly_backfill


def _reason_line(tasks: Sequence[Task]) -> str:
    """Of one run: its shards, and why they want building from which asset on."""
    first = tasks[0]
    shards = first.shard if len(tasks) == 1 else f"{first.shard} to {tasks[-1].shard} ({len(tasks)} shards)"
    asset = SHARD_ASSETS[first.stage]
    why = {
        "missing": f"{asset} has not been made yet",
        "failed": f"{asset} failed {first.failures} times of late",
        "stale": f"{asset} was made by other code, under other settings, or of other content than there is now",
    }[first.reason]
    return f"{shards}: {first.reason}, {why}; built from {asset} on"


def _listed(shards: Sequence[str]) -> str:
    more = len(shards) - _NAMED
    return ", ".join(shards[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def run_ranges(tasks: Sequence[Task], registered: Sequence[str], size: int) -> Iterator[Sequence[Task]]:
    """The tasks in runs of at most ``size`` shards that follow each other in ``registered``.

    The shards of a run have one reason and start at one asset. One that has failed is alone: it shall not hold up the others
    again.
    """
    position = {shard: number for number, shard in enumerate(registered)}

    def belongs(numbered: tuple[int, Task]) -> tuple[object, ...]:
        number, task = numbered
        place = position[task.shard]
        return task.reason, task.stage, place - number, place if task.reason == "failed" else None

    for _, group in groupby(enumerate(tasks), key=belongs):
        yield from chunks([task for _, task in group], size)


def awaited_shards(instance: dg.DagsterInstance, settings: Settings, now: datetime) -> set[str]:
    """Shards whose runs ``new_manifests`` may still be asking for: those of manifests that its runs have ingested of late.

    The sensor asks at a later tick, and Dagster then makes the runs one after the other, so that some are not there yet.
    """
    recent = [
        dg.RunsFilter(job_name=MANIFEST_INTAKE.name, updated_after=now - _LEFT_TO_THE_SENSOR),
        dg.RunsFilter(job_name=MANIFEST_INTAKE.name, statuses=UNFINISHED),
    ]
    ids = {run.tags.get(MANIFEST_TAG) for wanted in recent for run in instance.get_runs(wanted)}
    if not ids:
        return set()
    ledger = Ledger.read(settings.open_store())
    return {name for entry in ledger.manifests if entry.id in ids for name in entry.names}


def _backfill_in_flight(instance: dg.DagsterInstance) -> str | None:
    """The id of a backfill of shards that someone has asked for and that has not ended."""
    # Dagster has no public name for the filter that its public get_backfills takes.
    from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus

    wanted = BulkActionsFilter(statuses=[BulkActionStatus.REQUESTED])
    shard_assets = {dg.AssetKey(name) for name in SHARD_ASSETS}
    for backfill in instance.get_backfills(filters=wanted):
        if shard_assets & set(backfill.asset_selection or ()):
            return str(backfill.backfill_id)
    return None


def _weekly_benchmark(settings: Settings, task: str) -> dg.ScheduleDefinition:
    asset = BENCHMARK_ASSETS[task]

    @dg.schedule(
        name=f"weekly_{asset}",
        job=next(job for job in BENCHMARK_JOBS if job.name == f"benchmark_{task}"),
        cron_schedule=checked_cron(settings, "weekly_cron"),
        execution_timezone=settings.automation.timezone,
        default_status=_status(settings),
        description=(
            f"The benchmark '{task}' of each variant that has a checkpoint, on each data set whose setting is given; "
            "benchmark_tables follows when they are done."
        ),
    )
    def weekly_benchmark(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        trained = context.instance.get_materialized_partitions(dg.AssetKey("flip_checkpoint"))
        variants = [variant for variant in VARIANTS.get_partition_keys() if variant in trained]
        if not variants:
            yield dg.SkipReason("no variant of flip_checkpoint is trained yet")
        else:
            context.log.info("%s on %s", ", ".join(variants), ", ".join(available_data(settings, task)))
        for data in available_data(settings, task):
            for variant in variants:
                key = dg.MultiPartitionKey({"data": data, "model": variant})
                run_key = f"{context.scheduled_execution_time:%Y-%m-%d}:{key}"
                yield dg.RunRequest(run_key=run_key, partition_key=key, tags={"facecaption/reason": "weekly"})

    return weekly_benchmark


def available_data(settings: Settings, task: str) -> list[str]:
    """The data sets of a benchmark whose main folder is given; the drawn one where none is."""
    given = [
        name
        for name, spec in data_sets(task).items()
        if spec.folders and settings.benchmarks.location(spec.folders[0].name)
    ]
    return given or ["sample"]
