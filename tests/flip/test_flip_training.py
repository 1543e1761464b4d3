"""Trainings of the smallest preset in this process: going on exactly, learning, what is kept and what is left."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from drawn_pairs import fill
from facecaption_ml.flip.training.process import train
from facecaption_ml.flip.training.progress import read_log
from facecaption_ml.storage.store import Store
from squares import assert_same, forget_after, micro_config, newest, steps_kept, write_squares

PAIRS = 160  # 128 for training: 8 batches of 16 an epoch


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of squares, not to be written to."""
    store = Store(str(tmp_path_factory.mktemp("squares") / "store"))
    write_squares(store, PAIRS)
    return store


def copy_of(store: Store, folder: Path) -> Store:
    return Store(str(shutil.copytree(store.root, folder)))


@pytest.fixture
def store(squares: Store, tmp_path: Path) -> Store:
    return copy_of(squares, tmp_path / "store")


@pytest.mark.parametrize(
    ("accumulation", "stops"),
    [
        pytest.param(1, (10,), id="mid-epoch", marks=pytest.mark.slow),
        pytest.param(1, (8, 16), id="epoch-borders", marks=pytest.mark.slow),
        pytest.param(2, (5,), id="accumulation", marks=pytest.mark.slow),
    ],
)
def test_a_training_goes_on_to_the_last_bit(
    store: Store, tmp_path: Path, accumulation: int, stops: tuple[int, ...]
) -> None:
    settings: dict[str, Any] = {"epochs": 6, "accumulation": accumulation, "keep_checkpoints": 1}
    train(micro_config(store, **settings, max_steps=1), tmp_path / "work")
    other = copy_of(store, tmp_path / "other")
    train(micro_config(store, **settings, max_steps=20), tmp_path / "work")
    for step in (*stops, 20):
        train(micro_config(other, **settings, max_steps=step), tmp_path / "other_work")
        assert steps_kept(other) == [step]
    found = newest(store)
    assert found["position"] == {"step": 20, "epoch": 20 * accumulation // 8, "batch": 20 * accumulation % 8}
    assert found["queue"]["valid"].all()
    assert_same(newest(other), found)


@pytest.mark.slow
def test_equal_settings_give_equal_weights_on_any_number_of_threads(store: Store, tmp_path: Path) -> None:
    versions = set()
    for threads in (1, 3):
        outcome = train(micro_config(store, epochs=1, loader_threads=threads), tmp_path / "work")
        assert outcome is not None
        versions.add(outcome.version)
    assert len(versions) == 1


@pytest.mark.slow
def test_it_learns_and_says_so(store: Store, tmp_path: Path) -> None:
    records: list[Mapping[str, Any]] = []
    outcome = train(micro_config(store, epochs=16, peak_learning_rate=4e-3), tmp_path / "work", records.append)
    assert outcome is not None
    assert outcome.steps == 16 * 8
    test = outcome.recalls["test"]
    assert test.pairs == PAIRS // 10
    for side in (test.image_to_text, test.text_to_image):
        assert side[0] > 3 * test.chance[0]
        assert side[0] <= side[1] <= side[2]
    steps = [record for record in records if record["kind"] == "step"]
    assert [record["step"] for record in steps] == list(range(1, outcome.steps + 1))
    assert sum(r["matching_loss"] for r in steps[-8:]) < sum(r["matching_loss"] for r in steps[:8])
    assert max(record["learning_rate"] for record in steps) == pytest.approx(4e-3)
    assert all(math.isfinite(value) for record in steps for value in record.values() if isinstance(value, float))
    # the test split is looked at once, after the last step
    assert [record["kind"] for record in records].count("test") == 1
    assert [record["kind"] for record in records][-4:] == ["validation", "test", "validation_matching", "test_matching"]


@pytest.mark.slow
def test_the_best_epoch_by_validation_is_what_is_kept(store: Store, tmp_path: Path) -> None:
    """A learning rate that grows without bound spoils what the first epochs have learned."""
    weights: dict[int, Path] = {}

    def keep(record: Mapping[str, Any]) -> None:
        if record["kind"] == "checkpoint":
            name = f"step-{record['step']:08d}.safetensors"
            weights[record["step"]] = Path(shutil.copy(Path(store.uri("flip_training/flip")) / name, tmp_path / name))

    config = micro_config(store, epochs=7, peak_learning_rate=3e-3, last_learning_rate=1.0, checkpoint_minutes=0)
    outcome = train(config, tmp_path / "work", keep)
    assert outcome is not None
    found = json.loads(store.read_bytes("flip_checkpoint/flip/config.json"))
    means = [epoch["reciprocal_rank"] for epoch in found["history"]]
    assert len(means) == 7
    assert found["best_epoch"] == outcome.best_epoch == means.index(max(means)) + 1 < 7
    model = load_file(store.uri("flip_checkpoint/flip/model.safetensors"))
    assert_same(model, load_file(weights[8 * outcome.best_epoch]))


@pytest.mark.slow
def test_checkpoints_are_kept_as_told_and_gone_when_the_training_is_done(store: Store, tmp_path: Path) -> None:
    config = micro_config(store, epochs=2, checkpoint_minutes=0, keep_checkpoints=3, max_steps=11)
    assert train(config, tmp_path / "work") is None
    assert steps_kept(store) == [9, 10, 11]
    assert not store.keys("flip_checkpoint/")
    assert [Path(key).name for key in store.keys("flip_training/flip/best-")] == ["best-00000001.safetensors"]
    assert train(micro_config(store, epochs=2, checkpoint_minutes=0), tmp_path / "work") is not None
    assert store.keys("flip_training/") == []
    names = {key.removeprefix("flip_checkpoint/flip/").split("/")[0] for key in store.keys("flip_checkpoint/flip/")}
    assert names == {
        "MODEL_CARD.md", "README.md", "config.json", "log.jsonl", "model.safetensors", "tensorboard", "tokenizer.json"
    }  # fmt: skip


@pytest.mark.slow
def test_the_best_weights_survive_an_epoch_that_is_run_again(store: Store, tmp_path: Path) -> None:
    """Stopped in the second epoch, run to the third, thrown back to the second: its best is still the first epoch's."""
    config = micro_config(store, epochs=4, keep_checkpoints=1, max_steps=12)
    train(config, tmp_path / "work")
    before = Path(store.uri("flip_training/flip/best-00000001.safetensors")).read_bytes()

    def crash(record: Mapping[str, Any]) -> None:
        if record["kind"] == "epoch":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(micro_config(store, epochs=4, keep_checkpoints=1), tmp_path / "work", crash)
    assert newest(store)["best_epoch"] == 1
    assert Path(store.uri("flip_training/flip/best-00000001.safetensors")).read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("same_machine", [True, False])
def test_log_and_curves_have_every_step_once(store: Store, tmp_path: Path, same_machine: bool) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings: dict[str, Any] = {"epochs": 2, "keep_checkpoints": 9, "checkpoint_minutes": 0}
    train(micro_config(store, **settings, max_steps=10), tmp_path / "work")
    forget_after(store, 6)  # steps 7 to 10 were logged and are run again
    work = tmp_path / ("work" if same_machine else "another")
    outcome = train(micro_config(store, **settings), work)
    assert outcome is not None
    records = read_log(Path(store.uri("flip_checkpoint/flip/log.jsonl")))
    assert records == read_log(work / "log.jsonl")
    counts = Counter((record["kind"], record["step"]) for record in records)
    assert {step for kind, step in counts if kind == "step"} == set(range(1, 17))
    assert {step for kind, step in counts if kind == "epoch"} == {8, 16}
    assert set(counts.values()) == {1}
    curves = EventAccumulator(store.uri("flip_checkpoint/flip/tensorboard")).Reload()
    losses = curves.Scalars("step/loss")
    assert [event.step for event in losses] == list(range(1, 17))
    by_step = {record["step"]: record["loss"] for record in records if record["kind"] == "step"}
    assert [event.value for event in losses] == pytest.approx([by_step[event.step] for event in losses])
    assert [event.step for event in curves.Scalars("epoch/text_to_image_r10")] == [8, 16]


@pytest.mark.slow
def test_variants_whose_texts_are_equal_are_one_model(tmp_path: Path) -> None:
    """Where template captions are the data set's captions, as in the sample world, FLIP and FLIP* of a seed do not differ."""
    store = fill(tmp_path / "store")
    weights = {}
    for variant in ("flip", "flip_template", "flip_alt_text"):
        outcome = train(micro_config(store, variant=variant, epochs=1), tmp_path / variant)
        assert outcome is not None
        weights[variant] = store.read_bytes(f"flip_checkpoint/{variant}/model.safetensors")
    assert weights["flip"] == weights["flip_template"]
    assert weights["flip"] != weights["flip_alt_text"]


@pytest.mark.slow
def test_what_the_model_did_not_see_whole_is_counted(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    write_squares(store, PAIRS, extra=" It is drawn again and again and again and again and again.", damaged=10)
    settings: dict[str, Any] = {"epochs": 2, "storage_options": {"aws_secret_access_key": "kept secret"}}
    train(micro_config(store, **settings, max_steps=5), tmp_path / "work")
    outcome = train(micro_config(store, **settings), tmp_path / "work")
    assert outcome is not None
    found = json.loads(store.read_bytes("flip_checkpoint/flip/config.json"))
    assert found["truncated"] == 2 * 128
    assert found["undecodable"] == 2 * 8  # two of the ten are held out
    assert {split: held_out["pairs"] for split, held_out in found["held_out"].items()} == {"validation": 15, "test": 15}
    card = store.read_bytes("flip_checkpoint/flip/MODEL_CARD.md").decode()
    assert set(found["matching_auc"]) == {"validation", "test"}
    assert all(0 <= auc <= 1 for auc in found["matching_auc"].values())
    assert f"of {found['matching_auc']['validation']:.3f} (validation), " in card
    assert "| captions cut at 16 tokens | 256 " in card
    assert "| pictures that did not decode | 16, " in card
    assert "kept secret" not in json.dumps(found) + card


@pytest.mark.slow
def test_without_held_out_pairs_the_last_epoch_counts(store: Store, tmp_path: Path) -> None:
    outcome = train(micro_config(store, epochs=2, evaluation_pairs=0), tmp_path / "work")
    assert outcome is not None
    assert outcome.best_epoch == 2
    assert not outcome.recalls
    assert "| – | 0 |" in store.read_bytes("flip_checkpoint/flip/MODEL_CARD.md").decode()


def test_a_training_on_s3_goes_on(s3_server: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, s3_server[name])
    options = {"aws_endpoint_url": s3_server["endpoint"], "aws_region": s3_server["AWS_REGION"]}
    store = Store(f"s3://data/{tmp_path.name}", options)
    write_squares(store, PAIRS, shards=1)
    train(micro_config(store, epochs=1, max_steps=5), tmp_path / "work")
    assert steps_kept(store) == [5]
    outcome = train(micro_config(store, epochs=1), tmp_path / "work")
    assert outcome is not None
    assert outcome.steps == 8
    assert store.keys("flip_training/") == []
    folder = store.local_folder("flip_checkpoint/flip", tmp_path / "cache")
    assert sorted(path.name for path in folder.iterdir()) == [
        "MODEL_CARD.md", "README.md", "config.json", "log.jsonl", "model.safetensors", "tensorboard", "tokenizer.json"
    ]  # fmt: skip
