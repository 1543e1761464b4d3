"""What a training says, in one line, when it cannot start or go on; and what it leaves."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from facecaption_ml.flip.training.checkpoint import TrainingCheckpoints
from facecaption_ml.flip.training.config import TrainingConfig
from facecaption_ml.flip.training.process import Failure, first_failure, main, run_process, train
from facecaption_ml.flip.training.trainer import Trainer
from facecaption_ml.storage.lock import exclusive
from facecaption_ml.storage.store import Store
from squares import assert_same, micro_config, newest, steps_kept, write_squares

LineOf = Callable[[TrainingConfig], str]
PAIRS = 160  # 128 for training: 8 batches of 16 an epoch


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with squares and a training that stopped after three steps, not to be written to."""
    store = Store(str(tmp_path_factory.mktemp("begun") / "store"))
    write_squares(store, PAIRS)
    train(micro_config(store, max_steps=3, checkpoint_minutes=0), store_folder(store) / "work")
    return store


def store_folder(store: Store) -> Path:
    return Path(store.root).parent


@pytest.fixture
def store(begun: Store, tmp_path: Path) -> Store:
    return Store(str(shutil.copytree(begun.root, tmp_path / "store")))


@pytest.fixture
def line_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> LineOf:
    """What a training that fails says on its standard error, which is what it leaves in its file."""

    def run(config: TrainingConfig) -> str:
        capsys.readouterr()
        assert run_process(config, tmp_path / "work") == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        failure = first_failure(tmp_path / "work")
        assert failure is not None
        assert failure.line == said.strip()
        assert all(option in failure.line for option in failure.options)
        return said.strip()

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "where"),
    [(4, "the loss or its gradient is not finite at step 5"), (8, "the weights are not finite after step 8")],
    ids=["mid-epoch", "epoch-border"],
)
def test_weights_that_are_infinite_stop_the_training(
    store: Store,
    line_of: LineOf,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    where: str,
) -> None:
    before = newest(store)
    update = Trainer._update

    def spoil(self: Trainer, losses: Any) -> None:
        update(self, losses)
        if self.position.step == step:
            with torch.no_grad():
                self.state.model.image_projection.weight[0, 0] = torch.inf

    monkeypatch.setattr(Trainer, "_update", spoil)
    line = line_of(micro_config(store))
    assert line.startswith(where)
    assert "the checkpoint after step 3 is intact" in line
    assert "lower peak_learning_rate" in line
    assert "precision=fp32" in line
    assert_same(newest(store), before)


def test_an_absurd_learning_rate_leaves_no_spoiled_checkpoint(store: Store, line_of: LineOf) -> None:
    config = micro_config(store, peak_learning_rate=1e38, warm_up_steps=0, checkpoint_minutes=0, fresh=True)
    line = line_of(config)
    assert "not finite" in line
    assert "step 1" in line
    assert "1e+38" in line
    assert steps_kept(store) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"batch_size": 8}, r"batch_size 16, now it is 8"),
        ({"peak_learning_rate": 1e-3}, r"peak_learning_rate 0.003, now it is 0.001"),
        ({"seed": 1}, r"seed 0, now it is 1"),
        ({"shards": ("shard-00000",)}, r"shards 2 from shard-00000 to shard-00001, now it is 1 from"),
    ],
)
def test_another_setting_is_named(
    store: Store, tmp_path: Path, line_of: LineOf, given: dict[str, Any], named: str
) -> None:
    before = newest(store)
    line = line_of(micro_config(store, **given))
    assert named in line
    assert "set fresh=true" in line
    assert_same(newest(store), before)
    assert run_process(micro_config(store, **given, fresh=True, max_steps=1), tmp_path / "work") == 0
    assert steps_kept(store) == [1]
    assert not list((tmp_path / "work").glob("failure-*"))


def test_another_preset_is_named(store: Store, line_of: LineOf) -> None:
    same = micro_config(store).options.reproducibility_fields()
    line = line_of(micro_config(store, **{**same, "preset": "tiny"}))
    assert "preset micro, now it is tiny" in line


def test_a_checkpoint_of_an_earlier_version_is_not_resumed(store: Store, line_of: LineOf) -> None:
    path = Path(store.uri("flip_training/flip/step-00000003.json"))
    record = json.loads(path.read_text())
    record["settings"] = record.pop("reproducibility")
    path.write_text(json.dumps(record))
    line = line_of(micro_config(store))
    assert "earlier version" in line
    assert "set fresh=true" in line


