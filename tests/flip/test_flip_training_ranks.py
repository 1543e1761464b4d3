"""Two processes under torchrun: one checkpoint, gone on with to the last bit, and intact when one of them is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from facecaption_ml.flip.training.config import TrainingConfig
from facecaption_ml.flip.training.process import first_failure
from facecaption_ml.flip.training.progress import read_log
from facecaption_ml.storage.store import Store
from squares import assert_same, at_step, forget_after, micro_config, steps_kept, write_squares

pytestmark = pytest.mark.processes

REPOSITORY = Path(__file__).parents[2]
TORCHRUN = [
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node=2",
    "-m",
    "facecaption_ml.flip.training.process",
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(str(tmp_path / "store"))
    write_squares(found, 160, extra=" It is drawn again and again and again and again and again.")
    return found


class Ranks:
    """torchrun with its two processes."""

    def __init__(self, config: TrainingConfig, folder: Path) -> None:
        path = folder / "training.json"
        path.write_text(config.to_json(), encoding="utf-8")
        self.work = folder / "work"
        command = [sys.executable, *TORCHRUN, "--config", str(path), "--work", str(self.work)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def pid_of(self, rank: int) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in children:
            if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                return int(child)
        raise AssertionError(f"no process of rank {rank}")


@pytest.fixture
def started() -> Iterator[list[Ranks]]:
    found: list[Ranks] = []
    yield found
    for ranks in found:
        if ranks.process.poll() is None:
            ranks.process.terminate()  # torchrun ends its processes
        ranks.process.communicate(timeout=60)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads /proc to tell the ranks apart")
def test_two_ranks_go_on_and_survive_the_loss_of_one(store: Store, tmp_path: Path, started: list[Ranks]) -> None:
    settings = {"epochs": 400, "batch_size": 8, "checkpoint_minutes": 0, "keep_checkpoints": 10_000}
    started.append(Ranks(micro_config(store, **settings, max_steps=10), tmp_path))
    said, errors = started[-1].process.communicate(timeout=100)
    assert started[-1].process.returncode == 0, errors
    assert steps_kept(store) == list(range(1, 11))
    assert len(store.keys("flip_training/flip/step-")) == 30
    records = read_log(tmp_path / "work" / "log.jsonl")
    assert [r["step"] for r in records if r["kind"] == "checkpoint"] == list(range(1, 11))
    assert said.count(" checkpoint after step 10:") == 1
    never_stopped = {step: at_step(store, step) for step in range(5, 11)}
    assert len(never_stopped[10]["random"]) == 2
    assert never_stopped[10]["seen"]["truncated"] == 10 * 16  # of both processes

    forget_after(store, 5)
    started.append(Ranks(micro_config(store, **settings), tmp_path))
    deadline = time.monotonic() + 100
    while max(steps_kept(store)) < 12:
        assert started[-1].process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(started[-1].pid_of(1), signal.SIGKILL)
    _, errors = started[-1].process.communicate(timeout=100)
    assert started[-1].process.returncode not in (0, None)
    for step, found in never_stopped.items():
        assert_same(at_step(store, step), found)
    last = max(steps_kept(store))
    assert at_step(store, last)["position"]["step"] == last
    failure = first_failure(tmp_path / "work")  # None: torchrun stopped the other before it noticed
    assert failure is None or failure.is_echo
    assert failure is not None or "lost touch" not in errors  # it may be stopped between writing and saying it
