"""One training at a time writes the checkpoints of a variant, on S3 too, where nothing tells that a trainer is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import pytest
import torch

from facecaption_ml.flip.training.checkpoint import TrainingCheckpoints
from facecaption_ml.storage.lock import LockedError
from facecaption_ml.storage.store import Store
from servers import s3_options

pytestmark = [pytest.mark.processes, pytest.mark.s3]
LEASE_S = 2.0
_TRAINER = """
import json, sys, torch
from facecaption_ml.flip.training.checkpoint import TrainingCheckpoints
from facecaption_ml.storage.store import Store
given = json.loads(sys.argv[1])
checkpoints = TrainingCheckpoints(Store(given["root"], given["options"]), "flip", 2)
with checkpoints.alone(lease_s=given["lease_s"]):
    print("trains", flush=True)
    for line in sys.stdin:
        try:
            checkpoints.save(int(line), {"weight": torch.zeros(2)}, {}, {}, 1)
            print("saved", flush=True)
        except Exception as error:
            print(error, flush=True)
"""


@pytest.fixture
def place(s3_server: dict[str, str]) -> tuple[str, dict[str, str]]:
    return f"s3://data/{uuid.uuid4().hex}", s3_options(s3_server)


@pytest.fixture
def store(place: tuple[str, dict[str, str]]) -> Store:
    return Store(*place)


@pytest.fixture
def trainer(place: tuple[str, dict[str, str]]) -> Iterator[subprocess.Popen[str]]:
    given = json.dumps({"root": place[0], "options": place[1], "lease_s": LEASE_S})
    process = subprocess.Popen(
        [sys.executable, "-c", _TRAINER, given], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "trains\n"
    yield process
    process.kill()
    process.wait()


def _answer(trainer: subprocess.Popen[str], step: int) -> str:
    assert trainer.stdin
    assert trainer.stdout
    trainer.stdin.write(f"{step}\n")
    trainer.stdin.flush()
    return trainer.stdout.readline()


def test_a_second_trainer_waits_for_a_living_one_in_vain(store: Store, trainer: subprocess.Popen[str]) -> None:
    ours = TrainingCheckpoints(store, "flip", 2)
    with (
        pytest.raises(LockedError, match=rf"a training with checkpoints under {ours.uri} is at work .*{trainer.pid}"),
        ours.alone(lease_s=LEASE_S),
    ):
        pass
    assert _answer(trainer, 1) == "saved\n"


def test_the_next_trainer_takes_over_from_a_killed_one(store: Store, trainer: subprocess.Popen[str]) -> None:
    assert _answer(trainer, 1) == "saved\n"
    trainer.kill()
    ours = TrainingCheckpoints(store, "flip", 2)
    with ours.alone(lease_s=LEASE_S):
        assert ours.latest_step() == 1
        ours.save(2, {"weight": torch.ones(2)}, {}, {}, 1)


def test_a_trainer_that_was_cut_off_writes_over_nothing(store: Store, trainer: subprocess.Popen[str]) -> None:
    assert _answer(trainer, 1) == "saved\n"
    os.kill(trainer.pid, signal.SIGSTOP)
    ours = TrainingCheckpoints(store, "flip", 2)
    with ours.alone(lease_s=LEASE_S):
        ours.save(5, {"weight": torch.ones(2)}, {}, {}, 1)
        os.kill(trainer.pid, signal.SIGCONT)
        time.sleep(LEASE_S / 2)
        assert "another may be at work" in _answer(trainer, 9)
        assert ours.latest_step() == 5
