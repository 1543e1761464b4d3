"""What Ctrl-C and SIGTERM do while a program is still being loaded. Nothing but what Python has loaded itself is imported."""

import os
import signal
from types import FrameType


def end_on_signals() -> None:
    """From here on they end the process at once, with one line, until ``interrupts.run`` takes over."""
    signal.signal(signal.SIGINT, _end)
    signal.signal(signal.SIGTERM, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    os.write(2, b"stopped by Ctrl-C\n" if number == signal.SIGINT else b"stopped by SIGTERM\n")
    os._exit(128 + number)
