"""Processes of this machine: one that is known again later, those that another has started, and an end together."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PARENT: Final = "_FACECAPTION_PARENT"
"""The environment variable that names the process (``ProcessIdentity``) with which the one that reads it ends."""
PARENT_SPEAKS: Final = "_FACECAPTION_PARENT_SPEAKS"
"""The environment variable that is 1 where that process says the line of a signal, so that its children need not."""
_PROC: Final = Path("/proc")
_WATCH_S: Final = 0.5
# They end by themselves with the process that they serve, and ignore signals until then.
_SERVANTS: Final = ("multiprocessing.resource_tracker", "multiprocessing/resource_tracker")


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, told apart from later ones with the same number: by its host, the host's boot, and its start."""

    host: str
    boot: str
    pid: int
    started: str

    @classmethod
    def own(cls) -> ProcessIdentity:
        return cls(socket.gethostname(), _boot(), os.getpid(), _started(os.getpid()) or "unknown")

    @classmethod
    def parse(cls, text: str) -> ProcessIdentity | None:
        """What ``str`` has given; None for anything else."""
        parts = text.split(" ", 3)
        if len(parts) != 4 or not parts[2].isdigit():
            return None
        return cls(parts[0], parts[1], int(parts[2]), parts[3])

    def __str__(self) -> str:
        return f"{self.host} {self.boot} {self.pid} {self.started}"

    @property
    def is_here(self) -> bool:
        """Whether it ran on this machine; of others nothing can be said."""
        return self.host == socket.gethostname()

    @property
    def is_gone(self) -> bool:
        """Whether it has certainly ended."""
        return self.is_here and (self.boot != _boot() or _started(self.pid) != self.started)


def started_before(pid: int, moment: float) -> bool:
    """Whether a process with that number lives that had started by ``moment``, seconds since the epoch (a second's slack)."""
    ticks = _stat(pid)
    if not ticks:
        return not _PROC.is_dir() and _started(pid) is not None
    boot_time = next(
        float(line.split()[1]) for line in (_PROC / "stat").read_text().splitlines() if line.startswith("btime")
    )
    return boot_time + int(ticks[19]) / os.sysconf("SC_CLK_TCK") <= moment + 1


def _boot() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def _started(pid: int) -> str | None:
    """When a living process started, in the system's own words; None where there is none (a zombie does not live)."""
    if (_PROC / "self/stat").exists():
        fields = _stat(pid)
        return fields[19] if fields else None
    asked = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True)
    state, _, started = asked.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else "-".join(started.split())


def _stat(pid: int) -> list[str]:
    """The fields of ``/proc/PID/stat`` from the third on; empty where the process is no more."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
    return [] if fields[0] in "ZX" else fields


def descendants(pid: int | None = None) -> list[int]:
    """The living processes that a process (by default this one) and its descendants have started."""
    children: dict[int, list[int]] = {}
    for child, parent in _all_processes():
        children.setdefault(parent, []).append(child)
    found, left = [], [pid or os.getpid()]
    while left:
        new = children.get(left.pop(), [])
        found += new
        left += new
    return found


def _all_processes() -> Iterator[tuple[int, int]]:
    """Every living process and its parent."""
    if (_PROC / "self/stat").exists():
        for entry in _PROC.iterdir():
            if entry.name.isdigit() and (fields := _stat(int(entry.name))):
                yield int(entry.name), int(fields[1])
        return
    listed = subprocess.run(["ps", "-axo", "pid=,ppid=,stat="], capture_output=True, text=True).stdout
    for line in listed.splitlines():
        child, parent, state = line.split(None, 2)
        if not state.startswith("Z"):
            yield int(child), int(parent)


def end_descendants(seconds: float) -> None:
    """Tell every descendant of this process to stop (SIGTERM), and kill those that are there after ``seconds``.

    One whose parent ends first is this process's descendant no longer; it is remembered, by its number and start.
    """
    told: dict[int, str | None] = {}
    deadline = time.monotonic() + seconds
    while (left := _still_there(told)) and time.monotonic() < deadline:
        for pid in left - told.keys():
            told[pid] = _started(pid)
            send(pid, signal.SIGTERM)
        time.sleep(0.05)
    for pid in left:
        send(pid, signal.SIGKILL)


def _still_there(told: dict[int, str | None]) -> set[int]:
    """The descendants of this process, and those of ``told`` and their descendants, that live and are nobody's servants."""
    known = {pid for pid, started in told.items() if started is not None and _started(pid) == started}
    found = known.union(descendants(), *(descendants(pid) for pid in known))
    return {pid for pid in found if not _is_servant(pid)}


def send(pid: int, number: int) -> None:
    """A signal to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _is_servant(pid: int) -> bool:
    try:
        command = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return False
    return any(word in command for word in _SERVANTS)


def end_with_parent(end: Callable[[], None] | None = None) -> None:
    """Watch the process that ``PARENT`` names, if any, from a thread: when it has gone, ``end`` is called.

    By default this process tells itself to stop (SIGTERM), as the parent would have done.
    """
    parent = ProcessIdentity.parse(os.environ.get(PARENT, ""))
    if parent is None:
        return

    def watch() -> None:
        while not parent.is_gone:
            time.sleep(_WATCH_S)
        (end or (lambda: os.kill(os.getpid(), signal.SIGTERM)))()

    threading.Thread(target=watch, name="watch of the parent process", daemon=True).start()


def environment_of_children(*, speaks: bool = True) -> dict[str, str]:
    """What makes a child that calls ``end_with_parent`` end with this process. ``speaks``: see ``PARENT_SPEAKS``."""
    return {PARENT: str(ProcessIdentity.own()), PARENT_SPEAKS: str(int(speaks))}
