"""Runs whose process has ended without a word: which are marked failed, which are left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.test_utils import create_run_for_test

from facecaption_assets.commands.dead_runs import PROCESS_TAG, UI_LOCK, fail_dead_runs
from facecaption_assets.commands.instance import job_origin
from facecaption_ml.processes.tree import ProcessIdentity
from facecaption_ml.storage.lock import exclusive

S = dg.DagsterRunStatus


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    config = "concurrency:\n  pools:\n    default_limit: 1\n    granularity: op\n"
    (tmp_path / "dagster.yaml").write_text(config)
    with dg.DagsterInstance.from_config(str(tmp_path)) as found:
        yield found


@pytest.fixture
def ended() -> ProcessIdentity:
    """A process that was killed."""
    text = "from facecaption_ml.processes.tree import ProcessIdentity as P; print(P.own())"
    child = subprocess.Popen([sys.executable, "-c", text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    said = child.communicate()[0]
    found = ProcessIdentity.parse(said.strip())
    assert found
    return found


def status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> S:
    found = instance.get_run_by_id(run.run_id)
    assert found
    return found.status


@pytest.mark.slow
def test_runs_of_ended_processes_only(
    instance: dg.DagsterInstance, tmp_path: Path, ended: ProcessIdentity, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(process: ProcessIdentity, state: S) -> dg.DagsterRun:
        tags, origin = {PROCESS_TAG: str(process)}, job_origin("release")
        return create_run_for_test(instance, job_name="release", status=state, tags=tags, remote_job_origin=origin)

    own = ProcessIdentity.own()
    elsewhere = ProcessIdentity("another-host", ended.boot, ended.pid, ended.started)
    dead = [run(ended, state) for state in (S.STARTED, S.STARTING, S.QUEUED, S.NOT_STARTED, S.CANCELING)]
    kept = [
        (run(own, S.STARTED), S.STARTED),
        (run(elsewhere, S.STARTED), S.STARTED),
        (run(ended, S.SUCCESS), S.SUCCESS),
    ]
    assert fail_dead_runs(instance, tmp_path) == 5
    assert [status(instance, one) for one in dead] == [S.FAILURE] * 5
    assert [status(instance, one) for one, _ in kept] == [state for _, state in kept]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("5 runs whose processes have ended are marked failed: ")
    assert line.endswith("(release) and 2 more")
    assert fail_dead_runs(instance, tmp_path) == 0
    assert capsys.readouterr().err == ""


def test_runs_of_a_ui_that_was_killed(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    def run(state: S, pid: int | None = None) -> dg.DagsterRun:
        made = create_run_for_test(instance, status=state, remote_job_origin=job_origin("release"))
        if pid is not None:
            instance.report_engine_event(
                f"Started process for run (pid: {pid}).", made, EngineEventData.in_process(pid)
            )
        return made

    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    starting, at_work, alive, queued = (
        run(S.STARTING),
        run(S.STARTED, gone.pid),
        run(S.STARTED, os.getpid()),
        run(S.QUEUED),
    )
    with exclusive(tmp_path / UI_LOCK, "a UI"):
        assert fail_dead_runs(instance, tmp_path) == 0, "they are the running UI's"
        assert status(instance, at_work) == S.STARTED
    assert fail_dead_runs(instance, tmp_path) == 2
    assert [status(instance, one) for one in (starting, at_work)] == [S.FAILURE] * 2
    assert [status(instance, one) for one in (alive, queued)] == [S.STARTED, S.QUEUED], (
        "the next UI takes what is queued"
    )


def test_places_in_pools_are_free_again(instance: dg.DagsterInstance, tmp_path: Path, ended: ProcessIdentity) -> None:
    storage = instance.event_log_storage
    storage.initialize_concurrency_limit_to_default("download")
    run = create_run_for_test(instance, status=S.STARTED, tags={PROCESS_TAG: str(ended)})
    waiting = create_run_for_test(instance, status=S.STARTED, tags={PROCESS_TAG: str(ProcessIdentity.own())})
    assert storage.claim_concurrency_slot("download", run.run_id, "raw_images").is_claimed
    assert not storage.claim_concurrency_slot("download", waiting.run_id, "raw_images").is_claimed
    fail_dead_runs(instance, tmp_path)
    deadline = time.monotonic() + 10
    while not storage.claim_concurrency_slot("download", waiting.run_id, "raw_images").is_claimed:
        assert time.monotonic() < deadline
        time.sleep(0.1)
