"""``facecaption benchmark``, ``ablation`` and ``materialize``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from command_line import assert_one_line, invoke
from facecaption_assets.commands.benchmark import run_ablation, run_benchmark
from facecaption_assets.commands.instance import RunFailedError, UnknownShardError
from facecaption_assets.commands.materialize import run_partition
from facecaption_assets.partitions import VARIANTS
from facecaption_assets.resources.benchmarks import BenchmarkError
from facecaption_assets.settings import Settings, load_settings
from facecaption_ml.benchmarks.report.ablation import ablation_key
from facecaption_ml.benchmarks.report.regression import snapshot
from facecaption_ml.benchmarks.result import BenchmarkResult, Measurement
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.storage.store import Store
from untrained_flip import save_flip

QUICK: dict[str, Any] = {
    "benchmark_sample_pictures": 20,
    "benchmark_sample_drawings": 10,
    "benchmark_runs": 1,
    "benchmark_retrieval_epochs": 1,
    "benchmark_attribute_epochs": 1,
    "benchmark_sketch_epochs": 1,
    "benchmark_retrieval_batch": 8,
    "threads": 1,
}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    return load_settings(profile="sample", home=tmp_path, **QUICK)


def test_a_data_set_that_there_is_not_is_one_line_with_those_there_are(tmp_path: Path) -> None:
    done = invoke("benchmark", "--task", "retrieval", "--data", "wrong", home=tmp_path)
    assert done.stdout == ""
    assert_one_line(done, "Error: retrieval has no data set 'wrong': choose among celeba_caption, mm_celeba_hq, sample")


@pytest.mark.parametrize(("task", "model"), [("retrieval", "flop"), ("attributes", "align")])
def test_a_model_that_there_is_not_is_answered_with_those_there_are(settings: Settings, task: str, model: str) -> None:
    with pytest.raises(
        BenchmarkError, match=rf"^{task} has no model '{model}': choose among flip, .*checkpoint's folder$"
    ):
        run_benchmark(settings, task, model, "sample")
    assert not (settings.home / "store").exists()


def test_a_folder_that_is_no_checkpoint_is_named(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(FaceCaptionError, match=r"other is no FLIP checkpoint: config\.json is missing"):
        run_benchmark(settings, "retrieval", str(tmp_path / "other"), "sample")


def test_a_model_without_checkpoint_says_what_to_materialize(settings: Settings) -> None:
    with pytest.raises(
        RunFailedError, match=r"^no checkpoint of variant 'flip': .*materialize 'flip_checkpoint' first$"
    ):
        run_benchmark(settings, "retrieval", "flip", "sample")


@pytest.mark.slow
def test_a_checkpoints_folder_is_measured_under_its_name_and_leaves_the_grids_results(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(settings.store_root)
    kept = BenchmarkResult("retrieval", "flip", "sample", [Measurement("text → image", "R@5", 0.5)], {})
    kept.write(store)
    for name in ("mine", "flip"):
        run_benchmark(settings, "retrieval", str(save_flip(tmp_path / name)), "sample")
        printed = capsys.readouterr()
        assert f"| {name}" in printed.out
    assert store.read_bytes(f"{kept.key}.json") == kept.as_json()
    results = [key.rpartition("/")[2] for key in store.keys("benchmarks/retrieval/sample/")]
    assert {name.partition("-")[0] for name in results} == {"flip", "flip.json", "mine.json"}
    assert "mine" in store.read_bytes("benchmarks/tables/tables.md").decode()
    assert all(Path(line).is_file() for line in printed.err.splitlines() if line.startswith("/"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asset", "partition", "words"),
    [
        ("flip_ablatoin", None, r"^there is no asset 'flip_ablatoin': did you mean flip_ablation\?$"),
        ("xyz", None, r"^there is no asset 'xyz': choose among .*face_crops"),
        ("flip_ablation", "9|flip", r"^flip_ablation has no partition '9\|flip': choose among 0\|flip, "),
        ("flip_ablation", None, r"^flip_ablation is made by partition: name one among 0\|flip, "),
        ("attribute_benchmark", "sample|align", r"has no partition 'sample\|align': choose among "),
        ("face_crops", None, r"^face_crops is made shard by shard: name a shard"),
        ("benchmark_tables", "sample|flip", r"^benchmark_tables has no partitions: leave 'sample\|flip' out$"),
    ],
)
def test_what_cannot_be_materialized_is_said(settings: Settings, asset: str, partition: str | None, words: str) -> None:
    with pytest.raises(FaceCaptionError, match=words):
        run_partition(settings, asset, partition)


def test_a_shard_that_is_not_registered(settings: Settings) -> None:
    with pytest.raises(UnknownShardError, match="no shard 'shard-00007': materialize source_manifest first"):
        run_partition(settings, "face_crops", "shard-00007")


def measured_already(store: Store, variant: str) -> None:
    """Leave the results of an ablation's training."""
    number = Measurement("text → image", "R@5", 0.5)
    result = BenchmarkResult("retrieval", variant, "sample", [number], {}, protocol={"training seed": "0"})
    store.write_bytes(ablation_key(variant, 0), snapshot([result]))


@pytest.mark.slow
def test_an_ablation_that_is_there_trains_nothing(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(settings.store_root)
    for variant in VARIANTS.get_partition_keys():
        save_flip(Path(store.root) / "flip_checkpoint" / variant)
        measured_already(store, variant)
    run_ablation(settings, ["0"], 2)
    printed = capsys.readouterr()
    assert "Trainings to do: 0, 2 at a time" in printed.err
    assert "training seed 0" in printed.out
    assert "50.00" in printed.out
    assert not store.keys("flip_ablation/")
    assert len([key for key in store.keys("benchmarks/sketches/sample/") if key.endswith(".json")]) == 3


@pytest.mark.processes
def test_an_ablation_says_at_its_end_which_training_failed_and_why(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FACECAPTION_HOME", str(settings.home))  # for the training's own process
    store = Store(settings.store_root)
    for variant in VARIANTS.get_partition_keys():
        store.write_bytes(f"flip_checkpoint/{variant}/config.json", b"{}")  # taken for a checkpoint, but of no use
        if variant != "flip":
            measured_already(store, variant)
    with pytest.raises(RunFailedError, match=r"^flip_ablation 0\|flip: no shard of facecaption_dataset is there yet"):
        run_ablation(settings, ["0"], 2)
    printed = capsys.readouterr()
    assert "Trainings to do: 1, 2 at a time" in printed.err
    assert "• flip_ablation 0|flip: FAILED: no shard of facecaption_dataset is there yet" in printed.err
    assert "training seed 0" in printed.out  # of the others
