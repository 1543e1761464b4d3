"""Runs whose process has ended without a word: they are marked failed and hold no places, so that the queue moves on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import dagster as dg
from dagster._core.storage.runs import SqliteRunStorage  # dagster has no public name for it

from facecaption_ml.processes.tree import ProcessIdentity, started_before
from facecaption_ml.storage.lock import is_locked

PROCESS_TAG: Final = "facecaption/process"
"""The tag of a run from the shell: its process, as ``ProcessIdentity`` writes it."""
UI_LOCK: Final = "ui.lock"
"""The file in DAGSTER_HOME that a running UI holds locked."""
IN_PROGRESS: Final = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
"""Of runs that have a process, which may write into the store."""
_UNFINISHED: Final = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED, *IN_PROGRESS]
_SHOWN: Final = 3


def fail_dead_runs(instance: dg.DagsterInstance, home: Path, *, is_ui: bool = False) -> int:
    """Mark the runs failed whose processes have ended, free their places in pools, and say so in a line. Their number.

    A run from the shell names its process. A run of the UI is dead where no UI holds ``home`` (``is_ui``: this process
    does, and has launched nothing yet) and the process that its events name has ended; queued ones stay: the next UI takes
    them. Runs of other hosts, and of instances that hosts share, are left alone.
    """
    dead = list(_dead_runs(instance, others=is_ui or not is_locked(home / UI_LOCK)))
    for run in dead:
        instance.report_run_failed(
            run, "The process of this run had ended without a word; marked failed at the next start."
        )
    _free_slots(instance)
    if dead:
        shown = ", ".join(f"{run.run_id[:8]} ({run.job_name})" for run in dead[:_SHOWN])
        more = f" and {len(dead) - _SHOWN} more" if len(dead) > _SHOWN else ""
        what = (
            "1 run whose process has ended is" if len(dead) == 1 else f"{len(dead)} runs whose processes have ended are"
        )
        click.echo(f"{what} marked failed: {shown}{more}", err=True)
    return len(dead)


def _dead_runs(instance: dg.DagsterInstance, others: bool) -> Iterator[dg.DagsterRun]:
    own_files = isinstance(instance.run_storage, SqliteRunStorage)
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)):
        process = ProcessIdentity.parse(run.tags.get(PROCESS_TAG, ""))
        if process:
            if process.is_gone:
                yield run
        elif others and own_files and run.status in IN_PROGRESS and not _is_alive(instance, run):
            yield run


def _is_alive(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the process lives that the run's events name last."""
    events = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT).records
    for record in reversed(events):
        event = record.event_log_entry.dagster_event
        metadata = event.engine_event_data.metadata if event else {}
        if "pid" in metadata:
            return started_before(int(str(metadata["pid"].value)), record.timestamp)
    return False


def _free_slots(instance: dg.DagsterInstance) -> None:
    """The places that finished runs still hold."""
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return
    keys = storage.get_concurrency_keys()
    infos = [storage.get_concurrency_info(key) for key in keys]
    holders = {slot.run_id for info in infos for slot in info.claimed_slots}
    holders |= {step.run_id for info in infos for step in info.pending_steps}
    for run_id in holders:
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            storage.free_concurrency_slots_for_run(run_id)
