"""Processes that die in the middle of a backfill: what was done stays done, what is missing is made afterwards."""

from __future__ import annotations

import pytest

from backfills import backfill, finished, launch, materialized
from facecaption_ml.storage.store import Store
from servers import Deployment, PictureServer, Postgres, kill, wait_until

pytestmark = pytest.mark.usefixtures("registered")


def _shard(number: int) -> str:
    return f"shard-{number:05d}"


def _statuses(deployment: Deployment, started: str) -> list[str]:
    return sorted(run["status"] for run in backfill(deployment, started)["runs"])


def _held_backfill(deployment: Deployment, pictures: PictureServer, done: int, held: int) -> str:
    """A backfill of two shards in one run, the first of them done and the second waiting for a picture."""
    pictures.held.add(f"shard{held:02d}")
    found = launch(deployment, ["raw_images"], [_shard(done), _shard(held)])
    wait_until("the first shard", lambda: _shard(done) in materialized(deployment, "raw_images"), 150)
    wait_until("the second shard's download", lambda: any(f"shard{held:02d}" in path for path in pictures.waiting), 60)
    return found


def test_a_killed_step_is_tried_again_in_its_run(deployment: Deployment, pictures: PictureServer) -> None:
    started = _held_backfill(deployment, pictures, 4, 5)
    steps = deployment.steps()
    assert steps, "the step has a process of its own"
    for step in steps:
        kill(step)
    pictures.held.clear()
    ended = finished(deployment, started)
    assert [run["status"] for run in ended["runs"]] == ["SUCCESS"]
    assert {_shard(4), _shard(5)} <= materialized(deployment, "raw_images")
    query = """query($id: ID!){runOrError(runId: $id){... on Run{eventConnection{events{__typename}}}}}"""
    events = deployment.graphql(query, id=ended["runs"][0]["runId"])["runOrError"]["eventConnection"]["events"]
    assert "ExecutionStepUpForRetryEvent" in [event["__typename"] for event in events]


def test_a_killed_run_is_retried_by_itself(deployment: Deployment, pictures: PictureServer) -> None:
    started = _held_backfill(deployment, pictures, 6, 7)
    # The worker first: a step that dies under its eyes would only be tried again.
    workers, steps = deployment.run_workers(), deployment.steps()
    assert workers
    for process in [*workers, *steps]:
        kill(process)
    pictures.held.clear()
    wait_until("the other shard", lambda: _shard(7) in materialized(deployment, "raw_images"), 240)
    assert _shard(6) in materialized(deployment, "raw_images")
    wait_until("the end of the second run", lambda: _statuses(deployment, started) == ["FAILURE", "SUCCESS"], 60)


def test_the_slots_of_a_killed_run_are_free_again(deployment: Deployment) -> None:
    assert finished(deployment, launch(deployment, ["raw_images"], [_shard(1)]))["status"] == "COMPLETED_SUCCESS"
    query = "{instance{concurrencyLimits{concurrencyKey slotCount claimedSlots{runId}}}}"

    def all_free() -> bool:
        limits = deployment.graphql(query)["instance"]["concurrencyLimits"]
        return bool(limits) and not any(limit["claimedSlots"] for limit in limits)

    wait_until("free slots of every pool", all_free, 60)


def test_a_killed_daemon_goes_on_where_it_was(deployment: Deployment, pictures: PictureServer) -> None:
    started = launch(deployment, ["raw_images"], [_shard(8), _shard(9)])
    deployment.kill("daemon")
    assert backfill(deployment, started)["status"] not in ("COMPLETED_SUCCESS", "COMPLETED_FAILED")
    deployment.start_daemon()
    assert finished(deployment, started)["status"] == "COMPLETED_SUCCESS"
    assert {_shard(8), _shard(9)} <= materialized(deployment, "raw_images")


def test_a_database_that_restarts_in_the_middle(
    deployment: Deployment, pictures: PictureServer, postgres: Postgres
) -> None:
    started = _held_backfill(deployment, pictures, 10, 11)
    postgres.stop()
    postgres.start()
    pictures.held.clear()
    wait_until("the other shard", lambda: _shard(11) in materialized(deployment, "raw_images"), 300)
    ended = finished(deployment, started)
    assert "SUCCESS" in [run["status"] for run in ended["runs"]], ended
    assert {_shard(10), _shard(11)} <= materialized(deployment, "raw_images")


def test_two_backfills_of_one_shard_leave_one_whole_table(deployment: Deployment, store: Store) -> None:
    both = [launch(deployment, ["raw_images"], [_shard(0)]) for _ in range(2)]
    assert [finished(deployment, one)["status"] for one in both] == ["COMPLETED_SUCCESS"] * 2
    table = store.read_table("raw_images", _shard(0))
    assert table["status"].to_list() == ["ok", "ok"]
    assert not store.has_table("raw_images", _shard(0), incomplete=True)
