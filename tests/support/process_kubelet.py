"""A small kubelet for tests: nodes that an API server takes for real, and processes for the pods that are bound to them.

It makes volumes, environment and service account of a pod, starts its container, says in the pod's status how it is and how it
ended, holds it to its memory, and stops it as a kubelet does (SIGTERM, the pod's grace period, SIGKILL). It pulls no images,
runs no init containers, and answers neither `kubectl logs` nor `kubectl exec`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from kubernetes.client import ApiException

from control_plane import ControlPlane
from kubernetes_api import Api
from running_pod import RunningPod

_SYNC_SECONDS: Final = 1.0
_HEARTBEAT_SECONDS: Final = 5.0
_NO_IMAGE: Final = ":absent"


@dataclass
class Node:
    """A node of a pool. ``quantities``: what it has, as Kubernetes writes it. ``alive``: its machine is there."""

    name: str
    labels: Mapping[str, str]
    taints: list[dict[str, str]]
    quantities: Mapping[str, str]
    alive: bool = True

    @property
    def manifest(self) -> dict[str, Any]:
        meta = {"name": self.name, "labels": {"kubernetes.io/hostname": self.name, **self.labels}}
        return {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {"taints": self.taints}}

    @property
    def status(self) -> dict[str, Any]:
        ready = {
            "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "a kubelet of tests",
            "lastHeartbeatTime": now(),
        }  # fmt: skip
        return {
            "status": {
                "capacity": dict(self.quantities),
                "allocatable": dict(self.quantities),
                "conditions": [ready],
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            }
        }


@dataclass
class Kubelet:
    """Of all nodes here. ``memory_scale``: by asset, what its step may take here for each byte of its limit; no limit else."""

    plane: ControlPlane
    api: Api
    folder: Path
    namespace: str
    nodes: dict[str, Node] = field(default_factory=dict)
    memory_scale: dict[str, float] = field(default_factory=dict)
    pods: dict[str, RunningPod] = field(default_factory=dict)
    ended: dict[str, RunningPod] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    """What went wrong here, rather than in a pod."""

    # Nodes

    def add(self, node: Node) -> None:
        with contextlib.suppress(ApiException):  # it is there already
            self.api.post("/api/v1/nodes", node.manifest)
        self.nodes[node.name] = node
        self.heartbeat(node)

    def heartbeat(self, node: Node) -> None:
        self.api.patch(f"/api/v1/nodes/{node.name}/status", node.status)

    def lose(self, name: str) -> None:
        """The machine goes, and with it all that runs there; nobody tells the API server."""
        self.nodes[name].alive = False
        for pod in self._on(name):
            pod.kill()

    def remove(self, name: str) -> None:
        """The machine goes, and its node with it, as when an instance is ended."""
        self.lose(name)
        self.api.delete(f"/api/v1/nodes/{name}")

    def come_back(self, name: str) -> None:
        self.nodes[name].alive = True
        self.add(self.nodes[name])

    def _on(self, name: str) -> list[RunningPod]:
        return [pod for pod in list(self.pods.values()) if pod.node == name]

    # Pods

    def evict(self, name: str, message: str) -> None:
        """As a kubelet whose node runs short of something: it says why, stops the pod, and leaves it there as failed."""
        pod = self.named(name)
        pod.reason = ("Evicted", message)
        self._say(pod.manifest, pod.status())
        pod.stop()

    def named(self, name: str) -> RunningPod:
        return next(pod for pod in list(self.pods.values()) if pod.name == name)

    def sync(self) -> None:
        """One look at the pods that are bound to the nodes here, and what follows from it."""
        found = self.api.get(f"/api/v1/namespaces/{self.namespace}/pods")["items"]
        mine = {pod["metadata"]["uid"]: pod for pod in found if pod["spec"].get("nodeName") in self.nodes}
        for uid, pod in mine.items():
            node = self.nodes[pod["spec"]["nodeName"]]
            if not node.alive:
                continue
            if uid not in self.pods and uid not in self.ended:
                self._start(uid, pod)
            if uid in self.pods:
                self._follow(uid, pod)
            elif pod["metadata"].get("deletionTimestamp"):
                self._let_go(pod)
        for uid in set(self.pods) - set(mine):  # deleted without waiting for its end
            self.pods[uid].kill()
            self.ended[uid] = self.pods.pop(uid)

    def _start(self, uid: str, pod: dict[str, Any]) -> None:
        if pod["status"].get("phase") in ("Succeeded", "Failed"):
            return
        if pod["metadata"].get("deletionTimestamp"):
            self._let_go(pod)
            return
        if any(container["image"].endswith(_NO_IMAGE) for container in pod["spec"]["containers"]):
            self._say(pod, _without_image(pod))
            return
        services = self.api.get(f"/api/v1/namespaces/{self.namespace}/services")["items"]
        names = [service["metadata"]["name"] for service in services]
        scale = self.memory_scale.get(pod["metadata"]["labels"].get("dagster/op", ""), 1.0)
        self.pods[uid] = RunningPod(pod, self.folder / pod["metadata"]["name"], self.api, self.plane, names, scale)

    def _follow(self, uid: str, pod: dict[str, Any]) -> None:
        running = self.pods[uid]
        if pod["metadata"].get("deletionTimestamp"):
            running.stop(pod["metadata"].get("deletionGracePeriodSeconds", 30))
        running.hold()
        status = running.status()
        if status != running.said:
            self._say(pod, status)
            running.said = status
        if running.has_ended:
            self.ended[uid] = self.pods.pop(uid)
            if pod["metadata"].get("deletionTimestamp"):
                self._let_go(pod)

    def _say(self, pod: Mapping[str, Any], status: dict[str, Any]) -> None:
        with contextlib.suppress(ApiException):  # the pod has gone meanwhile
            self.api.patch(f"{_path(pod)}/status", {"status": status})

    def _let_go(self, pod: Mapping[str, Any]) -> None:
        """The pod has ended, and was deleted: now it may go."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        options["preconditions"] = {"uid": pod["metadata"]["uid"]}
        with contextlib.suppress(ApiException):
            self.api.delete(_path(pod), options)


@contextlib.contextmanager
def running(kubelet: Kubelet) -> Iterator[Kubelet]:
    """Works in threads of its own until the block ends; then every container is killed."""
    ends = threading.Event()

    def again(seconds: float, work: Any) -> None:
        while not ends.wait(seconds):
            try:
                work()
            except Exception as error:  # a look that failed is repeated; the test's log shows it
                kubelet.faults.append(f"{now()} {type(error).__name__}: {str(error)[:500]}")

    def heartbeats() -> None:
        for node in list(kubelet.nodes.values()):
            if node.alive:
                kubelet.heartbeat(node)

    threads = [
        threading.Thread(target=again, args=(_SYNC_SECONDS, kubelet.sync), daemon=True),
        threading.Thread(target=again, args=(_HEARTBEAT_SECONDS, heartbeats), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield kubelet
    finally:
        ends.set()
        for thread in threads:
            thread.join(20)
        for pod in kubelet.pods.values():
            pod.kill()
        for name in kubelet.nodes:
            with contextlib.suppress(ApiException):
                kubelet.api.delete(f"/api/v1/nodes/{name}")


def _path(pod: Mapping[str, Any]) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def _without_image(pod: Mapping[str, Any]) -> dict[str, Any]:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
    statuses = [
        {"name": one["name"], "image": one["image"], "imageID": "", "ready": False, "restartCount": 0, "state": waiting}
        for one in pod["spec"]["containers"]
    ]
    return {"phase": "Pending", "containerStatuses": statuses}


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
