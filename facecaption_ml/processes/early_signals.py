"""What Ctrl-C, SIGTERM and SIGHUP do while a program is still being loaded. It imports what Python has loaded itself."""

import os
import signal
from types import FrameType


def end_on_signals() -> None:
    """From here on they end the process at once, with one line, until ``interrupts.run`` takes over."""
    signal.signal(signal.SIGINT, _end)
    signal.signal(signal.SIGTERM, _end)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup has it ignored
        signal.signal(signal.SIGHUP, _end)


def _end(number: int, _frame: FrameType | None) -> None:
    by = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    try:
        os.write(2, f"stopped by {by}\n".encode())
    finally:  # the terminal may have gone
        os._exit(128 + number)
