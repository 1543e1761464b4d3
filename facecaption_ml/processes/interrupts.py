"""Ctrl-C, SIGTERM and SIGHUP: a program ends soon, with one line and the exit status 128 + signal, wherever it is.

``run`` gives a program's work a thread of its own; the main thread waits for signals only. So a signal is answered at once,
in the middle of an import, of a long operation of a library that takes none, or of code that would catch an exception. The
work is not unwound: it is cut off as by SIGKILL, which everything written here survives. What should happen before is a
callback of ``before_end``; what should rather come to an end by itself is within ``asking``. Child processes that the work
starts do not hear a terminal's Ctrl-C, which all of its processes get: this one tells them to stop.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from facecaption_ml.processes.tree import PARENT, descendants, end_descendants, send

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_OF_TERMINALS: Final = (signal.SIGINT, signal.SIGHUP)
CHILDREN_SECONDS: Final = 5.0
"""How long child processes have before they are killed."""
CALLBACK_SECONDS: Final = 2.0
_WAIT_S: Final = 0.1


@dataclass
class _State:
    """Of this process; a forked child has none of it."""

    running: bool = False
    number: int | None = None
    quiet: bool = False
    advice: str = ""
    terminal: int = 2
    children_seconds: float = CHILDREN_SECONDS
    asked: Callable[[int], None] | None = None
    callbacks: list[Callable[[], None]] = field(default_factory=list)


_state = _State()


def run(work: Callable[[], Any]) -> Any:
    """What ``work`` gives or raises; it is called in a thread, while this one, the main thread, waits for signals.

    A process that another of this project has started (``processes.PARENT``) ends without a line: its parent says one.
    """
    is_child = PARENT in os.environ
    _state.running, _state.quiet, _state.terminal = True, is_child, os.dup(2)
    if not is_child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    for number in SIGNALS:
        # nohup has SIGHUP ignored. SIGINT is caught even where a shell's script has it ignored for what it runs beside it.
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _on_signal)
    os.register_at_fork(after_in_child=_forget)
    atexit.register(_ignore_signals)
    done, results, errors = threading.Event(), [], []

    def in_thread() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _OF_TERMINALS)
        try:
            results.append(work())
        except BaseException as error:  # SystemExit too: it is raised again where it has its effect
            errors.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=in_thread, name="work", daemon=True)
    thread.start()
    # Not one long wait: Polars puts a handler of its own before Python's, after which the system takes up a wait again, and
    # Python's is called only between waits.
    while not done.wait(_WAIT_S):
        pass
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def is_ending() -> bool:
    """Whether a signal has come."""
    return _state.number is not None


def halt_if_ending() -> None:
    """Once a signal has come, the thread of the work stays here until the process has ended."""
    while is_ending() and threading.current_thread() is not threading.main_thread():
        time.sleep(1)


def is_running() -> bool:
    """Whether this process is under ``run``, and so its signals are answered."""
    return _state.running


def advise(text: str, children_seconds: float | None = None) -> None:
    """What the line of a stopped program adds; and how long its child processes have, if not ``CHILDREN_SECONDS``."""
    _state.advice = text
    _state.children_seconds = children_seconds or _state.children_seconds


@contextlib.contextmanager
def before_end(callback: Callable[[], None]) -> Iterator[None]:
    """Within the block a signal calls ``callback`` before the process ends; it has ``CALLBACK_SECONDS``."""
    _state.callbacks.append(callback)
    try:
        yield
    finally:
        _state.callbacks.remove(callback)


@contextlib.contextmanager
def asking(
    callback: Callable[[int], None], seconds: float | None = None, unless: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Within the block the first signal calls ``callback`` with its number, and the work ends by itself.

    Where it has not after ``seconds`` it is cut off all the same, once ``unless`` no longer holds. A second signal ends the
    process at once where ``seconds`` are given; else it changes nothing.
    """

    def ask(number: int) -> None:
        if _state.number is None:
            _state.number = number
            callback(number)
            if seconds is not None:
                threading.Thread(target=cut_off, args=(seconds, number), daemon=True).start()
        elif seconds is not None:
            _end_now(number)

    def cut_off(seconds: float, number: int) -> None:
        time.sleep(seconds)
        while unless():
            time.sleep(0.1)
        if _state.asked is ask:
            _end(number)

    _state.asked = ask
    try:
        yield
    finally:
        _state.asked = None


def _on_signal(number: int, _frame: Any) -> None:
    if _state.asked:
        _state.asked(number)
    elif _state.number is None:
        _state.number = number
        _end(number)
    else:
        _end_now(number)


def _end(number: int) -> None:
    _say(number)
    _flush()
    threading.Thread(target=_silence, daemon=True).start()
    callbacks = threading.Thread(target=_call, args=(list(_state.callbacks),), daemon=True)
    callbacks.start()
    end_descendants(_state.children_seconds)
    callbacks.join(CALLBACK_SECONDS)
    _end_now(number)


def _end_now(number: int) -> None:
    for pid in descendants():
        send(pid, signal.SIGKILL)
    os._exit(128 + number)


def _say(number: int) -> None:
    if _state.quiet:
        return
    by = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    line = f"stopped by {by}: {_state.advice}" if _state.advice else f"stopped by {by}"
    with contextlib.suppress(OSError):
        os.write(_state.terminal, f"{line}\n".encode())


def _flush() -> None:
    """What the work has said so far goes out."""
    flushing = threading.Thread(target=sys.stdout.flush, daemon=True)  # the work may hold the stream's lock
    flushing.start()
    flushing.join(0.2)


def _silence() -> None:
    """What the work says while it is being cut off is of no use to anybody. Dagster sets both streams anew for each step."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        while True:
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            time.sleep(0.02)


def _call(callbacks: list[Callable[[], None]]) -> None:
    for callback in reversed(callbacks):
        with contextlib.suppress(Exception):
            callback()


def _ignore_signals() -> None:
    """At the very end Python puts the system's handlers back, by which a late Ctrl-C would take the exit status away."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _forget() -> None:
    """In a forked child: signals do what they do without ``run``."""
    global _state
    if _state.running:
        _state = _State()
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
