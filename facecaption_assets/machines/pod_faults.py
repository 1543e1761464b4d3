"""What a step's pod waits for, and what ended it, in the words that Kubernetes has for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

DEADLINE: Final = "DeadlineExceeded"
_ON_ITS_WAY: Final = ("ContainerCreating", "PodInitializing")


@dataclass(frozen=True)
class Fault:
    """Why a step's pod is no more; ``final``: another try would end the same."""

    reason: str
    final: bool = False


def newest(pods: Sequence[Any]) -> Any | None:
    """Of a Job's pods (``V1Pod``), the one that was created last."""
    return max(pods, key=lambda pod: pod.metadata.creation_timestamp, default=None)


def waits_for(pod: Any) -> str:
    """Why a pod has not started, such as ``Unschedulable: 0/7 nodes are available …``; '' where it has, or is about to.

    The scheduler says it in the condition ``PodScheduled``, a node in the state of the container.
    """
    if pod.status.phase != "Pending":
        return ""
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return _said(condition.reason, condition.message)
    for container in [*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ())]:
        waiting = container.state and container.state.waiting
        if waiting and waiting.reason and waiting.reason not in _ON_ITS_WAY:
            return _said(waiting.reason, waiting.message)
    return ""


def minutes_waiting(pod: Any, now: datetime) -> float:
    """Since the pod was created; 0 where it has started."""
    return (now - pod.metadata.creation_timestamp).total_seconds() / 60 if pod.status.phase == "Pending" else 0.0


def fault_of(job: Any | None, pod: Any | None) -> Fault:
    """What ended a step, from its Job (``V1Job``) and its last pod (``V1Pod``); None: not there any more."""
    for condition in (job and job.status.conditions) or ():
        if condition.type == "Failed" and condition.reason == DEADLINE:
            return Fault(_said(DEADLINE, condition.message), final=True)
    if pod is None:
        return Fault("its pod is gone: it was deleted, or its node was")
    if pod.status.reason:  # Evicted, NodeLost, Preempting, DeadlineExceeded, …
        return Fault(_said(pod.status.reason, pod.status.message), final=pod.status.reason == DEADLINE)
    for condition in pod.status.conditions or ():
        if condition.type == "DisruptionTarget" and condition.status == "True":
            return Fault(_said(condition.reason, condition.message))
    for container in pod.status.container_statuses or ():
        ended = container.state and container.state.terminated
        if ended:
            return Fault(f"{ended.reason or 'Error'}, exit code {ended.exit_code}")
    return Fault(f"its pod is {str(pod.status.phase).lower()}")


def stopped_by(pods: Sequence[Any]) -> str:
    """Why a step's pod (one of its Job's, ``V1Pod``) was told to stop. It may be at it still, and the reason not yet be known.

    A Job has another pod made as soon as one is being deleted: the newest need not be the one that was told.
    """
    for pod in sorted(pods, key=lambda pod: pod.metadata.creation_timestamp, reverse=True):
        for condition in pod.status.conditions or ():
            if condition.type == "DisruptionTarget" and condition.status == "True":
                return _said(condition.reason, condition.message)
        if pod.status.reason:
            return _said(pod.status.reason, pod.status.message)
        if pod.metadata.deletion_timestamp:
            return "its pod was deleted"
    last = newest(pods)
    return "its pod was deleted" if last is None or last.status.phase == "Pending" else "its pod was sent SIGTERM"


def _said(reason: str | None, message: str | None) -> str:
    line = " ".join((message or "").split())
    return f"{reason or 'Unknown'}: {line}" if line else reason or "Unknown"
