"""Ctrl-C and SIGTERM at many moments of every command that takes long: one line, within 10 s, and nobody left behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from command_line import clean_environment
from dataset_folders import write_celeba
from facecaption_ml.storage.store import Store
from loopback import free_port
from signalled import Program, assert_stopped
from squares import micro_config, steps_kept, write_squares

COMMAND = [sys.executable, "-m", "facecaption_assets.commands"]
SMALL = {
    "FACECAPTION_SAMPLE_SCENES": "24",
    "FACECAPTION_SAMPLE_PORTRAITS": "400",
    "FACECAPTION_SHARD_SIZE": "12",
    "FACECAPTION_LLM_BACKEND": "none",
    "FACECAPTION_MIN_LABELS": "2",
    "FACECAPTION_THREADS": "1",
}
Start = Callable[..., Program]
INT, TERM = signal.SIGINT, signal.SIGTERM


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a program on the test's home."""
    started: list[Program] = []

    def run(*words: str, **settings: str) -> Program:
        started.append(Program(words, clean_environment(tmp_path / "home", **{**SMALL, **settings})))
        return started[-1]

    yield run
    for program in started:
        program.end()


def reach(program: Program, moment: float | str) -> None:
    """Seconds after the start, or the first match of a line."""
    program.wait_for(moment) if isinstance(moment, str) else time.sleep(moment)


@pytest.mark.parametrize(("number", "to_all"), [(INT, True), (TERM, False)])
@pytest.mark.parametrize("moment", [1.0, 3.0, "the list of images", "raw_images shard-00000"])
def test_the_demo(start: Start, moment: float | str, number: signal.Signals, to_all: bool) -> None:
    program = start(*COMMAND, "demo")
    reach(program, moment)
    assert_stopped(program.stop(number, to_all), number)


@pytest.mark.parametrize(
    ("moment", "number"), [(1.0, TERM), ("shards shard-00000", INT), ("raw_images shard-00000", TERM)]
)
def test_a_run_leaves_a_canceled_run_and_goes_on(
    start: Start, tmp_path: Path, moment: float | str, number: signal.Signals
) -> None:
    bundled = {"FACECAPTION_ATTRIBUTE_WEIGHTS": "bundled"}
    program = start(*COMMAND, "run", **bundled)
    reach(program, moment)
    assert_stopped(program.stop(number, to_all=True), number)
    if isinstance(moment, float):
        return
    with dg.DagsterInstance.from_config(str(tmp_path / "home" / "dagster")) as instance:
        assert {run.status.value for run in instance.get_runs()} == {"SUCCESS", "CANCELED"}
    again = start(*COMMAND, "run", "--skip-source", **bundled)
    again.wait_for("Done in", 280)
    assert "marked failed" not in again.output(), "the signal has marked it canceled already"


@pytest.mark.parametrize(("number", "to_all"), [(INT, True), (TERM, False)])
@pytest.mark.parametrize("moment", [1.0, 5.0, "Dagster UI: http"])
def test_the_ui(start: Start, moment: float | str, number: signal.Signals, to_all: bool) -> None:
    program = start(*COMMAND, "ui", "--port", str(free_port()))
    reach(program, moment)
    assert_stopped(program.stop(number, to_all), number)


@pytest.mark.parametrize(("moment", "number"), [(1.0, INT), (2.0, TERM), ("epoch 2 of", INT)])
def test_the_attribute_training(start: Start, tmp_path: Path, moment: float | str, number: signal.Signals) -> None:
    numbers = list(range(60))
    write_celeba(
        Store(str(tmp_path / "data")), numbers, numbers, {n: (0 if n < 40 else 1 if n < 50 else 2) for n in numbers}
    )
    words = ["-m", "facecaption_ml.attributes", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    program = start(sys.executable, *words, "--threads", "1")
    reach(program, moment)
    assert_stopped(program.stop(number, to_all=True), number)
    again = start(sys.executable, *words, "--threads", "1")
    if isinstance(moment, str):
        again.wait_for("resuming after epoch", 100)
        second = start(sys.executable, *words)
        assert second.process.wait(100) == 1
        (line,) = second.output().splitlines()
        assert line.startswith(
            f"error: a training in {tmp_path / 'out'} is at work already (process {again.process.pid}"
        )


@pytest.mark.parametrize("number", [INT, TERM])
@pytest.mark.parametrize("moment", [1.0, "epoch 2/"])
def test_flips_training(start: Start, tmp_path: Path, moment: float | str, number: signal.Signals) -> None:
    store = Store(str(tmp_path / "store"))
    write_squares(store, 160)
    (tmp_path / "training.json").write_text(micro_config(store, epochs=1000).to_json())
    words = ["-m", "facecaption_ml.flip.training.process", "--config", str(tmp_path / "training.json")]
    program = start(sys.executable, *words, "--work", str(tmp_path / "work"))
    reach(program, moment)
    if isinstance(moment, str):
        second = start(sys.executable, *words, "--work", str(tmp_path / "work"))
        assert second.process.wait(100) == 1
        (line,) = second.output().splitlines()
        assert line.startswith(f"a training in {tmp_path / 'work'} is at work already (process {program.process.pid}, ")
        ended = program.stop(number, to_all=True)
        assert ended.status == 128 + number
        assert ended.seconds < 10
        reached = max(steps_kept(store))
        assert (
            ended.output.strip().splitlines()[-1].startswith(f"told to stop after step {reached} of 8000; the next run")
        )
        assert "Traceback" not in ended.output
    else:
        assert_stopped(program.stop(number, to_all=True), number)


def test_a_second_ctrl_c_ends_flips_training_at_once(start: Start, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    write_squares(store, 400)
    config = micro_config(store, epochs=1000, batch_size=256, queue_size=0)
    (tmp_path / "training.json").write_text(config.to_json())
    words = ["--config", str(tmp_path / "training.json"), "--work", str(tmp_path / "work")]
    program = start(sys.executable, "-m", "facecaption_ml.flip.training.process", *words)
    program.wait_for("epoch 1/")
    os.kill(program.process.pid, INT)
    time.sleep(0.3)  # else they are one
    os.kill(program.process.pid, INT)
    assert program.process.wait(6) == 130  # after one Ctrl-C a training has 7 s for its step
