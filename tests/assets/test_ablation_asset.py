"""``flip_ablation`` as an asset: real trainings of a tiny FLIP with seeds of their own, and the table they end in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from asset_runs import run_asset
from drawn_pairs import SHORT, fill
from facecaption_assets.definitions import build_definitions
from facecaption_assets.partitions import ABLATION, SEEDS, VARIANTS
from facecaption_assets.settings import load_settings
from facecaption_ml.benchmarks.report.ablation import read_ablation
from facecaption_ml.storage.store import Store, StoreError
from untrained_flip import save_flip

QUICK: dict[str, Any] = {
    **SHORT,
    "flip_preset": "micro",
    "flip_image_init": "none",
    "flip_epochs": 1,
    "benchmark_sample_pictures": 20,
    "benchmark_sample_drawings": 10,
    "benchmark_retrieval_epochs": 1,
    "benchmark_attribute_epochs": 1,
    "benchmark_sketch_epochs": 1,
    "benchmark_retrieval_batch": 8,
    "threads": 1,
}


def materialize(store: Store, asset: str, key: str | None = None) -> dict[str, Any]:
    """The metadata of a run that must end well."""
    settings = load_settings(profile="sample", home=Path(store.root).parent / "home", store=store.root, **QUICK)
    outcome = run_asset(build_definitions(settings), asset, key)
    assert not outcome.failure
    assert outcome.checks["stored"].passed
    return {**outcome.metadata, "data version": outcome.data_version}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two shards, and a checkpoint of the variant that is trained anew here."""
    store = fill(tmp_path_factory.mktemp("ablation") / "store")
    save_flip(Path(store.root) / "flip_checkpoint" / "flip", seed=9)
    return store


def files(store: Store, prefix: str) -> dict[str, bytes]:
    return {key: store.read_bytes(key) for key in store.keys(prefix)}


@pytest.fixture(scope="module")
def trained(store: Store) -> dict[str, dict[str, Any]]:
    """The metadata of two seeds; the checkpoint that was there is looked at before and after."""
    before = files(store, "flip_checkpoint/")
    found = {seed: materialize(store, "flip_ablation", f"{seed}|flip") for seed in ("0", "1")}
    assert files(store, "flip_checkpoint/") == before
    return found


def test_every_variant_is_trained_with_every_seed() -> None:
    expected = {f"{seed}|{variant}" for seed in SEEDS for variant in VARIANTS.get_partition_keys()}
    assert set(ABLATION.get_partition_keys()) == expected


@pytest.mark.processes
def test_a_training_has_a_place_and_a_seed_of_its_own(store: Store, trained: dict[str, dict[str, Any]]) -> None:
    configs = {seed: json.loads(store.read_bytes(f"flip_ablation/flip/seed-{seed}/config.json")) for seed in trained}
    for seed, found in trained.items():
        assert configs[seed]["training"]["seed"] == int(seed)
        assert configs[seed]["version"] == found["version"] == found["data version"]
        assert (found["pairs"], found["steps"]) == (32, 4)
    assert trained["0"]["version"] != trained["1"]["version"]
    weights = [store.read_bytes(f"flip_ablation/flip/seed-{seed}/model.safetensors") for seed in trained]
    assert weights[0] != weights[1]


@pytest.mark.processes
def test_a_training_is_measured_on_every_task_by_probes_of_its_seed(
    store: Store, trained: dict[str, dict[str, Any]]
) -> None:
    results = read_ablation(store)
    assert [(r.task, r.model, r.data, r.protocol["training seed"]) for r in results] == [
        (task, "flip", "sample", seed) for seed in ("0", "1") for task in ("attributes", "retrieval", "sketches")
    ]
    for result in results:
        assert (result.protocol["runs"], result.protocol["first seed"]) == ("1", result.protocol["training seed"])
        assert result.versions["model"].startswith(trained[result.protocol["training seed"]]["version"])
    first = trained["0"]
    for name in ("retrieval: text → image R@1", "attributes: 100 % accuracy", "sketches: sketch m@B"):
        assert 0 <= first[name] <= 100
    rows = [record.data for record in first["protocols"].records]
    assert {row["task"] for row in rows[:-1]} <= {
        "retrieval",
        "attributes",
        "sketches",
    }  # the first twelve, and how many more there are
    assert "more in the store" in rows[-1]["task"]


@pytest.mark.processes
def test_the_trainings_are_in_the_table(store: Store, trained: dict[str, dict[str, Any]]) -> None:
    found = materialize(store, "benchmark_tables")
    assert (found["results"], found["ablation trainings"]) == (0, len(trained))
    table = store.read_bytes("benchmarks/tables/ablation.md").decode()
    assert "training seeds 0, 1" in table
    assert "±" in table
    assert table.strip().splitlines()[0] in "".join(str(value) for value in found.values())


def test_results_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write_bytes("benchmarks/ablation/flip/seed-0.json", b"[]")
    with pytest.raises(StoreError, match=r"ablation/flip/seed-0\.json: this is no snapshot"):
        read_ablation(store)
