"""How a training is told to stop: it finishes its step, leaves a checkpoint and ends, as hosts that are taken away ask."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class TrainingInterrupted(RuntimeError):  # noqa: N818
    """The training was told to stop by the signal ``number`` and left a checkpoint to go on from."""

    def __init__(self, message: str, number: int = signal.SIGTERM) -> None:
        super().__init__(message)
        self.number = number


@dataclass
class StopRequest:
    """``number`` is that of the signal that came, None before."""

    number: int | None = None


@contextmanager
def stop_signals() -> Iterator[StopRequest]:
    """Within the block SIGTERM and SIGINT only make a request. Outside the main thread nothing is caught.

    Later signals change nothing: a terminal and ``torchrun`` may both pass on the same one.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(number: int, _frame: object) -> None:
        request.number = request.number or number

    before = {number: signal.signal(number, ask) for number in _SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
