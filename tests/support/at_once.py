"""Programs that do the same thing in processes of their own at the same moment."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_BEGIN = """
import json, os, sys, time, warnings
warnings.simplefilter("ignore")
sys.path[:0] = {paths!r}
from pathlib import Path
given = json.loads({given!r})
{prepared}
Path({folder!r}, "ready-" + str(given["number"])).touch()
while not Path({folder!r}, "go").exists():
    time.sleep(0.005)
"""


def at_once(
    folder: Path, prepared: str, work: str, given: Sequence[Mapping[str, object]], seconds: float = 120
) -> list[subprocess.CompletedProcess[str]]:
    """Run ``work`` in a process for each of ``given``, all from one moment on, once ``prepared`` has been run in each.

    Both are Python in which ``given`` is that process's own, with its ``number``. ``folder`` is for signs between them. Gives
    how each ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [str(Path(__file__).parent)]
    running = []
    for number, own in enumerate(given):
        begin = _BEGIN.format(
            paths=paths, given=json.dumps({**own, "number": number}), folder=str(folder), prepared=prepared
        )
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", begin + work], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
    try:
        deadline = time.monotonic() + seconds
        while len(list(folder.glob("ready-*"))) < len(running):
            assert all(process.poll() is None for process in running), [p.communicate() for p in running]
            assert time.monotonic() < deadline, "not ready in time"
            time.sleep(0.01)
        (folder / "go").touch()
        ended = []
        for process in running:
            out, err = process.communicate(timeout=seconds)
            ended.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
        return ended
    finally:
        for process in running:
            process.kill()
