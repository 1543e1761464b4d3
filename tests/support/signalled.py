"""Programs that get a signal, as from a terminal (their whole process group) or from ``kill`` (the process alone)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from facecaption_ml.processes.tree import send

REPOSITORY = Path(__file__).parents[2]
STOPPED = {signal.SIGINT: "stopped by Ctrl-C", signal.SIGTERM: "stopped by SIGTERM"}


def _hear_hangups() -> None:
    """Also where the tests themselves were started by ``nohup``."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit status, what it had written, and how long it took after the signal."""

    status: int
    output: str
    said_after: str
    seconds: float
    survivors: Sequence[str]


class Program:
    """A program in a session of its own, as a terminal's."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._log = Path(tempfile.mkstemp(prefix="signalled-", suffix=".log")[1])
        self.marker = f"SIGNALLED_TEST={self._log.stem}"
        name, value = self.marker.split("=")
        with self._log.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env={**environment, name: value},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_hear_hangups,
            )

    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, pattern: str, seconds: float = 120) -> None:
        """Until the output has a match. Fails where the program ends before, or does not get there."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.output()):
            assert self.process.poll() is None, (
                f"ended with {self.process.returncode} before {pattern!r}: {self.output()}"
            )
            assert time.monotonic() < deadline, f"no {pattern!r} within {seconds:.0f} s: {self.output()}"
            time.sleep(0.05)

    def stop(self, number: signal.Signals, to_all: bool, limit: float = 30, settle: float = 0.2) -> Ended:
        """Send it a signal, to its whole group where ``to_all``, and see how it ends."""
        before = self.output()
        started = time.monotonic()
        (os.killpg if to_all else os.kill)(self.process.pid, number)
        try:
            self.process.wait(limit)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"still there {limit:.0f} s after {number.name}: {self.output()}") from None
        seconds = time.monotonic() - started
        time.sleep(settle)  # for what watches its parent
        left = self.processes()
        self.end()
        after = self.output()
        return Ended(self.process.returncode, after, after.removeprefix(before), seconds, list(left.values()))

    def processes(self) -> dict[int, str]:
        """Its living processes, wherever they are by now: they all have its environment."""
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and f"{self.marker}\0".encode() in (entry / "environ").read_bytes():
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it has ended, or is somebody else's
                continue
        return found

    def end(self) -> None:
        for process in self.processes():
            send(process, signal.SIGKILL)
        self.process.wait()


def assert_stopped(ended: Ended, number: signal.Signals) -> None:
    """Within 10 s, with one line and the status of the signal; no traceback and no process is left."""
    assert ended.status == 128 + number, ended
    assert ended.seconds < 10, ended
    assert "Traceback" not in ended.output, ended.output
    assert STOPPED[number] in ended.output.strip().splitlines()[-1], ended.output
    assert "Error" not in ended.said_after, ended.said_after
    assert not ended.survivors, ended
