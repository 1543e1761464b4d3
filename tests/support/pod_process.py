"""A container of a pod as processes of this machine: its user, environment and volumes are real, its image is not.

Every container sees this checkout and its interpreter as its image: a root of its own, read-only but for the pod's volumes, in
a mount and a process namespace of its own. The network is that of the tests, so that two pods cannot listen on one port.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).parents[2]
APP: Final = "/app"
_PREFIXES: Final = tuple(dict.fromkeys((sys.prefix, str(Path(sys.executable).resolve().parents[1]))))
IMAGE_ENVIRONMENT: Final = {
    "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONWARNINGS": "ignore",
    "PYTHONPATH": APP,
    "DAGSTER_HOME": "/opt/dagster/dagster_home",
    "DAGSTER_DISABLE_TELEMETRY": "1",
    "FACECAPTION_HOME": "/data",
    "HF_HOME": "/data/huggingface",
    "HOME": "/data",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    # a processor's own, which a machine may need for its BLAS
    **{name: value for name, value in os.environ.items() if name.startswith("OPENBLAS_")},
}
"""Of deploy/Dockerfile, in the place that this machine has for it."""
_SHARED_MEMORY: Final = "64m"


class Container:
    """Started at once. ``mounts``: place in the container → path here; ``shared_memory``: bytes, or as tmpfs has it."""

    def __init__(
        self,
        folder: Path,
        command: Sequence[str],
        environment: Mapping[str, str],
        user: int,
        mounts: Mapping[str, Path],
        hosts: str,
        shared_memory: str = _SHARED_MEMORY,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log"
        self._killed = False
        (folder / "hosts").write_text(hosts, encoding="utf-8")
        passwd = Path("/etc/passwd").read_text(encoding="utf-8")
        (folder / "passwd").write_text(f"{passwd}facecaption:x:{user}:{user}::/data:/bin/sh\n", encoding="utf-8")
        (folder / "root").mkdir(exist_ok=True)
        files = {**mounts, "/etc/hosts": folder / "hosts", "/etc/passwd": folder / "passwd"}
        script = _script(folder / "root", files, shared_memory, user, command)
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *namespaces, "sh", "-c", script],
                env={**IMAGE_ENVIRONMENT, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def exit_code(self) -> int | None:
        """As a container runtime says it: 128 and the signal's number for one that was killed; None: it runs."""
        code = self._process.poll()
        if code and self._killed:  # of which the process that made the namespaces does not tell
            return 128 + signal.SIGKILL
        return 128 - code if code is not None and code < 0 else code

    @property
    def first(self) -> int | None:
        """Process 1 of the container, by its number here."""
        try:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text(encoding="utf-8")
        except OSError:
            return None
        return int(children.split()[0]) if children.split() else None

    def stop(self) -> None:
        """SIGTERM, as a kubelet sends it; process 1 does not hear it before it asks for it."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._killed = self.exit_code is None
        self._send(signal.SIGKILL)
        if self.first is None:
            self._process.kill()

    def wait(self, seconds: float = 10) -> None:
        self._process.wait(seconds)

    def resident(self) -> int:
        """Bytes in memory of all its processes."""
        return sum(_resident(pid) for pid in _tree(self.first)) if self.first else 0

    def _send(self, number: signal.Signals) -> None:
        if self.first:
            try:
                os.kill(self.first, number)
            except ProcessLookupError:
                return


def _script(root: Path, mounts: Mapping[str, Path], shared_memory: str, user: int, command: Sequence[str]) -> str:
    """What the first process does before it becomes the container's own: the root, then the user."""
    lines = ["set -e", f"mount -t tmpfs -o mode=755 root {shlex.quote(str(root))}", f"cd {shlex.quote(str(root))}"]
    for name in ("bin", "sbin", "lib", "lib64", "lib32", "libx32"):  # links into /usr as a rule
        link = Path("/") / name
        if link.is_symlink():
            lines.append(f"ln -s {link.readlink()} {name}")
        elif link.is_dir():
            lines.append(_bind(link, f"/{name}", readonly=True))
    lines += [_bind(Path(place), place, readonly=True) for place in ("/usr", "/etc")]
    lines.append(
        "mkdir -p dev proc tmp data opt/dagster/dagster_home && mount --rbind /dev dev && mount -t proc proc proc"
    )
    lines.append(f"mount -t tmpfs -o size={shared_memory},mode=1777 shm dev/shm")
    # deepest last, so that no mount hides another
    for place in sorted(mounts, key=lambda one: one.count("/")):
        lines.append(_bind(mounts[place], place))
    lines += [_bind(Path(place), place, readonly=True) for place in _PREFIXES]
    lines += [_bind(REPOSITORY, APP, readonly=True), "mount -o remount,ro root ."]
    words = " ".join(map(shlex.quote, command))
    # A change of user forgets the signal that ends the container with the process that made its namespaces.
    as_user = f"/usr/sbin/chroot --userspec={user}:{user} . /usr/bin/setpriv --no-new-privs --pdeathsig KILL"
    lines.append(f"exec {as_user} sh -c {shlex.quote(f'cd {APP} && exec {words}')}")
    return "\n".join(lines)


def _bind(source: Path, place: str, readonly: bool = False) -> str:
    inside, outside = shlex.quote(place.lstrip("/")), shlex.quote(str(source))
    if source.is_dir():
        made = f"mkdir -p {inside}"
    else:
        made = f"mkdir -p $(dirname {inside}) && {{ test -e {inside} || touch {inside}; }}"
    again = f" && mount -o remount,bind,ro {inside}" if readonly else ""
    return f"{made} && mount --bind {outside} {inside}{again}"


def _tree(pid: int | None) -> list[int]:
    """A process and its descendants."""
    if pid is None:
        return []
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    except OSError:
        return []
    return [pid, *(found for child in children for found in _tree(int(child)))]


def _resident(pid: int) -> int:
    """Bytes of a process that are in memory; 0 of one that is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def user_of(pod: Mapping[str, Any], container: Mapping[str, Any]) -> int:
    """Who runs a container; the image's own user where neither it nor its pod says."""
    for place in (container.get("securityContext") or {}, pod.get("securityContext") or {}):
        if "runAsUser" in place:
            return int(place["runAsUser"])
    return 10001
