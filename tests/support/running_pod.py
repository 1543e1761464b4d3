"""A pod on a node of the tests' kubelet: what its containers see, how they are, and how they end."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cluster_objects import quantity_of
from control_plane import ControlPlane
from kubernetes_api import Api
from pod_process import Container, user_of

_RESTART_SECONDS: Final = 2.0


class RunningPod:
    """Its one container is started at once. ``services``: names that lead to this machine; ``memory_scale``: see Kubelet."""

    def __init__(
        self,
        pod: Mapping[str, Any],
        folder: Path,
        api: Api,
        plane: ControlPlane,
        services: Sequence[str],
        memory_scale: float = 1.0,
    ) -> None:
        self.manifest, self.name, self.node = pod, pod["metadata"]["name"], pod["spec"]["nodeName"]
        self.namespace, self._folder, self._api, self._plane = pod["metadata"]["namespace"], folder, api, plane
        self._spec, (self._container, *_) = pod["spec"], pod["spec"]["containers"]
        hosts = [name for service in services for name in (service, f"{service}.{self.namespace}")]
        self._hosts = "".join(f"127.0.0.1 {name}\n" for name in ("localhost", self.name, *hosts))
        limit = self._container.get("resources", {}).get("limits", {}).get("memory")
        self._limit = int(float(quantity_of(limit)) * memory_scale) if limit and memory_scale != 1.0 else None
        self.reason: tuple[str, str] | None = None
        self.said: dict[str, Any] = {}
        self.restarts, self.out_of_memory, self.peak = 0, False, 0
        self.killed_at = float("inf")
        self.stopped_at: float | None = None
        self._mounts = self._volumes()
        self.started, self.ended_at = _now(), ""
        self.began, self.finished = time.time(), float("inf")
        self.container = self._start()

    @property
    def has_ended(self) -> bool:
        return self.container.exit_code is not None and not self._restarts

    @property
    def _restarts(self) -> bool:
        return self._spec.get("restartPolicy", "Always") == "Always" and self.stopped_at is None and not self.reason

    def stop(self, seconds: float | None = None) -> None:
        """SIGTERM now, SIGKILL after the grace period."""
        if self.stopped_at is None:
            self.stopped_at = time.time()
            grace = self._spec.get("terminationGracePeriodSeconds", 30) if seconds is None else seconds
            self.killed_at = time.time() + grace
            self.container.stop()

    def kill(self) -> None:
        self.stopped_at = self.stopped_at or time.time()
        self.container.kill()
        self.finished = min(self.finished, time.time())

    def hold(self) -> None:
        """To its memory, its deadline, its grace period, and to running at all where it should."""
        if self.container.exit_code is not None:
            self._note_end()
            return
        if self._limit:
            self.peak = max(self.peak, self.container.resident())
            if self.peak > self._limit:
                self.out_of_memory = True
                self.container.kill()
        deadline = self._spec.get("activeDeadlineSeconds")
        if deadline and time.time() > self.began + deadline and not self.reason:
            self.reason = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
            self.stop()
        if time.time() > self.killed_at:
            self.container.kill()

    def _note_end(self) -> None:
        if self.finished == float("inf"):
            self.finished, self.ended_at = time.time(), _now()
        if self._restarts and time.time() > self.finished + _RESTART_SECONDS:
            self.restarts += 1
            self.finished, self.ended_at, self.started = float("inf"), "", _now()
            self.container = self._start()

    # Status

    def status(self) -> dict[str, Any]:
        code = self.container.exit_code
        ready = code is None and self._answers()
        state: dict[str, Any] = {"running": {"startedAt": self.started}}
        phase = "Running"
        if code is not None:
            reason = "OOMKilled" if self.out_of_memory else "Error" if code else "Completed"
            ended = {
                "exitCode": code,
                "reason": reason,
                "startedAt": self.started,
                "finishedAt": self.ended_at or _now(),
            }
            state = {"terminated": ended}
            phase = "Running" if self._restarts else "Failed" if code or self.reason else "Succeeded"
        container = {
            "name": self._container["name"], "image": self._container["image"], "imageID": "this checkout",
            "ready": ready, "started": True, "restartCount": self.restarts, "state": state,
        }  # fmt: skip
        conditions = [
            {"type": kind, "status": "True" if holds else "False"}
            for kind, holds in (("Initialized", True), ("ContainersReady", ready), ("Ready", ready))
        ]
        found: dict[str, Any] = {
            "phase": phase, "conditions": conditions, "hostIP": "127.0.0.1", "podIP": "127.0.0.1",
            "startTime": self.started, "containerStatuses": [container],
        }  # fmt: skip
        if self.reason:
            found |= {"reason": self.reason[0], "message": self.reason[1]}
        return found

    def _answers(self) -> bool:
        """Whether the port of the readiness probe is open; true where there is none."""
        probe = self._container.get("readinessProbe", {}).get("httpGet")
        if not probe:
            return True
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", int(probe["port"]))) == 0

    # What its container sees

    def _start(self) -> Container:
        command = [*self._container.get("command", ()), *self._container.get("args", ())]
        memory = next((one["emptyDir"]["sizeLimit"] for one in self._spec.get("volumes", ()) if _is_memory(one)), None)
        size = {"shared_memory": str(int(quantity_of(memory)))} if memory else {}
        user = user_of(self._spec, self._container)
        folder = self._folder / str(self.restarts)
        return Container(folder, command, self._environment(), user, self._mounts, self._hosts, **size)

    def _environment(self) -> dict[str, str]:
        found = {
            "HOSTNAME": self.name,
            "KUBERNETES_SERVICE_HOST": self._plane.host,
            "KUBERNETES_SERVICE_PORT": str(self._plane.port),
        }
        for source in self._container.get("envFrom") or ():
            (kind, reference), *_ = ((key, value) for key, value in source.items() if key.endswith("Ref"))
            found |= self._data("configmaps" if kind == "configMapRef" else "secrets", reference["name"])
        for entry in self._container.get("env") or ():
            found[entry["name"]] = entry["value"] if "value" in entry else self._value(entry.get("valueFrom") or {})
        return found

    def _value(self, source: Mapping[str, Any]) -> str:
        if "secretKeyRef" in source:
            return self._data("secrets", source["secretKeyRef"]["name"])[source["secretKeyRef"]["key"]]
        if "configMapKeyRef" in source:
            return self._data("configmaps", source["configMapKeyRef"]["name"])[source["configMapKeyRef"]["key"]]
        found: Any = self.manifest
        for part in source.get("fieldRef", {}).get("fieldPath", "").split("."):
            found = found.get(part, "") if isinstance(found, dict) else ""
        return str(found or "")

    def _data(self, kind: str, name: str) -> dict[str, str]:
        """Of a config map or a secret."""
        found = self._api.get(f"/api/v1/namespaces/{self.namespace}/{kind}/{name}").get("data") or {}
        if kind == "secrets":
            return {key: base64.b64decode(value).decode() for key, value in found.items()}
        return dict(found)

    def _volumes(self) -> dict[str, Path]:
        shutil.rmtree(self._folder, ignore_errors=True)
        made = {one["name"]: self._volume(one) for one in self._spec.get("volumes", ()) if not _is_memory(one)}
        mounts = {}
        for mount in self._container.get("volumeMounts") or ():
            if mount["name"] in made:
                mounts[mount["mountPath"].rstrip("/")] = made[mount["name"]] / mount.get("subPath", "")
        return mounts

    def _volume(self, volume: Mapping[str, Any]) -> Path:
        folder = self._folder / "volumes" / volume["name"]
        folder.mkdir(parents=True)
        group = (self._spec.get("securityContext") or {}).get("fsGroup", -1)
        if "emptyDir" in volume:
            os.chown(folder, -1, group)
            folder.chmod(0o2777)
        for name, text in self._files(volume).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
            os.chown(folder / name, -1, group)
            (folder / name).chmod(0o640 if group >= 0 else 0o644)
        return folder

    def _files(self, volume: Mapping[str, Any]) -> dict[str, str]:
        if "configMap" in volume:
            return _chosen(self._data("configmaps", volume["configMap"]["name"]), volume["configMap"])
        if "secret" in volume:
            return _chosen(self._data("secrets", volume["secret"]["secretName"]), volume["secret"])
        files: dict[str, str] = {}
        for source in volume.get("projected", {}).get("sources", ()):
            if "serviceAccountToken" in source:
                files[source["serviceAccountToken"]["path"]] = self._token()
            elif "configMap" in source:
                files |= _chosen(self._data("configmaps", source["configMap"]["name"]), source["configMap"])
            elif "downwardAPI" in source:
                files |= {one["path"]: self._value(one) for one in source["downwardAPI"]["items"]}
        return files

    def _token(self) -> str:
        account = self._spec.get("serviceAccountName", "default")
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{account}/token"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 7200},
        }
        return str(self._api.post(path, request)["status"]["token"])


def _chosen(data: Mapping[str, str], source: Mapping[str, Any]) -> dict[str, str]:
    """All files of a config map or secret, or those that a volume names."""
    items = source.get("items")
    return {item["path"]: data[item["key"]] for item in items} if items else dict(data)


def _is_memory(volume: Mapping[str, Any]) -> bool:
    return (volume.get("emptyDir") or {}).get("medium") == "Memory"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
