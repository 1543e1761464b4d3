"""The processes of trainings that a step has started."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path


def training_processes(parent: int) -> Iterator[int]:
    """The process ids of trainings that ``parent`` has started."""
    for children in Path(f"/proc/{parent}/task").glob("*/children"):
        for pid in children.read_text().split():
            if "facecaption_assets.training.process" in Path(f"/proc/{pid}/cmdline").read_text():
                yield int(pid)


def kill_training() -> None:
    """Kill those of this process."""
    for pid in training_processes(os.getpid()):
        os.kill(pid, signal.SIGKILL)
