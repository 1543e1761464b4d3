"""What a pod waits for and what ended it, from the objects that a cluster gives."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kubernetes.client import (
    V1ContainerState,
    V1ContainerStateTerminated,
    V1ContainerStateWaiting,
    V1ContainerStatus,
    V1Job,
    V1JobCondition,
    V1JobStatus,
    V1ObjectMeta,
    V1Pod,
    V1PodCondition,
    V1PodStatus,
)

from facecaption_assets.machines.pod_faults import Fault, fault_of, minutes_waiting, newest, stopped_by, waits_for

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def pod(phase: str = "Failed", age: float = 0.0, **status: Any) -> V1Pod:
    created = NOW - timedelta(minutes=age)
    return V1Pod(metadata=V1ObjectMeta(creation_timestamp=created), status=V1PodStatus(phase=phase, **status))


def container(**state: Any) -> V1ContainerStatus:
    return V1ContainerStatus(
        image="x", image_id="x", name="dagster", ready=False, restart_count=0, state=V1ContainerState(**state)
    )


def waiting(reason: str, message: str | None = None) -> list[V1ContainerStatus]:
    return [container(waiting=V1ContainerStateWaiting(reason=reason, message=message))]


def terminated(code: int, reason: str | None) -> list[V1ContainerStatus]:
    return [container(terminated=V1ContainerStateTerminated(exit_code=code, reason=reason))]


def job(reason: str, message: str) -> V1Job:
    return V1Job(
        status=V1JobStatus(conditions=[V1JobCondition(type="Failed", status="True", reason=reason, message=message)])
    )


def condition(kind: str, status: str, reason: str, message: str) -> list[V1PodCondition]:
    return [V1PodCondition(type=kind, status=status, reason=reason, message=message)]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            pod("Pending", conditions=condition("PodScheduled", "False", "Unschedulable", "0/7 nodes\n are available")),
            "Unschedulable: 0/7 nodes are available",
        ),
        (pod("Pending", conditions=condition("PodScheduled", "True", "", "")), ""),
        (pod("Pending", container_statuses=waiting("ImagePullBackOff", "Back-off")), "ImagePullBackOff: Back-off"),
        (pod("Pending", init_container_statuses=waiting("ErrImagePull")), "ErrImagePull"),
        (pod("Pending", container_statuses=waiting("ContainerCreating")), ""),
        (pod("Pending"), ""),
        (pod("Running"), ""),
    ],
)
def test_what_a_pod_waits_for(found: V1Pod, said: str) -> None:
    assert waits_for(found) == said


@pytest.mark.parametrize(
    ("of_job", "of_pod", "fault"),
    [
        (None, pod(container_statuses=terminated(137, "OOMKilled")), Fault("OOMKilled, exit code 137")),
        (None, pod(container_statuses=terminated(1, None)), Fault("Error, exit code 1")),
        (None, pod(reason="Evicted", message="low on memory"), Fault("Evicted: low on memory")),
        (
            None,
            pod(
                conditions=condition("DisruptionTarget", "True", "DeletionByTaintManager", "node lost"),
                container_statuses=terminated(143, "Error"),
            ),
            Fault("DeletionByTaintManager: node lost"),
        ),
        (None, None, Fault("its pod is gone: it was deleted, or its node was")),
        (None, pod("Running"), Fault("its pod is running")),
        (
            None,
            pod(reason="DeadlineExceeded", message="Pod was active longer than specified"),
            Fault("DeadlineExceeded: Pod was active longer than specified", final=True),
        ),
        (
            job("DeadlineExceeded", "Job was active longer than specified deadline"),
            None,
            Fault("DeadlineExceeded: Job was active longer than specified deadline", final=True),
        ),
        (
            job("BackoffLimitExceeded", "Job has reached the limit"),
            pod(container_statuses=terminated(137, "OOMKilled")),
            Fault("OOMKilled, exit code 137"),
        ),
    ],
)
def test_what_ended_a_step(of_job: V1Job | None, of_pod: V1Pod | None, fault: Fault) -> None:
    assert fault_of(of_job, of_pod) == fault


def test_only_time_before_the_start_is_waiting() -> None:
    assert minutes_waiting(pod("Pending", age=7), NOW) == 7
    assert minutes_waiting(pod("Running", age=7), NOW) == 0


def test_the_last_pod_of_a_job_counts() -> None:
    old, new = pod(age=9), pod(age=1)
    assert newest([new, old]) is newest([old, new]) is new
    assert newest([]) is None


def deleted(found: V1Pod) -> V1Pod:
    found.metadata.deletion_timestamp = NOW
    return found


@pytest.mark.parametrize(
    ("pods", "reason"),
    [
        ([], "its pod was deleted"),
        ([pod("Running")], "its pod was sent SIGTERM"),
        ([deleted(pod("Running"))], "its pod was deleted"),
        # the second takes the place of the first
        ([deleted(pod("Running", age=9)), pod("Running", age=1)], "its pod was deleted"),
        ([pod("Pending", age=1)], "its pod was deleted"),
        ([pod("Failed", age=9, reason="Evicted", message="low on disk"), pod("Pending")], "Evicted: low on disk"),
        (
            [
                deleted(
                    pod("Running", conditions=condition("DisruptionTarget", "True", "DeletionByTaintManager", "gone"))
                )
            ],
            "DeletionByTaintManager: gone",
        ),
    ],
)
def test_who_stopped_a_step(pods: list[V1Pod], reason: str) -> None:
    assert stopped_by(pods) == reason
