"""The command that trains FLIP: alone, or once for each GPU under ``torchrun``.

    torchrun --standalone --nproc-per-node=8 -m facecaption_ml.flip.training.process --config FILE --work FOLDER

``FILE`` is what ``TrainingConfig.to_json`` gives. Exit status: 0 done, 1 a fault, 143 after SIGTERM and 130 after SIGINT, both
with a checkpoint left to go on from (``torchrun`` itself says 1 for each of these).
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from facecaption_ml.errors import describe, is_mendable
from facecaption_ml.flip.training.stopping import TrainingInterrupted

if TYPE_CHECKING:
    from facecaption_ml.flip.training.config import TrainingConfig
    from facecaption_ml.flip.training.progress import Report

_FAILURE: Final = "failure-{}.txt"
_LOST: Final = "lost touch with the other processes"


def run_process(config: TrainingConfig, work: Path, report: Report | None = None, *, debug: bool = False) -> int:
    """This process's part of a training, and its exit status (see the module).

    What goes wrong is one line on standard error and in ``work/failure-<rank>.txt``; with ``debug`` the traceback comes
    before it. ``report`` is given each record of the log on the first process. Progress goes to the logger "facecaption".
    """
    rank = int(os.environ.get("RANK", "0"))
    try:
        work.mkdir(parents=True, exist_ok=True)
        _forget_failures(work, rank)
        from facecaption_ml.flip.training.trainer import train  # torch and transformers take seconds, --help should not

        train(config, work, report)
        return 0
    except TrainingInterrupted as error:
        line, status = str(error), 128 + error.number
    except Exception as error:
        if debug or not is_mendable(error):
            traceback.print_exc()
        line, status = _line(error), 1
    _leave(work, rank, line)
    return status


def first_failure(work: Path) -> str | None:
    """The line of the process that failed first, for who started them all. Those that only lost touch with it come last."""
    found = []
    for path in work.glob(_FAILURE.format("*")):
        line = path.read_text(encoding="utf-8").strip()
        found.append((not line or line.startswith(_LOST), path.stat().st_mtime_ns, line))
    return min(found)[2] or None if found else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and train. Returns the exit status."""
    given = _parser().parse_args(arguments)
    if os.environ.get("RANK", "0") == "0":
        logging.getLogger("facecaption").setLevel(logging.INFO)
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    try:
        from facecaption_ml.flip.training.config import TrainingConfig

        config = TrainingConfig.from_json(given.config.read_text(encoding="utf-8"))
    except Exception as error:
        _leave(given.work, int(os.environ.get("RANK", "0")), f"{given.config}: {_line(error)}")
        return 1
    return run_process(config, given.work, debug=given.debug)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m facecaption_ml.flip.training.process",
        description="Train FLIP as a configuration says, or go on with its unfinished training. "
        "For several GPUs: torchrun --standalone --nproc-per-node=N -m facecaption_ml.flip.training.process …",
    )
    parser.add_argument("--config", type=Path, required=True, help="JSON file of all settings (TrainingConfig.to_json)")
    parser.add_argument("--work", type=Path, required=True, help="local folder for the log and the TensorBoard files")
    parser.add_argument("--debug", action="store_true", help="print the traceback of a fault")
    return parser


def _line(error: Exception) -> str:
    """One line of what went wrong, with what to do where that is known."""
    import torch

    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, torch.OutOfMemoryError):
        return (
            f"the GPU's memory is too small ({said.split('. ')[0]}): lower FACECAPTION_FLIP_BATCH_SIZE and raise "
            "FACECAPTION_FLIP_ACCUMULATION, or set FACECAPTION_FLIP_ACTIVATION_CHECKPOINTING=true"
        )
    if _is_lost_touch(error):
        return f"{_LOST}, one of which has ended ({said})"
    return describe(error)


def _is_lost_touch(error: Exception) -> bool:
    """Whether a collective failed because another process has ended: gloo says it with a bare RuntimeError."""
    from torch import distributed

    return isinstance(error, distributed.DistBackendError) or (type(error) is RuntimeError and "gloo" in str(error))


def _forget_failures(work: Path, rank: int) -> None:
    """Each process removes its own file, and the first those of ranks that are no more."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    for path in work.glob(_FAILURE.format("*")):
        number = path.stem.rpartition("-")[2]
        if number == str(rank) or (rank == 0 and not (number.isdigit() and int(number) < processes)):
            path.unlink(missing_ok=True)


def _leave(work: Path, rank: int, line: str) -> None:
    sys.stderr.write(f"{line}\n" if rank == 0 else f"process {rank}: {line}\n")
    try:
        work.mkdir(parents=True, exist_ok=True)
        (work / _FAILURE.format(rank)).write_text(f"{line}\n", encoding="utf-8")
    except OSError:
        pass  # the line is on standard error, and there is nowhere else


if __name__ == "__main__":
    sys.exit(main())