def test_other_pairs_are_noticed(store: Store, line_of: LineOf) -> None:
    write_squares(store, PAIRS, extra=" Or so.")
    line = line_of(micro_config(store))
    assert "other pairs" in line
    assert "set fresh=true" in line
    assert steps_kept(store) == [2, 3]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"batch_size": 256, "queue_size": 0}, "128 training pairs are less than one batch of 256 × 1"),
        ({"queue_size": 50}, "queue_size is 50"),
        ({"batch_size": 1}, "batch_size is 1: a pair alone has nothing to be told apart from"),
        ({"accumulation": 9}, "accumulation is 9, but an epoch has 8 batches"),
        ({"shards": ("shard-00009",)}, "1 shards_missing"),
        ({"precision": "fp16"}, "precision fp16 needs a GPU"),
        ({"image_init": "/nowhere/vit"}, "image_init: no weights"),
    ],
)
def test_a_training_that_cannot_start_says_why(
    store: Store, line_of: LineOf, given: dict[str, Any], named: str
) -> None:
    assert named in line_of(micro_config(store, **given, fresh=True))


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["safetensors", "pt", "json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_serves(
    store: Store, tmp_path: Path, line_of: LineOf, ending: str
) -> None:
    damaged = Path(store.uri(f"flip_training/flip/step-00000003.{ending}"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    line = line_of(micro_config(store))
    assert str(damaged) in line
    assert "remove step-00000003.json there to resume after step 2" in line
    Path(store.uri("flip_training/flip/step-00000003.json")).unlink()
    assert TrainingCheckpoints.of(micro_config(store)).latest_step() == 2
    assert run_process(micro_config(store, max_steps=4), tmp_path / "work") == 0
    assert steps_kept(store) == [2, 4]
    names = {Path(key).name for key in store.keys("flip_training/")}
    assert names == {f"step-{n:08d}.{end}" for n in (2, 4) for end in ("safetensors", "pt", "json")}


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_one_flipped_bit_of_a_checkpoint_is_noticed(store: Store, line_of: LineOf, ending: str) -> None:
    damaged = Path(store.uri(f"flip_training/flip/step-00000003.{ending}"))
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    line = line_of(micro_config(store))
    assert str(damaged) in line
    assert "its SHA-256 is not that of what was written" in line


def test_two_trainings_of_a_variant_do_not_share_a_store(store: Store, line_of: LineOf) -> None:
    """Whatever folders they work in: they would write one another's checkpoints."""
    lock = TrainingCheckpoints.of(micro_config(store)).lock
    assert lock is not None
    with exclusive(lock, "the other training"):
        line = line_of(micro_config(store))
    assert line.startswith(f"a training with checkpoints under {store.uri('flip_training/flip')} is at work already")
    assert ".lock" not in " ".join(store.keys("flip_training/"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_and_leaves_a_checkpoint(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    """In this process, at the last step of an epoch and of the training, where the epoch's evaluation is due as well."""
    steps = {signal.SIGTERM: 8, signal.SIGINT: 16}
    config = micro_config(store, epochs=2, fresh=True)
    before = signal.getsignal(number)

    def stop(record: Mapping[str, Any]) -> None:
        if record["kind"] == "step" and record["step"] == steps[number]:
            signal.raise_signal(number)

    assert run_process(config, tmp_path / "work", stop) == 128 + number
    assert f"told to stop after step {steps[number]} of 16" in capsys.readouterr().err
    assert signal.getsignal(number) is before
    assert newest(store)["position"] == {"step": steps[number], "epoch": steps[number] // 8, "batch": 0}
    outcome = train(micro_config(store, epochs=2), tmp_path / "work")
    assert outcome is not None
    assert [epoch["epoch"] for epoch in outcome.config["history"]] == [1, 2]


def test_the_command_names_a_file_it_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = tmp_path / "work"
    texts = {
        "absent.json": None,
        "cut.json": '{"store": ',
        "list.json": "[]",
        "other.json": '{"shards": [], "colour": 1}',
    }
    for name, text in texts.items():
        path = tmp_path / name
        if text is not None:
            path.write_text(text, encoding="utf-8")
        assert main(["--config", str(path), "--work", str(work)]) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert name in said


def test_a_store_that_cannot_be_written_is_one_line(store: Store, line_of: LineOf) -> None:
    shutil.rmtree(store.uri("flip_training"))
    Path(store.uri("flip_training")).write_text("a file where a folder is due")
    line = line_of(micro_config(store, max_steps=1))
    assert "cannot write" in line
    assert store.uri("flip_training") in line


def test_debug_shows_where(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_process(micro_config(store, queue_size=50), tmp_path / "work", debug=True) == 1
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert "check_queue_size" in said


def test_the_first_cause_is_told_from_its_echoes(tmp_path: Path) -> None:
    assert first_failure(tmp_path) is None
    (tmp_path / "failure-0.json").write_text('{"line": "shard-0000')  # cut by the kill that followed
    assert first_failure(tmp_path) is None
    echo = Failure("lost touch with the other processes, one of which has ended (…)")
    (tmp_path / "failure-1.json").write_text(json.dumps(vars(echo)))
    found = first_failure(tmp_path)
    assert found is not None
    assert found.is_echo
    (tmp_path / "failure-3.json").write_text(json.dumps(vars(Failure("queue_size is 3", ("queue_size",)))))
    assert first_failure(tmp_path) == Failure("queue_size is 3", ("queue_size",))
