"""A network of the tests' own: a loopback address that nobody else has, and no way out."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

_NEW_NETWORK: Final = 0x40000000  # CLONE_NEWNET


def enter_own_network() -> None:
    """For this thread, and for every thread and process that it starts from now on. Raises OSError where it may not.

    When this process is gone, however it ended, whatever is left in the network is killed: servers that have made themselves
    daemons, and processes of other users.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NETWORK):
        number = ctypes.get_errno()
        raise OSError(number, f"no network namespace: {os.strerror(number)}")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    _start_keeper()


def _start_keeper() -> None:
    """A process that reads from a pipe which nobody writes to: its end is the end of the process that holds the other side."""
    end, _held = os.pipe()  # closed by no one; not inherited by the programs that are started
    subprocess.Popen(
        [sys.executable, __file__],
        stdin=end,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(end)


def _end_what_is_left() -> None:
    mine = _network(os.getpid())
    while left := [number for number in _numbers() if number != os.getpid() and _network(number) == mine]:
        for number in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.1)


def _numbers() -> list[int]:
    """Of all processes."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _network(number: int) -> int:
    """A process's network; 0 of one that has ended."""
    try:
        return Path(f"/proc/{number}/ns/net").stat().st_ino
    except OSError:
        return 0


if __name__ == "__main__":
    sys.stdin.read()
    _end_what_is_left()
