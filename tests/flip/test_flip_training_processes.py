"""Trainings in processes of their own that are killed, told to stop, and gone on with."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from facecaption_ml.flip.training.config import TrainingConfig
from facecaption_ml.flip.training.process import train
from facecaption_ml.storage.store import Store
from squares import assert_same, forget_after, micro_config, newest, steps_kept, write_squares

pytestmark = pytest.mark.processes

REPOSITORY = Path(__file__).parents[2]
MODULE = ["-m", "facecaption_ml.flip.training.process"]
# the third file of optimiser state is only half there when the process dies
KILLED_WHILE_WRITING = """
import itertools, os, signal, sys, torch
count, save = itertools.count(1), torch.save
def half(state, file):
    save(state, file)
    if next(count) == 3:
        file.flush()
        os.truncate(file.name, os.path.getsize(file.name) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
torch.save = half
from facecaption_ml.flip.training.process import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(str(tmp_path / "store"))
    write_squares(found, 160)
    return found


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python with the training's arguments; what still runs at the end of the test is ended."""
    started: list[subprocess.Popen[str]] = []

    def run(config: TrainingConfig, *what: str) -> subprocess.Popen[str]:
        path = tmp_path / "training.json"
        path.write_text(config.to_json(), encoding="utf-8")
        command = [sys.executable, *what, "--config", str(path), "--work", str(tmp_path / "work")]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
        started.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for_step(store: Store, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 100
    while max(steps_kept(store), default=0) < step:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_training_goes_on_to_the_last_bit(
    store: Store, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    config = micro_config(store, epochs=1000, checkpoint_minutes=0, keep_checkpoints=1000)
    writing = start(config, "-c", KILLED_WHILE_WRITING)
    assert writing.wait(100) == -signal.SIGKILL
    assert steps_kept(store) == [1, 2]
    assert not store.exists("flip_training/flip/step-00000003.pt")

    process = start(config, *MODULE)
    wait_for_step(store, 10, process)
    process.send_signal(signal.SIGKILL)
    assert process.wait(100) == -signal.SIGKILL
    reached = max(steps_kept(store)) + 2
    never_stopped = Store(str(shutil.copytree(store.root, tmp_path / "other")))
    forget_after(never_stopped, 1)
    for found in (store, never_stopped):
        train(micro_config(found, epochs=1000, max_steps=reached), tmp_path / "work")
    assert newest(store)["position"]["step"] == reached
    assert_same(newest(store), newest(never_stopped))


def test_a_training_that_is_told_to_stop_leaves_a_checkpoint(
    store: Store, tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    train(micro_config(store, epochs=1000, max_steps=1), tmp_path / "work")
    never_stopped = Store(str(shutil.copytree(store.root, tmp_path / "other")))
    process = start(micro_config(store, epochs=1000, log_every=2), *MODULE)
    assert process.stdout
    while "epoch 2/" not in (line := process.stdout.readline()):
        assert line, process.communicate()[1]
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 143
    reached = max(steps_kept(store))
    assert errors.count("\n") == 1
    assert errors.startswith(f"told to stop after step {reached} of 8000; the next run resumes from {store.root}")
    assert reached >= 10
    train(micro_config(store, epochs=1000, max_steps=reached + 2), tmp_path / "work")
    train(micro_config(never_stopped, epochs=1000, max_steps=reached + 2), tmp_path / "work")
    assert_same(newest(store), newest(never_stopped))


def test_help_says_how() -> None:
    done = subprocess.run(
        [sys.executable, *MODULE, "--help"], capture_output=True, text=True, check=True, cwd=REPOSITORY, timeout=100
    )
    assert "--config" in done.stdout
    assert "torchrun" in done.stdout
