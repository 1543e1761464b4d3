"""Signals that reach a program under ``interrupts.run``: real processes, one line, the right status, nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from facecaption_ml.processes.tree import ProcessIdentity, descendants, started_before
from signalled import Program, assert_stopped

START = "import sys, time, subprocess, threading\nfrom facecaption_ml.processes import interrupts\n"
Run = Callable[[str], Program]


@pytest.fixture
def run() -> Iterator[Run]:
    """Starts Python with a program's text and waits until it says that it is at work."""
    started: list[Program] = []

    def start(text: str) -> Program:
        started.append(Program([sys.executable, "-c", START + text], {**os.environ, "PYTHONUNBUFFERED": "1"}))
        started[-1].wait_for("at work", 30)
        return started[-1]

    yield start
    for program in started:
        program.end()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_work_that_catches_everything_and_never_ends(run: Run, number: signal.Signals) -> None:
    program = run("""
def work():
    while True:
        try:
            print("at work")
            time.sleep(60)
        except BaseException:
            pass
interrupts.advise("start again")
interrupts.run(work)
""")
    ended = program.stop(number, to_all=True)
    assert_stopped(ended, number)
    assert ended.said_after.strip().endswith(": start again")


def test_work_in_a_library_that_lets_nobody_else_run_python(run: Run) -> None:
    ended = run("""
import re
interrupts.run(lambda: [print("at work"), [sum(range(10**6)) for _ in range(10**6)]])
""").stop(signal.SIGINT, to_all=False)
    assert_stopped(ended, signal.SIGINT)


def test_a_handler_that_polars_puts_before_pythons(run: Run) -> None:
    ended = run("""
def work():
    import polars as pl
    pl.DataFrame({"a": [1]}).lazy().select(pl.col("a").sum()).collect()
    print("at work")
    time.sleep(60)
interrupts.run(work)
""").stop(signal.SIGINT, to_all=False)
    assert_stopped(ended, signal.SIGINT)


@pytest.mark.processes
def test_children_end_too_and_say_nothing(run: Run) -> None:
    program = run("""
child = "import time\\nprint('at work')\\ntime.sleep(60)"
deaf = "import signal, time\\nsignal.signal(15, lambda *_: None)\\ntime.sleep(1)\\nprint('is deaf')\\ntime.sleep(60)"
def work():
    both = [subprocess.Popen([sys.executable, "-c", text]) for text in (child, deaf)]
    for one in both:
        one.wait()
    print("Error: a child has failed")
interrupts.advise("", children_seconds=1)
interrupts.run(work)
""")
    program.wait_for("is deaf", 30)
    ended = program.stop(signal.SIGINT, to_all=True)
    assert_stopped(ended, signal.SIGINT)
    assert ended.said_after.strip() == "stopped by Ctrl-C"


@pytest.mark.processes
def test_a_childs_child_outlives_neither(run: Run) -> None:
    program = run("""
deaf = "import signal, time\\nsignal.signal(15, lambda *_: None)\\nprint('at work')\\ntime.sleep(60)"
child = f"import subprocess, sys\\nsubprocess.run([sys.executable, '-c', {deaf!r}])"
interrupts.advise("", children_seconds=1)
interrupts.run(lambda: subprocess.run([sys.executable, "-c", child]))
""")
    ended = program.stop(signal.SIGTERM, to_all=False)
    assert_stopped(ended, signal.SIGTERM)
    assert ended.seconds > 0.9, "the child ends at once, its own child has its time"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_a_program_is_loaded(run: Run, number: signal.Signals) -> None:
    ended = run("""
from facecaption_ml.processes.early_signals import end_on_signals
end_on_signals()
print("at work")
for _ in range(6000):  # as loading does: a signal just before one long sleep would wait for its end
    time.sleep(0.01)
""").stop(number, to_all=False)
    assert ended.status == 128 + number
    assert ended.said_after == f"stopped by {'Ctrl-C' if number == signal.SIGINT else number.name}\n"


def test_a_second_signal_ends_at_once(run: Run) -> None:
    program = run("""
deaf = "import signal, time\\nsignal.signal(signal.SIGTERM, lambda *_: None)\\nprint('at work')\\ntime.sleep(60)"
interrupts.advise("", children_seconds=50)
interrupts.run(lambda: subprocess.run([sys.executable, "-c", deaf]))
""")
    os.kill(program.process.pid, signal.SIGINT)
    program.wait_for("stopped by Ctrl-C", 10)
    ended = program.stop(signal.SIGINT, to_all=False)
    assert ended.status == 130
    assert ended.seconds < 10  # not the 50 that its child was given
    assert not ended.survivors


def test_what_should_happen_before_the_end(run: Run) -> None:
    program = run("""
import pathlib, os
def work():
    with interrupts.before_end(lambda: os.write(9, b"called")):
        print("at work")
        time.sleep(60)
os.dup2(os.open(os.devnull, os.O_WRONLY), 9)
kept = os.dup(2); os.dup2(kept, 9)
interrupts.run(work)
""")
    assert program.stop(signal.SIGTERM, to_all=False).said_after == "stopped by SIGTERM\ncalled"


@pytest.mark.parametrize(("minds", "status", "said"), [(True, 7, ""), (False, 130, "stopped by Ctrl-C\n")])
def test_work_that_is_asked_and_work_that_does_not_listen(run: Run, minds: bool, status: int, said: str) -> None:
    program = run(f"""
asked = threading.Event()
def work():
    with interrupts.asking(lambda number: asked.set(), seconds=1):
        print("at work")
        asked.wait()
        time.sleep({0 if minds else 60})
    sys.exit(7)
interrupts.run(work)
""")
    ended = program.stop(signal.SIGINT, to_all=False)
    assert (ended.status, ended.said_after) == (status, said)
    assert ended.seconds < 8


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_work_changes_no_exit_status(run: Run, number: signal.Signals) -> None:
    program = run("""
import os
class Loaded:
    def __del__(self, write=os.write, sleep=time.sleep):
        write(1, b"taken apart\\n")  # as Python takes its modules apart; with a large library's that takes a while
        for _ in range(100):
            sleep(0.01)
loaded = Loaded()
interrupts.run(lambda: print("at work"))
sys.exit(130)
""")
    program.wait_for("taken apart", 30)
    ended = program.stop(number, to_all=False)
    assert (ended.status, ended.said_after) == (130, "")


@pytest.mark.parametrize(("end", "status"), [("return 5", 5), ("sys.exit(3)", 3), ("raise ValueError('no')", 1)])
def test_without_a_signal_it_is_as_if_it_were_called(end: str, status: int) -> None:
    text = f"{START}\ndef work():\n    {end}\nsys.exit(interrupts.run(work))"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60)
    assert done.returncode == status
    assert ("ValueError: no" in done.stderr) == (status == 1)


def test_a_process_is_known_again_and_others_with_its_number_are_not() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    own = ProcessIdentity.own()
    its = ProcessIdentity(own.host, own.boot, child.pid, "0")
    assert child.pid in descendants()
    assert not own.is_gone
    assert ProcessIdentity.parse(str(own)) == own
    assert its.is_gone, "another process had this number"
    assert started_before(child.pid, time.time())
    assert not started_before(child.pid, time.time() - 3600)
    child.kill()
    time.sleep(0.1)
    assert not started_before(child.pid, time.time()), "a zombie does not live"
    child.wait()
    elsewhere = ProcessIdentity("another-host", own.boot, child.pid, "0")
    assert not elsewhere.is_gone
    assert ProcessIdentity(own.host, "another boot", own.pid, own.started).is_gone
