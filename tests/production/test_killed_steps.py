"""kill −9 of the process that a training or the UI hangs on: what it has started ends too, and nothing starts beside it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from command_line import clean_environment, start
from facecaption_ml.storage.store import Store
from loopback import free_port
from servers import wait_until
from signalled import Program
from squares import micro_config, steps_kept, write_squares

STEP = """
import sys
from pathlib import Path
import dagster as dg
from facecaption_assets.training.launch import run_training
from facecaption_ml.flip.training.config import TrainingConfig

config = TrainingConfig.from_json(Path(sys.argv[1]).read_text())

@dg.asset
def training(context: dg.AssetExecutionContext) -> None:
    run_training(context, dg.PipesSubprocessClient(), config, Path(sys.argv[2]), 1)

result = dg.materialize([training], raise_on_error=False)
for event in result.all_events:
    if event.is_step_failure:
        print("FAILED:", event.step_failure_data.error.cause or event.step_failure_data.error.message)
"""


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    found: list[Program] = []
    yield found
    for program in found:
        program.end()


def test_the_training_of_a_killed_step(programs: list[Program], tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    write_squares(store, 160)
    (tmp_path / "training.json").write_text(micro_config(store, epochs=1000).to_json())
    words = [sys.executable, "-c", STEP, str(tmp_path / "training.json"), str(tmp_path / "work")]

    def step() -> Program:
        programs.append(Program(words, clean_environment(tmp_path / "home")))
        return programs[-1]

    first = step()
    first.wait_for("epoch 1/", 100)
    second = step()
    second.wait_for("FAILED", 100)
    assert (
        f"the training of flip in {tmp_path / 'work'} is at work already (process {first.process.pid}, since "
        in second.output()
    )
    first.wait_for("epoch 2/")
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    wait_until("the training's end", lambda: not first.processes(), 60, every=0.2)
    reached = max(steps_kept(store))
    again = step()
    again.wait_for(f"resuming after step {reached} of", 100)


def test_a_killed_ui(programs: list[Program], tmp_path: Path) -> None:
    port = str(free_port())
    words = [sys.executable, "-m", "facecaption_assets.commands", "ui", "--port", port]
    first = Program(words, clean_environment(tmp_path / "home"))
    programs.append(first)
    first.wait_for("Dagster UI: http", 200)
    for arguments, home in (["--port", str(free_port())], tmp_path / "home"), (["--port", port], tmp_path / "other"):
        done = start("ui", *arguments, home=home)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert f"is at work already (process {first.process.pid}, since " in line
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    wait_until("the end of its servers", lambda: not first.processes(), 20, every=0.2)


def test_a_killed_run(programs: list[Program], tmp_path: Path) -> None:
    settings = {
        "FACECAPTION_SAMPLE_SCENES": "24",
        "FACECAPTION_SHARD_SIZE": "12",
        "FACECAPTION_ATTRIBUTE_WEIGHTS": "bundled",
        "FACECAPTION_THREADS": "1",
    }
    run = [sys.executable, "-m", "facecaption_assets.commands", "run"]
    first = Program(run, clean_environment(tmp_path / "home", **settings))
    programs.append(first)
    first.wait_for("raw_images shard-00000", 200)
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    wait_until("the end of its children", lambda: not first.processes(), 20, every=0.2)
    done = start("materialize", "source_manifest", home=tmp_path / "home", **settings)
    assert done.returncode == 0, done.stderr
    first_line = done.stderr.splitlines()[0]
    assert first_line.startswith("1 run whose process has ended is marked failed: ")
