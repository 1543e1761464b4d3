"""What the benchmarks share: what work takes, measurements in processes of their own, and figures as JSON."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def peak_mb() -> float:
    """Highest resident memory of this process; not from ``getrusage`` on Linux, which counts the parent's before the exec."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def clocked(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What ``work`` gives; and its seconds by both clocks, with this process's peak memory before ("idle") and after."""
    idle, start, processor = peak_mb(), time.perf_counter(), time.process_time()
    result = work()
    wall, cpu = time.perf_counter() - start, time.process_time() - processor
    return result, {"wall_s": wall, "cpu_s": cpu, "peak_mb": peak_mb(), "idle_mb": idle}


def in_own_process(program: str, *arguments: object, **environment: str) -> Any:
    """The JSON in the last line that ``program`` prints: peaks of memory are of a process."""
    command = [sys.executable, program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        raise SystemExit(f"{' '.join(command[1:])} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def machine() -> dict[str, Any]:
    return {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}


def write_json(path: Path | None, figures: object) -> None:
    """Nothing without a path."""
    if path:
        path.write_text(json.dumps(figures, indent=1) + "\n")
