"""Pods and nodes that are lost, that cannot start, and runs that are ended: what the run says, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import dagster as dg
import pytest

from cluster_deployment import PATIENCE, ClusterDeployment, Events
from cluster_nodes import of_pool
from servers import PictureServer, wait_until

STEP = "raw_images"
Held = Callable[[int], str]


def shard(number: int) -> dict[str, str]:
    return {"first": f"shard-{number:05d}", "last": f"shard-{number:05d}"}


@pytest.fixture
def held(registered: ClusterDeployment, pictures: PictureServer) -> Iterator[Held]:
    """Starts a run of a shard whose step waits for a picture, in the middle of its asset's function; its id."""

    def start(number: int) -> str:
        pictures.held.add(f"shard{number:02d}-3")
        run = registered.start(STEP, **shard(number))
        wait_until("the step that asks for a picture", lambda: pictures.waiting, PATIENCE)
        return run

    pictures.waiting.clear()
    yield start
    pictures.held.clear()
    pictures.waiting.clear()


def retried(events: Events) -> str:
    """What stands in the one retry of the step."""
    (found,) = events.retries(STEP)
    return found


def test_a_pod_that_was_killed_for_its_memory_comes_again_with_twice_as_much(registered: ClusterDeployment) -> None:
    # 16 GiB count as 200 MB, which Python and its libraries take; 32 GiB as 10 GB
    registered.kubelet.memory_scale[STEP] = 200 / 16384
    run = registered.start(STEP, **shard(2))
    first = registered.at_work(run, STEP)
    wait_until("the end of the first try", lambda: first.has_ended, PATIENCE)
    registered.kubelet.memory_scale[STEP] = 10000 / 32768
    events = registered.succeed(run)
    registered.kubelet.memory_scale.clear()
    assert first.out_of_memory
    assert "OOMKilled, exit code 137" in retried(events)
    tries = [pod.manifest["spec"]["containers"][0]["resources"] for pod in registered.pods(run, STEP)]
    assert [one["limits"]["memory"] for one in tries] == ["16Gi", "32Gi"]
    assert [one["requests"]["memory"] for one in tries] == ["16Gi", "32Gi"]
    assert len({one["requests"]["cpu"] for one in tries}) == 1


def test_the_step_of_a_deleted_pod_is_tried_again(
    registered: ClusterDeployment, held: Held, pictures: PictureServer
) -> None:
    run = held(3)
    registered.delete(registered.at_work(run, STEP))
    registered.wait_for(run, "the retry", lambda events: events.retries(STEP))
    pictures.held.clear()
    events = registered.succeed(run)
    assert f"{STEP} was told to stop: its pod was deleted" in events.messages
    retried(events)


def test_the_step_of_a_deleted_node_is_tried_again_elsewhere(
    registered: ClusterDeployment, held: Held, pictures: PictureServer
) -> None:
    run = held(4)
    pod = registered.at_work(run, STEP)
    registered.kubelet.remove(pod.node)
    try:
        registered.wait_for(run, "the retry", lambda events: events.retries(STEP))
        pictures.held.clear()
        events = registered.succeed(run)
    finally:
        registered.kubelet.come_back(pod.node)
    assert "its node was" in retried(events)
    assert registered.pods(run, STEP)[-1].node != pod.node


def test_a_step_without_a_node_says_what_it_waits_for_and_starts_when_there_is_one(
    registered: ClusterDeployment,
) -> None:
    registered.cordon(of_pool("a100"))
    try:
        run = registered.start(STEP, "face_crops", **shard(7))
        said = registered.wait_for(
            run,
            "what the step waits for",
            lambda events: [line for line in events.messages if line.startswith("face_crops waits: Unschedulable: 0/")],
        )
    finally:
        registered.cordon(of_pool("a100"), cordoned=False)
    assert "unschedulable" in said[0].partition("nodes are available")[2]
    events = registered.succeed(run)
    assert not events.retries("face_crops")


def test_the_steps_of_a_run_whose_pod_is_lost_end_and_a_retry_makes_what_is_missing(
    registered: ClusterDeployment, held: Held, pictures: PictureServer
) -> None:
    run = held(5)
    step, own = registered.at_work(run, STEP), registered.at_work(run)
    own.kill()
    registered.delete(own, seconds=0)
    wait_until("the end of the step", lambda: step.has_ended, PATIENCE)
    assert registered.end_of(run) == "FAILURE"
    filters = dg.RunsFilter(tags={"dagster/parent_run_id": run})
    again = wait_until("the run's retry", lambda: registered.instance.get_runs(filters), PATIENCE)[0].run_id
    pictures.held.clear()
    registered.succeed(again)
    assert registered.pods(again, STEP)[0].began > step.finished


def test_a_cancelled_run_takes_its_pods_along(registered: ClusterDeployment, held: Held) -> None:
    run = held(6)
    step, own = registered.at_work(run, STEP), registered.at_work(run)
    registered.cancel(run)
    wait_until("the end of both pods", lambda: step.has_ended and own.has_ended, PATIENCE)
    assert registered.end_of(run) == "CANCELED"
    assert len(registered.pods(run, STEP)) == 1
