"""A training process that Dagster has started: the library's, with its lines in the run's log.

``python -m facecaption_assets.training.process WORK``, alone or under ``torchrun``. ``WORK`` holds ``training.json``, a
``TrainingConfig``. The main process opens Dagster Pipes; all processes write to their standard error too. When the process of
the step has gone, they leave a checkpoint and end.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from facecaption_ml.processes import interrupts
from facecaption_ml.processes.tree import end_with_parent

CONFIG: Final = "training.json"
_QUIET_S: Final = 5.0
logger = logging.getLogger("facecaption")


def main(work: Path) -> int:
    """Train as ``facecaption_ml.flip.training.process`` does, and return the exit status."""
    end_with_parent()
    from facecaption_ml.flip.training.config import TrainingConfig
    from facecaption_ml.flip.training.process import run_process

    config = TrainingConfig.from_json((work / CONFIG).read_text(encoding="utf-8"))
    with _lines_to_dagster():
        return run_process(config, work)


@contextmanager
def _lines_to_dagster() -> Iterator[None]:
    """The training's lines as log messages of the Dagster run; on the first process of a run that Dagster started."""
    logger.setLevel(logging.INFO)
    terminal = logging.StreamHandler(sys.stderr)
    terminal.addFilter(_NowAndThen())
    logger.addHandler(terminal)
    # other processes must not open Pipes: each would report the end of the whole
    if os.environ.get("RANK", "0") != "0" or "DAGSTER_PIPES_CONTEXT" not in os.environ:
        yield
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        to_dagster = _ToDagster(pipes.log)
        logger.addHandler(to_dagster)
        try:
            yield
        finally:
            logger.removeHandler(to_dagster)


class _ToDagster(logging.Handler):
    """Hands records on to the logger of a Pipes session."""

    def __init__(self, target: logging.Logger) -> None:
        super().__init__()
        self._target = target

    def emit(self, record: logging.LogRecord) -> None:
        self._target.log(record.levelno, record.getMessage())


class _NowAndThen(logging.Filter):
    """Warnings always, other lines at most one in five seconds: a terminal is for people."""

    def __init__(self) -> None:
        super().__init__()
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if record.levelno < logging.WARNING and now < self._next:
            return False
        self._next = now + _QUIET_S
        return True


if __name__ == "__main__":
    sys.exit(interrupts.run(lambda: main(Path(sys.argv[1]))))
