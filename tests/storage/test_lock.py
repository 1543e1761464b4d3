"""A folder that one process at a time works in: the lock goes with its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from facecaption_ml.storage.lock import LockedError, exclusive, is_locked

HOLDER = """
import sys, time
from pathlib import Path
from facecaption_ml.storage.lock import exclusive
with exclusive(Path(sys.argv[1]), "the work"):
    print("has it", flush=True)
    time.sleep(60)
"""


def test_a_second_one_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "new" / ".lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout
    try:
        assert holder.stdout.readline() == "has it\n"
        assert is_locked(lock)
        for _ in range(2):
            with (
                pytest.raises(
                    LockedError,
                    match=rf"^the work is at work already \(process {holder.pid}, since \d{{4}}-[^)]+\): wait",
                ),
                exclusive(lock, "the work"),
            ):
                pass
        os.kill(holder.pid, signal.SIGKILL)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert not is_locked(lock)
    with (
        exclusive(lock, "the work"),
        pytest.raises(LockedError, match=rf"process {os.getpid()}"),
        exclusive(lock, "it"),
    ):
        pass
    with exclusive(lock, "the work"):
        assert is_locked(lock)


def test_a_file_that_is_not_there_is_not_locked(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / "absent")
