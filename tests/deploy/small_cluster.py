"""A cluster of one machine: the few verbs of Kubernetes' pod API over HTTP, with processes for containers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate
import yaml

PENDING = "pending"
VERSION = "1.33"


@dataclass
class Cluster:
    """``full``: no node is free, so that pods stay pending. ``environment`` is what every container has besides its own."""

    environment: dict[str, str]
    full: bool = False
    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    created: list[dict[str, Any]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def create(self, pod: dict[str, Any]) -> dict[str, Any]:
        kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **pod}, VERSION, strict=True)
        name = pod["metadata"]["name"]
        self.pods[name] = pod
        self.created.append(pod)
        if not self.full:
            container = pod["spec"]["containers"][0]
            own = {entry["name"]: entry["value"] for entry in container["env"]}
            program, *arguments = container["command"]
            assert program == "python"
            self.processes[name] = subprocess.Popen([sys.executable, *arguments], env={**self.environment, **own})
        return pod

    def delete(self, name: str) -> dict[str, Any] | None:
        pod = self.pods.pop(name, None)
        if pod:
            self.deleted.append(name)
            process = self.processes.pop(name, None)
            if process and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=60)
        return pod

    def status(self, name: str) -> dict[str, Any]:
        process = self.processes.get(name)
        if process is None:
            return {"phase": "Pending"}
        code = process.poll()
        state = {"running": {}} if code is None else {"terminated": {"exitCode": code if code >= 0 else 128 - code}}
        phase = "Running" if code is None else "Failed" if code else "Succeeded"
        container = {"name": "training", "ready": code is None, "restartCount": 0, "image": "x", "imageID": "x"}
        return {"phase": phase, "containerStatuses": [{**container, "state": state}]}


class _Api(BaseHTTPRequestHandler):
    cluster: Cluster

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self._answer(201, self.cluster.create(json.loads(self.rfile.read(length))))

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path.endswith("/log"):
            self._answer(200, "the last line of the container")
            return
        (wanted,) = parse_qs(address.query)["fieldSelector"]
        name = wanted.removeprefix("metadata.name=")
        found = [{**pod, "status": self.cluster.status(name)} for key, pod in self.cluster.pods.items() if key == name]
        self._answer(200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": found})

    def do_DELETE(self) -> None:
        pod = self.cluster.delete(self.path.rpartition("/")[2])
        self._answer(200 if pod else 404, pod or {"kind": "Status", "status": "Failure", "reason": "NotFound"})

    def _answer(self, status: int, content: Any) -> None:
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(content, str) else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def small_cluster(folder: Path, **environment: str) -> Iterator[tuple[Cluster, Path]]:
    """The cluster, and the kubeconfig that leads to it."""
    cluster = Cluster({"PATH": os.environ["PATH"], "HOME": str(folder), "OMP_NUM_THREADS": "1", **environment})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Api", (_Api,), {"cluster": cluster}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "small",
        "clusters": [{"name": "small", "cluster": {"server": address}}],
        "users": [{"name": "nobody", "user": {}}],
        "contexts": [{"name": "small", "context": {"cluster": "small", "user": "nobody"}}],
    }
    path = folder / "kubeconfig.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    try:
        yield cluster, path
    finally:
        server.shutdown()
        server.server_close()
        for process in cluster.processes.values():
            process.kill()
