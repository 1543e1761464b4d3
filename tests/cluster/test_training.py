"""FLIP on the cluster: a training that loses its pod or node goes on with the next batch, one trainer at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from cluster_deployment import PATIENCE, ClusterDeployment
from facecaption_assets.settings import load_settings
from facecaption_assets.training.launch import training_config
from facecaption_ml.flip.training.process import train
from facecaption_ml.flip.training.progress import LOG, read_log
from facecaption_ml.storage.store import Store
from running_pod import RunningPod
from servers import wait_until
from squares import assert_same, steps_kept, write_squares

STEP = "flip_checkpoint"
EPOCHS = 6  # of eight batches
SETTINGS = {"flip_preset": "micro", "flip_epochs": str(EPOCHS), "flip_checkpoint_minutes": "0", "flip_log_every": "1"}
PREFIX = "flip_checkpoint/flip"
Lose = Callable[[ClusterDeployment, RunningPod], None]


def evict(deployment: ClusterDeployment, pod: RunningPod) -> None:
    deployment.kubelet.evict(pod.name, "The node was low on resource: ephemeral-storage.")


def lose_node(deployment: ClusterDeployment, pod: RunningPod) -> None:
    deployment.kubelet.lose(pod.node)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The same training in one go, in this process."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    store = Store(str(folder / "store"))
    write_squares(store, 160)
    settings = load_settings(profile="production", store=store.root, device="cpu", threads=1, **SETTINGS)
    config = training_config(settings, "flip", store.shards("facecaption_dataset"), {}, 1)
    assert train(config, folder / "work")
    return store


@pytest.mark.parametrize(
    ("lose", "said"),
    [
        (evict, "was told to stop: Evicted: The node was low on resource: ephemeral-storage."),
        (lose_node, "its node was"),
    ],
    ids=["evicted", "node-lost"],
)
def test_a_training_that_loses_its_pod_ends_as_if_nothing_had_happened(
    registered: ClusterDeployment, bucket: Store, uninterrupted: Store, tmp_path: Path, lose: Lose, said: str
) -> None:
    store = Store(f"s3://data/{lose.__name__}", bucket.storage_options)
    write_squares(store, 160)
    given = {f"FACECAPTION_{name}".upper(): value for name, value in SETTINGS.items()}
    registered.settings(FACECAPTION_STORE=store.root, **given)
    try:
        run = registered.start(STEP, partition="flip")
        first = registered.at_work(run, STEP)
        reached = wait_until(
            "the first steps", lambda: (kept := steps_kept(store)) and max(kept) > 2 and kept, PATIENCE
        )
        lose(registered, first)
        events = registered.succeed(run)
    finally:
        registered.settings(FACECAPTION_STORE="s3://data/store")
        if not registered.kubelet.nodes[first.node].alive:
            registered.kubelet.come_back(first.node)
    assert len(events.retries(STEP)) == 1
    assert any(said in line for line in (*events.messages, *events.retries(STEP)))
    trainers = [pod for pod in registered.pods(run, STEP) if "resuming after step" in pod_log(pod) or pod is first]
    assert len(trainers) == 2
    assert first.finished <= trainers[-1].began
    assert max(reached) < 8 * EPOCHS
    assert_same(weights(store, tmp_path / "here"), weights(uninterrupted, tmp_path / "there"))
    assert losses(store) == losses(uninterrupted)


def pod_log(pod: RunningPod) -> str:
    return pod.container.log.read_text(errors="replace")


def weights(store: Store, folder: Path) -> Any:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(store.read_bytes(f"{PREFIX}/model.safetensors"))
    return load_file(folder / "model.safetensors")


def losses(store: Store) -> list[tuple[int, float]]:
    """Of every step, once: a batch that came twice, or in another place, would have another loss."""
    with store.reading_file(f"{PREFIX}/{LOG}") as path:
        steps = [record for record in read_log(path) if record["kind"] == "step"]
    return [(record["step"], record["matching_loss"]) for record in steps]
