"""``flip_checkpoint`` as an asset: real trainings of a tiny FLIP through Dagster, alone and under torchrun, and what becomes of
one that fails, is killed, or is told to stop.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from asset_runs import Outcome, run_asset
from drawn_pairs import ROWS, SHORT, TRAIN, fill
from facecaption_assets.checks import flip as flip_checks
from facecaption_assets.commands.instance import Pipeline, RunFailedError
from facecaption_assets.definitions import build_definitions
from facecaption_assets.partitions import VARIANTS
from facecaption_assets.resources.data import build_resources
from facecaption_assets.settings import Settings, load_settings
from facecaption_assets.training.launch import process_count, training_config
from facecaption_ml.flip.training.checkpoint import TrainingCheckpoints
from facecaption_ml.storage.store import Store
from servers import wait_until
from training_processes import kill_training, training_processes

REPOSITORY = Path(__file__).parents[2]


def settings_of(store: Store, **given: Any) -> Settings:
    home = Path(store.root).parent / "home"
    return load_settings(profile="sample", home=home, store=store.root, threads=2, **{**SHORT, **given})


def materialize(store: Store, variant: str = "flip", **given: Any) -> Outcome:
    return run_asset(build_definitions(settings_of(store, **given)), "flip_checkpoint", variant)


def kept_step(store: Store, variant: str = "flip") -> int:
    """After which step an unfinished training has a checkpoint; 0: none."""
    return TrainingCheckpoints(store, variant, 1).latest_step() or 0


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return fill(tmp_path_factory.mktemp("flip") / "store")


@pytest.fixture(scope="module")
def trained(store: Store) -> Outcome:
    """A training by one process."""
    outcome = materialize(store)
    assert not outcome.failure
    return outcome


def test_every_variant_is_a_partition() -> None:
    from facecaption_ml.flip.training.config import TEXT_COLUMNS

    assert VARIANTS.get_partition_keys() == list(TEXT_COLUMNS)


@pytest.mark.processes
def test_what_a_training_is_recorded_with(store: Store, trained: Outcome) -> None:
    config = json.loads(store.read_bytes("flip_checkpoint/flip/config.json"))
    found = trained.metadata
    assert trained.partition == "flip"
    assert trained.data_version == found["version"] == config["version"]
    assert (found["pairs"], found["left out: other_split"]) == (TRAIN, ROWS - TRAIN)
    assert (found["shards"], found["missing shards"], found["not there yet"]) == (2, 1, "shard-00002")
    assert (found["steps"], found["epochs"], found["processes"], found["global batch"]) == (8, 2, 1, 8)
    assert found["pairs per second"] > 0
    table = [record.data for record in found["held-out retrieval"].records]
    assert [(row["split"], row["direction"]) for row in table] == [
        (split, side) for split in ("validation", "test") for side in ("image → text", "text → image", "chance")
    ]
    for name in ("R@1", "R@5", "R@10"):
        assert all(0 <= float(row[name]) <= 1 for row in table)
    versions = {record.data["of"]: record.data["version"] for record in found["versions"].records}
    assert {"facecaption", "flip_checkpoint", "grammar", "torch"} <= set(versions)
    assert config["versions"] == versions
    assert found["model card"].startswith(f"# FLIP: flip, version {config['version']}")


@pytest.mark.processes
def test_the_pictures_lie_beside_the_checkpoint_and_in_the_record(store: Store, trained: Outcome) -> None:
    for name in ("curves.png", "curves.svg", "retrievals.png"):
        assert store.exists(f"flip_checkpoint/flip/{name}"), name
    assert trained.metadata["curves"].startswith("![loss, learning rate and recall](data:image/png;base64,")
    assert "data:image/jpeg;base64," in trained.metadata["sample retrievals"]
    drawing = store.read_bytes("flip_checkpoint/flip/curves.svg").decode()
    for word in ("contrastive", "matching", "learning rate", "optimiser step"):
        assert word in drawing


@pytest.mark.processes
def test_the_checks(trained: Outcome) -> None:
    assert set(trained.checks) == set(flip_checks.FLIP_CHECKPOINT)
    assert trained.checks["loads"].passed
    assert trained.checks["pairs_conserved"].passed
    assert trained.checks["pairs_conserved"].metadata["rows"].value == ROWS
    assert trained.checks["held_out_above_chance"].severity == dg.AssetCheckSeverity.WARN


@pytest.mark.processes
def test_the_trainings_lines_are_in_the_runs_log(trained: Outcome) -> None:
    assert any("flip epoch 2/2 done" in line for line in trained.lines)
    assert any("step 8/8" in line and "pairs/s" in line for line in trained.lines)


@pytest.mark.processes
def test_a_checkpoint_matches_texts_and_faces_for_the_statistics(store: Store, trained: Outcome) -> None:
    faces = [np.full((64, 64, 3), value, np.uint8) for value in (0, 90, 200)]
    for name in ("flip_checkpoint/flip", store.uri("flip_checkpoint/flip")):
        matcher, notes = build_resources(settings_of(store, itm_model=name))["matcher"].load(store)
        assert notes == []
        chances = matcher.match(faces, ["A smiling man."] * 3)
        assert chances.shape == (3,)
        assert ((chances > 0) & (chances < 1)).all()
    matcher, notes = build_resources(settings_of(store, itm_model="flip_checkpoint/flip_alt_text"))["matcher"].load(
        store
    )
    assert matcher is None
    assert "FACECAPTION_ITM_MODEL" in notes[0]
    assert "flip_checkpoint/flip_alt_text" in notes[0]


@pytest.mark.processes
def test_two_processes_train_one_checkpoint(store: Store) -> None:
    outcome = materialize(store, "flip_alt_text", flip_processes=2, flip_batch_size=4)
    assert not outcome.failure
    assert outcome.partition == "flip_alt_text"
    assert (outcome.metadata["processes"], outcome.metadata["global batch"], outcome.metadata["steps"]) == (2, 8, 8)
    assert outcome.checks["loads"].passed
    assert sum("flip_alt_text epoch 2/2 done" in line for line in outcome.lines) == 1  # one process speaks


@pytest.mark.processes
def test_a_failing_training_says_why_in_the_run(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    pipeline = Pipeline(settings_of(store, flip_queue_size=12))
    with pytest.raises(RunFailedError, match="FACECAPTION_FLIP_QUEUE_SIZE is 12"):
        pipeline.run("flip_checkpoint", partition="flip_template")
    assert not store.exists("flip_checkpoint/flip_template/config.json")


def test_without_a_finished_shard_nothing_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    pipeline = Pipeline(settings_of(Store(str(tmp_path / "store"))))
    with pytest.raises(RunFailedError, match="no shard of facecaption_dataset is there yet"):
        pipeline.run("flip_checkpoint", partition="flip")


@pytest.mark.processes
def test_a_killed_training_says_what_is_left_of_it(tmp_path: Path) -> None:
    store = fill(tmp_path / "store")
    watcher = threading.Thread(target=_kill_child_after, args=(store, 2))
    watcher.start()
    killed = materialize(store, flip_epochs=10_000, flip_checkpoint_minutes=0)
    watcher.join()
    assert killed.failure == (
        f"a training process was killed (exit status -9); the checkpoint after step {kept_step(store)} is intact: materialize "
        "again to resume from it"
    )


def _kill_child_after(store: Store, step: int) -> None:
    wait_until("the first checkpoint", lambda: kept_step(store) >= step, 150, 0.05)
    kill_training()


@pytest.mark.processes
def test_a_run_that_is_told_to_stop_leaves_a_checkpoint_that_the_next_resumes_from(tmp_path: Path) -> None:
    store = fill(tmp_path / "store")
    code = (
        "from facecaption_assets.commands.instance import Pipeline; from facecaption_assets.settings import load_settings; "
        "Pipeline(load_settings()).run('flip_checkpoint', partition='flip')"
    )
    long = {**SHORT, "flip_epochs": 10, "flip_checkpoint_minutes": 0}
    given = {"home": tmp_path / "home", "store": store.root, "threads": 1, **long}
    environment = {f"FACECAPTION_{name.upper()}": str(value) for name, value in given.items()}
    run = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, **environment},
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until("the first checkpoint", lambda: kept_step(store) or run.poll() is not None, 150, 0.05)
        (training,) = training_processes(run.pid)
        run.send_signal(signal.SIGTERM)
        _, errors = run.communicate(timeout=120)
    finally:
        run.kill()
    step = kept_step(store)
    assert run.returncode != 0
    assert not Path(f"/proc/{training}").exists()
    assert f"told to stop after step {step} of 40" in errors
    finished = materialize(store, flip_epochs=10)
    assert not finished.failure
    assert any(f"resuming after step {step} of 40" in line for line in finished.lines)
    assert finished.metadata["steps"] == 40


def test_settings_reach_the_training_and_empty_ones_leave_the_preset_its_own(store: Store) -> None:
    plain = load_settings(profile="production", store=store.root)
    config = training_config(plain, "flip", ["shard-00000"], {}, 1)
    options = config.options
    assert (options.preset, options.epochs, options.batch_size, options.queue_size) == ("base", 15, 80, 61440)
    assert options.image_init == "google/vit-base-patch16-224-in21k"
    given = plain.replaced(flip_queue_size=0, flip_image_init="none", flip_text_init="folder", threads=8, seed=5)
    config = training_config(given, "flip_template", ["shard-00000"], {"torch": "x"}, 4)
    options = config.options
    assert (options.queue_size, options.image_init, options.text_init) == (0, "none", "folder")
    assert (options.threads, config.seed, config.versions, config.text_column) == (
        2,
        5,
        {"torch": "x"},
        "template_caption",
    )
    config = training_config(given.replaced(flip_threads=3), "flip", ["shard-00000"], {}, 4)
    assert config.options.threads == 3


@pytest.mark.parametrize(("device", "set_to", "expected"), [("cpu", 0, 1), ("cpu", 3, 3), ("auto", 2, 2)])
def test_the_number_of_processes(device: str, set_to: int, expected: int) -> None:
    assert process_count(load_settings(device=device, flip_processes=set_to)) == expected


@pytest.mark.parametrize(
    ("reached", "chance", "pairs", "passed", "evaluated"),
    [(0.4, 0.2, 50, True, True), (0.39, 0.2, 50, False, True), (0.91, 0.8, 12, True, True), (1.0, 1.0, 9, True, False)],
)
def test_above_chance(reached: float, chance: float, pairs: int, passed: bool, evaluated: bool) -> None:
    side = [0.0, 0.0, reached]
    recall = {"pairs": pairs, "image_to_text": side, "text_to_image": side, "chance": [0.0, 0.0, chance]}
    check = flip_checks.held_out_above_chance({"validation": recall})
    assert (check.passed, "not evaluated" not in check.metadata) == (passed, evaluated)


def test_nothing_held_out_is_said() -> None:
    check = flip_checks.held_out_above_chance({})
    assert (check.passed, dict(check.metadata)) == (True, {"not evaluated": "no validation pairs"})


def test_a_pair_that_is_lost_fails_the_check() -> None:
    excluded = {"other_split": 4, "no_text": 1, "shards_missing": 2}
    assert flip_checks.pairs_conserved(10, excluded, 15).passed
    assert not flip_checks.pairs_conserved(10, excluded, 16).passed
