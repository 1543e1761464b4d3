"""A cluster of one machine: the few verbs of Kubernetes' job API over HTTP, with processes for containers.

A job's container that takes more memory than its limit is killed, as the kernel does. The limit is scaled by ``memory_scale``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml

from cluster_objects import VERSION, assert_quantities, quantity_of
from loopback import http_server

_NOT_FOUND = {"kind": "Status", "status": "Failure", "reason": "NotFound"}


@dataclass
class Cluster:
    """``environment`` is what every container has besides its own."""

    environment: dict[str, str]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    memory_scale: float = 1.0
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    out_of_memory: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    waiting: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By step: the status of a pod that no node takes or that its node cannot start. Its container is not run."""
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By step: the status of a pod that was stopped from outside, for whatever its container does."""

    def create_job(self, job: dict[str, Any]) -> dict[str, Any]:
        kubernetes_validate.validate({"apiVersion": "batch/v1", "kind": "Job", **job}, VERSION, strict=True)
        assert_quantities(job["spec"]["template"]["spec"])
        name, container = job["metadata"]["name"], job["spec"]["template"]["spec"]["containers"][0]
        self.jobs[name] = job
        job["metadata"]["creationTimestamp"] = datetime.now(UTC).isoformat()
        if self._step(name) in self.waiting:
            return job
        own = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
        program, *arguments = container["args"]
        assert program == "dagster"
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "dagster", *arguments],
            env={**self.environment, **own},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.processes[name] = process
        limit = int(float(quantity_of(container["resources"]["limits"]["memory"])) * self.memory_scale)
        threading.Thread(target=self._hold_to, args=(name, process, limit), daemon=True).start()
        return job

    def _hold_to(self, name: str, process: subprocess.Popen[bytes], limit: int) -> None:
        while process.poll() is None:
            self.peaks[name] = max(self.peaks.get(name, 0), _resident(process.pid))
            if self.peaks[name] > limit:
                self.out_of_memory.add(name)
                process.kill()
            time.sleep(0.01)

    def _step(self, name: str) -> str:
        return str(self.jobs[name]["metadata"]["labels"]["dagster/op"])

    def job_status(self, name: str) -> dict[str, Any]:
        if name not in self.processes:
            return {"active": 1}
        code = self.processes[name].poll()
        return {"active": 1} if code is None else {"failed": 1} if code else {"succeeded": 1}

    def pods(self, name: str) -> list[dict[str, Any]]:
        """The one pod of a Job that was not deleted."""
        if name not in self.jobs or name in self.deleted:
            return []
        meta = {"name": f"{name}-x", "creationTimestamp": self.jobs[name]["metadata"]["creationTimestamp"]}
        return [{"metadata": meta, "status": self._pod_status(name), "spec": {"containers": []}}]

    def _pod_status(self, name: str) -> dict[str, Any]:
        step = self._step(name)
        if step in self.waiting:
            return {"phase": "Pending", **self.waiting[step]}
        code = self.processes[name].poll()
        if code is None:
            return {"phase": "Running"}
        reason = "OOMKilled" if name in self.out_of_memory else "Error" if code else "Completed"
        ended = {"terminated": {"exitCode": 128 - code if code < 0 else code, "reason": reason}}
        container = {"name": "dagster", "image": "x", "imageID": "x", "ready": False, "restartCount": 0, "state": ended}
        status = {"phase": "Failed" if code else "Succeeded", "containerStatuses": [container]}
        return {**status, **(self.ended.get(step, {}) if code else {})}

    def delete_job(self, name: str) -> dict[str, Any] | None:
        if name not in self.jobs or name in self.deleted:
            return None
        self.deleted.add(name)
        process = self.processes.get(name)
        if process:
            process.terminate()
        return self.jobs[name]


def _resident(pid: int) -> int:
    """Bytes of a process that are in memory; 0 of one that is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class _Api(BaseHTTPRequestHandler):
    cluster: Cluster

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self._answer(201, self.cluster.create_job(json.loads(self.rfile.read(length))))

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path.endswith("/log"):
            self._answer(200, "the last line of the container")
            return
        if address.path.startswith("/apis/batch/v1/"):
            name = address.path.removesuffix("/status").rpartition("/")[2]
            known = name in self.cluster.jobs and name not in self.cluster.deleted
            job = {**self.cluster.jobs[name], "status": self.cluster.job_status(name)} if known else _NOT_FOUND
            self._answer(200 if known else 404, job)
            return
        selector = parse_qs(address.query).get("labelSelector", [""])[0]
        items = self.cluster.pods(selector.removeprefix("job-name="))
        self._answer(200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})

    def do_DELETE(self) -> None:
        found = self.cluster.delete_job(urlsplit(self.path).path.rpartition("/")[2])
        self._answer(200 if found else 404, found or _NOT_FOUND)

    def _answer(self, status: int, content: Any) -> None:
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(content, str) else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def small_cluster(folder: Path, **environment: str) -> Iterator[tuple[Cluster, Path]]:
    """The cluster, and the kubeconfig that leads to it."""
    cluster = Cluster({"PATH": os.environ["PATH"], "HOME": str(folder), "OMP_NUM_THREADS": "1", **environment})
    config: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "small",
        "clusters": [{"name": "small", "cluster": {}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "small", "context": {"cluster": "small", "user": "nobody"}}],
    }
    path = folder / "kubeconfig.yaml"
    try:
        with http_server(type("Api", (_Api,), {"cluster": cluster})) as port:
            config["clusters"][0]["cluster"]["server"] = f"http://127.0.0.1:{port}"
            path.write_text(yaml.safe_dump(config), encoding="utf-8")
            yield cluster, path
    finally:
        for process in cluster.processes.values():
            process.kill()
