"""What a training's pod runs: ``python -m facecaption_assets.training.pod_process FOLDER PROCESSES``.

``FOLDER`` of the store holds ``training.json``. With ``rank WORK`` instead it is one process of that training.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from facecaption_assets.settings import load_settings
from facecaption_assets.training import process as flip_process
from facecaption_assets.training.launch import training_command, training_environment
from facecaption_assets.training.pod import FAILURE, s3_client, work_folder
from facecaption_ml.storage.store import Store

_RANK: Final = "rank"
_MODULE: Final = "facecaption_assets.training.pod_process"


def main(arguments: Sequence[str]) -> int:
    """The exit status of the training, or of its one process."""
    if arguments[0] == _RANK:
        return _train_as_rank(Path(arguments[1]))
    return _train(arguments[0], int(arguments[1]))


def _train(folder: str, processes: int) -> int:
    """Start the processes, hand signals on to them, and leave the line of the one that failed first in the store."""
    from facecaption_ml.flip.training.process import first_failure

    settings = load_settings()
    store = Store(settings.store_root, settings.storage_options)
    work = work_folder(settings, folder)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / flip_process.CONFIG).write_bytes(store.read_bytes(f"{folder}/{flip_process.CONFIG}"))
    command = training_command(processes, _MODULE, _RANK, str(work))
    training = subprocess.Popen(command, env={**os.environ, **training_environment(processes)})

    def hand_on(number: int, frame: FrameType | None) -> None:
        training.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, hand_on)
    status = training.wait()
    line = first_failure(work) if status else None
    if line:
        store.write_bytes(f"{folder}/{FAILURE}", line.encode())
    return 128 - status if status < 0 else status


def _train_as_rank(work: Path) -> int:
    """``flip_process``, whose messages go to S3 instead of a file that the step could read."""
    if os.environ.get("RANK", "0") == "0":
        from dagster_pipes import PipesS3MessageWriter, open_dagster_pipes

        settings = load_settings()
        open_dagster_pipes(
            message_writer=PipesS3MessageWriter(s3_client(settings.s3_endpoint, settings.s3_region), interval=5)
        )
    return flip_process.main(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
