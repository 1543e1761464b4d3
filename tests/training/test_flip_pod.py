"""FLIP's training in a pod of its own: real trainings, real messages over S3, and what becomes of a pod that is lost."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from facecaption_assets.settings import Settings, load_settings
from facecaption_assets.training.launch import process_count, run_training, training_config
from facecaption_assets.training.pod import TrainingPods, training_launcher
from facecaption_ml.flip import Flip
from facecaption_ml.storage.store import Store
from small_cluster import Cluster, small_cluster
from squares import micro_config, write_squares

pytestmark = pytest.mark.xdist_group("flip_pod")


@dataclass
class World:
    """A cluster, a store on S3 that it reaches, and what a step has to train in it."""

    cluster: Cluster
    store: Store
    pods: TrainingPods
    home: Path

    def train(
        self,
        pods: TrainingPods | dg.PipesSubprocessClient | None = None,
        tags: dict[str, str] | None = None,
        **given: Any,
    ) -> tuple[dg.ExecuteInProcessResult, list[str]]:
        """One run of an asset that trains; the result and the run's log."""
        launcher, store, home = pods or self.pods, self.store, self.home

        @dg.asset
        def training(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            found = run_training(context, launcher, micro_config(store, **{"epochs": 1, **given}), home / "unused", 1)
            return dg.MaterializeResult(metadata={"steps": found["steps"], "processes": found["processes"]})

        with dg.DagsterInstance.ephemeral() as instance:
            result = dg.materialize([training], instance=instance, raise_on_error=False, tags=tags)
            return result, [entry.user_message for entry in instance.all_logs(result.run_id)]


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    data = event.step_failure_data.user_failure_data
    assert data, event.step_failure_data.error
    return data.description or ""


@pytest.fixture
def world(tmp_path: Path, s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    keys = {name: value for name, value in s3_server.items() if name.startswith("AWS_")}
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    settings = load_settings(
        profile="sample",
        home=tmp_path,
        store=f"s3://data/{tmp_path.name}",
        s3_endpoint=s3_server["endpoint"],
        s3_region="us-east-1",
        flip_launcher="kubernetes",
        k8s_gpu_image="registry.example.org/facecaption:0.1.0-cuda",
        k8s_namespace="faces",
        k8s_service_account="facecaption",
    )
    store = Store(settings.store_root, settings.storage_options)
    write_squares(store, pairs=80)
    with small_cluster(tmp_path, FACECAPTION_HOME=str(tmp_path / "pod"), **keys) as (cluster, kubeconfig):
        launcher = training_launcher(settings)["training_processes"]
        yield World(cluster, store, replace(launcher, kubeconfig=str(kubeconfig), poll_s=0.2), tmp_path)


def test_a_pod_trains_and_its_lines_reach_the_run(world: World) -> None:
    result, lines = world.train()
    assert result.success, lines[-5:]
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["processes"].value == 1
    assert any("loss" in line for line in lines)
    with_flip = Flip.load(world.store.local_folder("flip_checkpoint/flip", world.home / "cache"), "cpu")
    assert with_flip.encode_texts(["A red square."]).shape[0] == 1
    assert world.store.keys("flip_pods/") == []
    (pod,) = world.cluster.created
    spec, (container,) = pod["spec"], pod["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert container["image"] == "registry.example.org/facecaption:0.1.0-cuda"
    assert spec["nodeSelector"]["facecaption/node-pool"] == "a100x8"
    assert (spec["serviceAccountName"], spec["terminationGracePeriodSeconds"]) == ("facecaption", 240)
    assert spec["activeDeadlineSeconds"] == 14 * 24 * 3600
    assert world.cluster.deleted == [pod["metadata"]["name"]]
    assert pod["metadata"]["labels"]["dagster/run-id"] == result.run_id


def test_a_faulty_training_fails_the_step_with_its_own_line(world: World) -> None:
    result, _ = world.train(queue_size=7, batch_size=8)
    assert not result.success
    assert "queue" in failure_of(result)
    assert world.store.keys("flip_pods/") == []


@pytest.mark.parametrize("in_pod", [True, False])
def test_a_run_that_run_retries_have_started_trains_nothing(world: World, in_pod: bool) -> None:
    (world.home / "unused").mkdir()
    log = world.home / "unused" / "of the earlier training"
    log.touch()
    launcher = world.pods if in_pod else dg.PipesSubprocessClient()
    result, _ = world.train(launcher, tags={"dagster/retry_number": "1"})
    expected = "an earlier run's training may still be at work: materialise again when it has ended"
    assert failure_of(result) == expected
    assert not world.cluster.created
    assert log.exists()
    assert not world.store.keys("flip_training/")


def test_a_pod_gets_what_the_step_has_in_its_environment_but_no_secret(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"AWS_REGION": "eu-west-1", "AWS_MAX_ATTEMPTS": "9", "HF_ENDPOINT": "https://example.org"}
    for name, value in (
        given | {"AWS_SECRET_ACCESS_KEY": "hidden", "HF_TOKEN": "hidden", "HF_HUB_OFFLINE": ""}
    ).items():
        monkeypatch.setenv(name, value)
    (container,) = world.pods.pod_spec("x", 8)["containers"]
    found = {entry["name"]: entry["value"] for entry in container["env"]}
    assert found.items() >= given.items()
    assert "HF_HUB_OFFLINE" not in found
    assert "hidden" not in found.values()


def while_training(world: World, action: Callable[[str], Any], ready: Callable[[], bool]) -> threading.Thread:
    def act() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (world.cluster.created and ready()):
            time.sleep(0.05)
        action(world.cluster.created[0]["metadata"]["name"])

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_a_pod_that_is_deleted_before_it_has_a_node_ends_the_step_at_once(world: World) -> None:
    world.cluster.full = True
    thread = while_training(world, world.cluster.delete, lambda: True)
    started = time.monotonic()
    result, _ = world.train()
    thread.join()
    assert not result.success
    assert "was deleted before it started; there was no checkpoint yet" in failure_of(result)
    assert time.monotonic() - started < 30


def test_a_pod_that_finds_no_node_is_given_up_and_deleted(world: World) -> None:
    world.cluster.full = True

    class Impatient(TrainingPods):
        start_s = 1.0  # type: ignore[assignment]

    pods = world.pods
    result, _ = world.train(Impatient(pods.settings, pods.kubeconfig, pods.poll_s))
    assert not result.success
    assert "found no node" in failure_of(result)
    assert "FACECAPTION_K8S_POD_START_MINUTES" in failure_of(result)
    assert len(world.cluster.deleted) == 1


def test_a_training_whose_pod_is_taken_away_says_what_is_kept(world: World) -> None:
    kept = lambda: bool(world.store.keys("flip_training/flip/"))  # noqa: E731
    long = {"epochs": 400, "checkpoint_minutes": 0.0}
    thread = while_training(world, world.cluster.delete, kept)
    result, _ = world.train(**long)
    thread.join()
    assert not result.success
    assert "is intact: materialise again to go on from it" in failure_of(result)


def test_a_pod_has_a_process_for_each_gpu_and_their_share_of_its_cores(world: World) -> None:
    own = {"device": "auto", "threads": 0, "flip_threads": 0, "flip_processes": 0}
    settings: Settings = world.pods.settings.model_copy(update=own)
    assert process_count(settings) == 8
    config = training_config(settings, "flip", ["shard-00000"], {}, 8)
    assert config.threads == 8
    assert world.pods.pod_spec("x", 8)["containers"][0]["command"][-1] == "8"
