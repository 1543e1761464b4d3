"""SIGTERM at any moment of a step: it is tried again in its run, and the shard is made once."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
import pytest

from cluster_deployment import ClusterDeployment, Events

SHARD = "shard-00001"
STEP = "template_captions"
KIND = dg.DagsterEventType

MOMENTS: dict[str, Callable[[Events], object]] = {
    "before-anything": lambda events: events.of(KIND.STEP_WORKER_STARTING, STEP),
    "worker-started": lambda events: events.of(KIND.STEP_WORKER_STARTED, STEP),
    "resources": lambda events: events.of(KIND.RESOURCE_INIT_STARTED, STEP),
    "step-started": lambda events: events.of(KIND.STEP_START, STEP),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_step_that_is_told_to_stop(made_before: ClusterDeployment, moment: str) -> None:
    run = made_before.start(STEP, first=SHARD, last=SHARD)
    pod = made_before.at_work(run, STEP)
    made_before.wait_for(run, moment, MOMENTS[moment])
    if not pod.has_ended:  # it was quicker
        made_before.kubelet.evict(pod.name, "The node was low on resource: memory.")
    events = made_before.succeed(run)
    materialized = events.of(KIND.ASSET_MATERIALIZATION, STEP)
    assert {event.partition for event in materialized} == {SHARD}
    assert len(made_before.pods(run, STEP)) == 1 + len(events.retries(STEP))
