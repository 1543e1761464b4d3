"""A real control plane of Kubernetes for tests: etcd, API server, controller manager and scheduler, each a process of its own.

Nodes are not its part: see ``process_kubelet``.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from kubernetes.client import ApiClient, CoreV1Api
from kubernetes.config import new_client_from_config

from control_plane_build import ControlPlanePrograms
from kubernetes_api import Api
from loopback import free_port
from servers import wait_until

_ADMIN: Final = "admin"
_USERS: Final = {
    _ADMIN: ("admin", "system:masters"),
    "controllers": ("system:kube-controller-manager", "system:masters"),
    "scheduler": ("system:kube-scheduler", "system:masters"),
}
_LOST_NODE_SECONDS: Final = 30
"""A node is lost when it has given no sign of life for so long (40 by default) …"""
_LOST_POD_SECONDS: Final = 5
"""… and so long after that its pods are deleted (300)."""


@dataclass(frozen=True)
class ControlPlane:
    """The API server's address, the certificate that it proves itself with, and the way to it as an administrator."""

    host: str
    port: int
    certificate: Path
    kubeconfig: Path

    def client(self) -> ApiClient:
        return new_client_from_config(str(self.kubeconfig))


@contextlib.contextmanager
def control_plane(programs: ControlPlanePrograms, folder: Path) -> Iterator[ControlPlane]:
    """Runs one on the loopback address, with its data and logs under ``folder``, until the block ends."""
    tokens = {name: secrets.token_hex(16) for name in _USERS}
    _write_secrets(folder, tokens)
    store, peers, port = free_port(), free_port(), free_port()
    plane = ControlPlane("127.0.0.1", port, folder / "certificates" / "apiserver.crt", folder / "admin.yaml")
    running: list[subprocess.Popen[bytes]] = []
    try:
        running.append(_start(programs, folder, "etcd", _etcd(folder, store, peers)))
        running.append(_start(programs, folder, "kube-apiserver", _api_server(folder, store, port)))
        wait_until("the API server's certificate", plane.certificate.is_file, 60, every=0.2)
        for name, token in tokens.items():
            _write_kubeconfig(folder / f"{name}.yaml", plane, token)
        with plane.client() as client:
            wait_until("the API server", lambda: _is_ready(client), 120)
            manager = _controller_manager(folder, plane)
            running.append(_start(programs, folder, "kube-controller-manager", manager))
            running.append(_start(programs, folder, "kube-scheduler", _scheduler(folder)))
            wait_until("the first service account", lambda: _has_account(client, "default"), 120)
        yield plane
    finally:
        for process in reversed(running):
            process.terminate()
        for process in reversed(running):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def given_plane(kubeconfig: Path) -> ControlPlane:
    """A cluster that is there already."""
    found = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    context = next(one["context"] for one in found["contexts"] if one["name"] == found["current-context"])
    client = new_client_from_config(str(kubeconfig))
    address = client.configuration.host.removeprefix("https://").removesuffix("/")
    certificate = client.configuration.ssl_ca_cert
    if not certificate or "/" in address:
        raise ValueError(f"{kubeconfig}: the cluster {context['cluster']} needs an https address and its CA")
    host, _, port = address.rpartition(":") if ":" in address else (address, "", "443")
    return ControlPlane(host, int(port), Path(certificate), kubeconfig)


def _write_secrets(folder: Path, tokens: dict[str, str]) -> None:
    lines = [f'{tokens[name]},{user},{name},"{groups}"' for name, (user, groups) in _USERS.items()]
    (folder / "tokens.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    key = ["openssl", "genrsa", "-out", str(folder / "accounts.key"), "2048"]
    subprocess.run(key, check=True, capture_output=True)


def _etcd(folder: Path, port: int, peers: int) -> list[str]:
    here, other = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peers}"
    return [
        f"--data-dir={folder}/etcd", f"--listen-client-urls={here}", f"--advertise-client-urls={here}",
        f"--listen-peer-urls={other}", f"--initial-advertise-peer-urls={other}", f"--initial-cluster=default={other}",
        "--unsafe-no-fsync",
    ]  # fmt: skip


def _api_server(folder: Path, store: int, port: int) -> list[str]:
    return [
        f"--etcd-servers=http://127.0.0.1:{store}", f"--cert-dir={folder}/certificates", "--bind-address=127.0.0.1",
        f"--secure-port={port}", f"--token-auth-file={folder}/tokens.csv", "--authorization-mode=Node,RBAC",
        f"--advertise-address={_own_address()}", "--service-cluster-ip-range=10.96.0.0/16",
        "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={folder}/accounts.key",
        f"--service-account-signing-key-file={folder}/accounts.key",
        f"--default-not-ready-toleration-seconds={_LOST_POD_SECONDS}",
        f"--default-unreachable-toleration-seconds={_LOST_POD_SECONDS}",
    ]  # fmt: skip


def _controller_manager(folder: Path, plane: ControlPlane) -> list[str]:
    return [
        f"--kubeconfig={folder}/controllers.yaml", "--leader-elect=false", "--bind-address=127.0.0.1",
        f"--secure-port={free_port()}", "--port=0", f"--cert-dir={folder}/manager",
        f"--service-account-private-key-file={folder}/accounts.key", f"--root-ca-file={plane.certificate}",
        f"--node-monitor-grace-period={_LOST_NODE_SECONDS}s", "--node-monitor-period=2s",
    ]  # fmt: skip


def _scheduler(folder: Path) -> list[str]:
    return [
        f"--kubeconfig={folder}/scheduler.yaml", "--leader-elect=false", "--bind-address=127.0.0.1",
        f"--secure-port={free_port()}", "--port=0", f"--cert-dir={folder}/scheduler",
        f"--authentication-kubeconfig={folder}/scheduler.yaml", f"--authorization-kubeconfig={folder}/scheduler.yaml",
    ]  # fmt: skip


def _own_address() -> str:
    """An address of this machine that is not the loopback's, which the API server does not advertise; nobody is told it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # sends nothing: it only looks up the way
        return str(probe.getsockname()[0])
    return "192.0.2.1"


def _start(
    programs: ControlPlanePrograms, folder: Path, name: str, arguments: Sequence[str]
) -> subprocess.Popen[bytes]:
    log = (folder / f"{name}.log").open("wb")
    setpriv = [shutil.which("setpriv") or "setpriv", "--pdeathsig", "KILL"]
    return subprocess.Popen([*setpriv, programs[name], *arguments], stdout=log, stderr=log, cwd=folder)


def _write_kubeconfig(path: Path, plane: ControlPlane, token: str) -> None:
    cluster = {"server": f"https://{plane.host}:{plane.port}", "certificate-authority": str(plane.certificate)}
    config: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tests",
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": "tests", "user": {"token": token}}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
    }
    path.write_text(yaml.safe_dump(config), encoding="utf-8")


def _is_ready(client: ApiClient) -> bool:
    return bool(Api(client).get("/readyz"))


def _has_account(client: ApiClient, namespace: str) -> bool:
    return bool(CoreV1Api(client).read_namespaced_service_account("default", namespace).secrets)
