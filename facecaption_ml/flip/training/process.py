"""The entry point of one training process: alone, or once for each GPU under ``torchrun``.

    torchrun --standalone --nproc-per-node=8 -m facecaption_ml.flip.training.process --config FILE --work FOLDER

``FILE`` is what ``TrainingConfig.to_json`` gives. Exit status: 0 done, 1 a fault, 143 after SIGTERM and 130 after SIGINT, both
with a checkpoint left to resume from once there have been steps (``torchrun`` itself says 1 for each of these). One process
trains in a folder at a time.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from facecaption_ml.errors import describe, first_line, is_mendable
from facecaption_ml.flip.errors import TrainingInterrupted, named_options
from facecaption_ml.processes import interrupts
from facecaption_ml.processes.tree import PARENT_SPEAKS
from facecaption_ml.storage.lock import exclusive

if TYPE_CHECKING:
    from facecaption_ml.flip.training.config import TrainingConfig
    from facecaption_ml.flip.training.export import TrainingOutcome
    from facecaption_ml.flip.training.progress import Report
    from facecaption_ml.flip.training.trainer import Trainer

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_FAILURE: Final = "failure-{}.json"
_STEP_SECONDS: Final = 7.0
_LOCK: Final = ".lock"
_LOST_TOUCH: Final = "lost touch with the other processes"


def train(config: TrainingConfig, work: Path, report: Report | None = None) -> TrainingOutcome | None:
    """Train the variant, resume where an unfinished training stopped, and write the checkpoint to the store.

    Called by every process; ``work`` is a local folder for logs and TensorBoard files. ``report`` is given each record of the
    log on the main process. Returns the outcome there, None elsewhere and where ``max_steps`` ended the run before the
    training was done. Raises TrainingError, PairsError, PresetError, WeightsNotReachable or StoreError with one line that
    names what is wrong, LockedError where another process trains the same variant in this store, and TrainingInterrupted after
    SIGTERM or SIGINT.
    """
    import torch

    from facecaption_ml.flip.training.checkpoint import TrainingCheckpoints
    from facecaption_ml.flip.training.distributed import process_group
    from facecaption_ml.flip.training.trainer import Trainer

    with _stop_signals() as stop_requested, process_group(config.device) as dist:
        if config.options.threads:
            torch.set_num_threads(config.options.threads)
        checkpoints = TrainingCheckpoints.of(config)
        with checkpoints.alone() if dist.is_main_process else nullcontext():
            trainer = Trainer(config, dist, work, report, checkpoints)
            try:
                with _asked_to_stop(trainer, dist.count) as stop_asked:
                    trainer.fit(stop_asked or stop_requested)
                return trainer.finish()
            finally:
                trainer.close()


@contextmanager
def _stop_signals() -> Iterator[Callable[[], int | None]]:
    """Within the block SIGTERM and SIGINT only make a request: the number of the first, None before.

    The training then finishes its step and leaves a checkpoint, as hosts that are taken away ask. Later signals change
    nothing: a terminal and ``torchrun`` may both pass on the same one. Outside the main thread nothing is caught.
    """
    requests: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.signal(number, lambda sent, _frame: requests.append(sent)) for number in _SIGNALS}
    try:
        yield lambda: requests[0] if requests else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _asked_to_stop(trainer: Trainer, processes: int) -> Iterator[Callable[[], int | None] | None]:
    """The same for the work of a process under ``interrupts``, whose signals the main thread gets; None for any other.

    Alone, a process that has not left a checkpoint after ``_STEP_SECONDS``, or gets a second signal, ends without; a
    checkpoint that is being written is finished. Several processes wait for each other, and torchrun for all of them.
    """
    if not interrupts.is_running() or threading.current_thread() is threading.main_thread():
        yield None
        return
    requests: list[int] = []
    seconds = _STEP_SECONDS if processes == 1 else None
    interrupts.advise("the next run resumes from the last checkpoint")
    with interrupts.asking(requests.append, seconds, unless=lambda: trainer.is_saving):
        yield lambda: requests[0] if requests else None


# -- as a process --------------------------------------------------------------------------------------------------------


def run_process(config: TrainingConfig, work: Path, report: Report | None = None, *, debug: bool = False) -> int:
    """``train`` as this process's work, and its exit status (see the module).

    What goes wrong is one line on standard error and a ``Failure`` in ``work``; with ``debug`` the traceback comes before it.
    Progress goes to the logger "facecaption".
    """
    rank = int(os.environ.get("RANK", "0"))
    try:
        with _alone_in(work, rank):
            _forget_failures(work, rank)
            train(config, work, report)
        return 0
    except TrainingInterrupted as error:
        _leave(work, rank, Failure(str(error)), quiet=os.environ.get(PARENT_SPEAKS) == "1")
        return 128 + error.number
    except Exception as error:
        if debug or not is_mendable(error):
            traceback.print_exc()
        failure, status = _failure_of(error), 1
    _leave(work, rank, failure)
    return status


@contextmanager
def _alone_in(work: Path, rank: int) -> Iterator[None]:
    """Within the block no other training uses the folder; the first process holds the lock for all. Raises LockedError."""
    work.mkdir(parents=True, exist_ok=True)
    with exclusive(lock_of(work), f"a training in {work}") if rank == 0 else nullcontext():
        yield


def lock_of(work: Path) -> Path:
    """The file that a training in the folder holds locked."""
    return work / _LOCK


@dataclass(frozen=True)
class Failure:
    """Why a process failed, in one line, and the options that the line names."""

    line: str
    options: tuple[str, ...] = ()

    @property
    def is_echo(self) -> bool:
        """Whether it only says that another process had ended."""
        return self.line.startswith(_LOST_TOUCH)


def first_failure(work: Path) -> Failure | None:
    """Of the process that failed first, for who started them all. Those that only lost touch with it come last."""
    failures = []
    for path in work.glob(_FAILURE.format("*")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # cut by the kill that followed
            continue
        failure = Failure(record["line"], tuple(record["options"]))
        failures.append((failure.is_echo, path.stat().st_mtime_ns, failure))
    return min(failures, key=lambda one: one[:2])[2] if failures else None


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
        failure = _failure_of(error)
        _leave(
            given.work, int(os.environ.get("RANK", "0")), Failure(f"{given.config}: {failure.line}", failure.options)
        )
        return 1
    return run_process(config, given.work, debug=given.debug)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m facecaption_ml.flip.training.process",
        description="Train FLIP as a configuration says, or resume its unfinished training. "
        "For several GPUs: torchrun --standalone --nproc-per-node=N -m facecaption_ml.flip.training.process …",
    )
    parser.add_argument("--config", type=Path, required=True, help="JSON file of the training (TrainingConfig.to_json)")
    parser.add_argument("--work", type=Path, required=True, help="local folder for the log and the TensorBoard files")
    parser.add_argument("--debug", action="store_true", help="print the traceback of a fault")
    return parser


def _failure_of(error: Exception) -> Failure:
    """One line of what went wrong, with what to do where that is known."""
    import torch

    line = first_line(error)
    if isinstance(error, torch.OutOfMemoryError):
        options = ("batch_size", "accumulation", "activation_checkpointing")
        return Failure(
            f"the GPU's memory is too small ({line.split('. ')[0]}): lower batch_size and raise accumulation, or set "
            "activation_checkpointing=true",
            options,
        )
    if _is_lost_touch(error):
        return Failure(f"{_LOST_TOUCH}, one of which has ended ({line})")
    return Failure(describe(error), named_options(error))


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


def _leave(work: Path, rank: int, failure: Failure, quiet: bool = False) -> None:
    if not quiet:
        sys.stderr.write(f"{failure.line}\n" if rank == 0 else f"process {rank}: {failure.line}\n")
    try:
        work.mkdir(parents=True, exist_ok=True)
        (work / _FAILURE.format(rank)).write_text(json.dumps(vars(failure)), encoding="utf-8")
    except OSError:
        pass  # the line is on standard error, and there is nowhere else


if __name__ == "__main__":
    sys.exit(interrupts.run(main))
