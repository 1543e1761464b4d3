"""Steps that are lost are tried again by themselves, with more memory in a pod; what a user must mend is not."""

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import instance_for_test
from hypothesis import given
from hypothesis import strategies as st

import retried_steps
from cluster_objects import definitions, node_groups_for, quantity_of
from facecaption_assets.commands.instance import Pipeline, RunFailedError
from facecaption_assets.definitions import build_definitions
from facecaption_assets.machines.pod_table import pod_configs
from facecaption_assets.machines.step_pods import grown
from facecaption_assets.settings import load_settings
from retried_steps import noted, steps
from small_cluster import small_cluster
from small_shards import KEY, RANGE, SHARDS


def events(instance: dg.DagsterInstance, *kinds: dg.DagsterEventType) -> list[dg.DagsterEvent]:
    (run,) = instance.get_runs()
    return [entry.get_dagster_event() for entry in instance.all_logs(run.run_id, of_type=set(kinds))]


def execute(instance: dg.DagsterInstance, *assets: str, **given: Any) -> bool:
    job, chosen = dg.reconstructable(steps), [dg.AssetKey(asset) for asset in assets]
    with dg.execute_job(job, instance, asset_selection=chosen, raise_on_error=False, **given) as result:
        return result.success


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Of the steps' processes, which find their module in the working directory."""
    monkeypatch.chdir(Path(retried_steps.__file__).parent)
    given = {"FACECAPTION_EXECUTOR": "multiprocess", "LOST_STEPS": str(tmp_path)}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return given


# Pods


@contextmanager
def kubernetes_instance(kubeconfig: Path, home: Path) -> Iterator[dg.DagsterInstance]:
    """An instance that starts runs in the cluster: the executor takes the way to it from there."""
    launcher = {
        "load_incluster_config": False,
        "kubeconfig_file": str(kubeconfig),
        "service_account_name": "facecaption",
        "instance_config_map": "dagster-instance",
        "dagster_home": str(home),
        "job_namespace": "faces",
    }
    given = {"run_launcher": {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": launcher}}
    with instance_for_test(overrides=given, temp_dir=str(home)) as instance:
        yield instance


@pytest.mark.processes
def test_pods_that_ran_out_of_memory_or_were_evicted_are_tried_again_with_twice_as_much(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment |= {"FACECAPTION_EXECUTOR": "kubernetes", "FACECAPTION_K8S_IMAGE": "registry.example.org/x:1"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "home").mkdir()
    with (
        small_cluster(tmp_path, **environment) as (cluster, kubeconfig),
        kubernetes_instance(kubeconfig, tmp_path / "home") as instance,
    ):
        cluster.memory_scale = 0.5  # 512 MiB, of which Python and its libraries take more than half
        assert execute(instance, "hungry", "evicted"), events(instance, dg.DagsterEventType.STEP_FAILURE)
        retried = {event.step_key: event for event in events(instance, dg.DagsterEventType.STEP_UP_FOR_RETRY)}
        jobs = list(cluster.jobs.values())
        peaks = {name: cluster.peaks[name] for name in cluster.jobs}
    assert sorted(noted(tmp_path)) == ["evicted", "evicted", "hungry", "hungry"]
    assert set(retried) == {"evicted", "hungry"}
    assert "OOMKilled, exit code 137" in str(retried["hungry"].event_specific_data)
    assert "Interrupted" in str(retried["evicted"].event_specific_data)
    by_step = {step: [job for job in jobs if job["metadata"]["labels"]["dagster/op"] == step] for step in retried}
    for tries in by_step.values():
        assert_grown(*tries)
    before, after = (peaks[job["metadata"]["name"]] for job in by_step["hungry"])
    assert before > 2**29
    assert 2**29 < after < 2**30


@pytest.mark.processes
def test_a_pod_that_is_told_to_stop_outside_the_assets_function_is_tried_again(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the step's start and before the function Dagster calls the step failed; before its start it says nothing at all."""
    environment |= {"FACECAPTION_EXECUTOR": "kubernetes", "FACECAPTION_K8S_IMAGE": "registry.example.org/x:1"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "home").mkdir()
    with (
        small_cluster(tmp_path, **environment) as (cluster, kubeconfig),
        kubernetes_instance(kubeconfig, tmp_path / "home") as instance,
    ):
        assert execute(instance, "stopped_early", "stopped_opening", run_config={"loggers": {"signals": {}}})
        retried = {event.step_key: event for event in events(instance, dg.DagsterEventType.STEP_UP_FOR_RETRY)}
        (failed,) = events(instance, dg.DagsterEventType.STEP_FAILURE)
        (stopped,) = [
            event.message
            for event in events(instance, dg.DagsterEventType.ENGINE_EVENT)
            if "was told to stop" in (event.message or "")
        ]
        assert len(cluster.jobs) == 4
    assert noted(tmp_path).count("stopped_early") == noted(tmp_path).count("stopped_opening") == 1
    assert set(retried) == {"stopped_early", "stopped_opening"}
    assert failed.step_key == "stopped_early"
    assert stopped.startswith("stopped_early was told to stop: its pod ")


def assert_grown(first: dict[str, Any], second: dict[str, Any]) -> None:
    """The second try's pod is that of the first, but for its memory."""
    containers = [job["spec"]["template"]["spec"]["containers"][0] for job in (first, second)]
    assert [c["resources"]["requests"].pop("memory") for c in containers] == ["1Gi", "2Gi"]
    assert [c["resources"]["limits"].pop("memory") for c in containers] == ["1Gi", "2Gi"]
    assert containers[0]["resources"] == containers[1]["resources"]
    for name in ("nodeSelector", "serviceAccountName"):
        assert first["spec"]["template"]["spec"][name] == second["spec"]["template"]["spec"][name]
    assert {pod["spec"]["template"]["spec"]["activeDeadlineSeconds"] for pod in (first, second)} == {300}


UNSCHEDULABLE = {
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/7 nodes are available: 7 Insufficient cpu.",
        }
    ]
}
NO_IMAGE = {
    "containerStatuses": [
        {
            "name": "dagster",
            "image": "x",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}},
        }
    ]
}


@pytest.mark.processes
@pytest.mark.parametrize(
    ("status", "said"),
    [
        (UNSCHEDULABLE, "Unschedulable: 0/7 nodes are available: 7 Insufficient cpu."),
        (NO_IMAGE, "ImagePullBackOff: Back-off pulling image"),
    ],
    ids=["no-node", "no-image"],
)
def test_a_pod_that_cannot_start_says_why_and_is_given_up_in_time(
    tmp_path: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    status: dict[str, Any],
    said: str,
) -> None:
    environment |= {
        "FACECAPTION_EXECUTOR": "kubernetes",
        "FACECAPTION_K8S_IMAGE": "registry.example.org/x:1",
        "FACECAPTION_K8S_START_MINUTES": "0.1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "home").mkdir()
    with (
        small_cluster(tmp_path, **environment) as (cluster, kubeconfig),
        kubernetes_instance(kubeconfig, tmp_path / "home") as instance,
    ):
        cluster.waiting["hungry"] = status
        assert not execute(instance, "hungry")
        waits = [event.message for event in events(instance, dg.DagsterEventType.ENGINE_EVENT)]
        (failure,) = events(instance, dg.DagsterEventType.STEP_FAILURE)
        assert not events(instance, dg.DagsterEventType.STEP_UP_FOR_RETRY)
        assert len(cluster.jobs) == len(cluster.deleted) == 1
    assert waits.count(f"hungry waits: {said}") == 1
    assert failure.step_failure_data.error
    message = failure.step_failure_data.error.message
    assert message.endswith(
        f"did not start within 0.1 minutes (FACECAPTION_K8S_START_MINUTES): {said} (not tried again)"
    )


@given(st.integers(1, 10**13), st.sampled_from(["", "Ki", "Mi", "Gi", "Ti"]), st.decimals(1, 8, places=2))
def test_memory_grows_and_nothing_else(amount: int, unit: str, growth: Decimal) -> None:
    before = {
        "requests": {"cpu": "2", "memory": f"{amount}{unit}", "nvidia.com/gpu": "1"},
        "limits": {"memory": f"{amount}{unit}"},
    }
    after = grown(before, float(growth))
    for part, quantities in after.items():
        assert quantity_of(quantities["memory"]) == quantity_of(before[part]["memory"]) * growth
        assert {**quantities, "memory": ""} == {**before[part], "memory": ""}


def test_a_pod_without_limits_stays_without() -> None:
    assert grown({}, 2.0) == {}
    assert grown({"requests": {"cpu": "1"}}, 2.0) == {"requests": {"cpu": "1"}}


@pytest.mark.parametrize("changes", [{}, {"k8s_spot": False}])
def test_every_pod_still_fits_on_a_node_when_it_is_tried_again(changes: dict[str, Any]) -> None:
    gib = {"m6i.2xlarge": 32, "m6i.4xlarge": 64, "m6a.4xlarge": 64, "m5.4xlarge": 64, "p4de.24xlarge": 1152}
    for asset, config in pod_configs(definitions(**changes)).items():
        pod, resources = config["pod_spec_config"], grown(config["container_config"]["resources"], 2.0)
        fitting = node_groups_for(pod["node_selector"], pod.get("tolerations", ()))
        sizes = [
            min(gib[name] for name in group.get("instanceTypes", [group.get("instanceType")])) for group in fitting
        ]
        assert sizes, asset
        assert quantity_of(resources["limits"]["memory"]) < Decimal("0.9") * max(sizes) * 2**30, asset


# Processes


@pytest.mark.processes
@pytest.mark.usefixtures("environment")
def test_a_killed_process_is_tried_again_and_goes_on_after_its_finished_shards(tmp_path: Path) -> None:
    with instance_for_test() as instance:
        instance.add_dynamic_partitions("shards", SHARDS)
        assert execute(instance, "template_captions", tags=RANGE)
        (retried,) = events(instance, dg.DagsterEventType.STEP_UP_FOR_RETRY)
        assert "ChildProcessCrashException" in str(retried.event_specific_data)
        assert sorted(instance.get_materialized_partitions(KEY)) == SHARDS
        done = [f"{shard} done" for shard in SHARDS]
        assert noted(tmp_path) == [done[0], SHARDS[1], SHARDS[1], *done[1:]]
        last = {
            event.partition: event.step_materialization_data.materialization.metadata
            for event in events(instance, dg.DagsterEventType.ASSET_MATERIALIZATION)
        }
        assert {shard: last[shard]["dagster/row_count"].value for shard in SHARDS} == dict.fromkeys(SHARDS, 1)
        history = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(KEY, "acceptance"), limit=10
        )
        assert sorted((record.partition, record.status.value) for record in history) == [(s, "FAILED") for s in SHARDS]
        found = [record.event.dagster_event.event_specific_data for record in history]  # type: ignore[union-attr]
        assert {evaluation.severity for evaluation in found} == {dg.AssetCheckSeverity.WARN}


@pytest.mark.processes
@pytest.mark.usefixtures("environment")
def test_a_users_error_in_a_process_is_not_tried_again(tmp_path: Path) -> None:
    with instance_for_test() as instance:
        assert not execute(instance, "misled")
        assert noted(tmp_path) == ["misled"]
        assert not events(instance, dg.DagsterEventType.STEP_UP_FOR_RETRY)
        (failure,) = events(instance, dg.DagsterEventType.STEP_FAILURE)
        data = failure.step_failure_data
        assert data.user_failure_data
        assert data.user_failure_data.description == (
            "no shard of facecaption_dataset is there yet: materialize it first"
        )
        assert data.error
        assert data.error.cause
        assert data.error.cause.cls_name == "StoreError"


# Errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asset", "partition", "given"),
    [
        ("source_manifest", {}, {"source": "/absent/list.parquet"}),
        ("attribute_model", {}, {"attribute_weights": ""}),
        ("attribute_model", {}, {"attribute_weights": "/absent"}),
        ("face_crops", {"first": SHARDS[0]}, {}),
        ("facecaption_release", {}, {}),
        ("flip_checkpoint", {"partition": "flip"}, {}),
        ("benchmark_tables", {}, {}),
    ],
)
def test_what_a_user_must_mend_is_said_once_and_as_on_a_laptop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asset: str, partition: dict[str, str], given: dict[str, Any]
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    plain = load_settings(profile="photos", home=tmp_path, **given)
    pipeline = Pipeline(plain)
    pipeline.instance.add_dynamic_partitions("shards", SHARDS)
    with pytest.raises(RunFailedError) as raised:
        pipeline.run(asset, **partition)
    made = build_definitions(plain.replaced(executor="multiprocess"))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", SHARDS)
        result = made.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(asset)],
            partition_key=partition.get("partition") or partition.get("first"),
            raise_on_error=False,
        )
        assert len(events(instance, dg.DagsterEventType.STEP_START)) == 1
        assert not events(instance, dg.DagsterEventType.STEP_UP_FOR_RETRY)
    (failure,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert failure.user_failure_data
    assert failure.user_failure_data.description == str(raised.value)
    assert "\n" not in str(raised.value)


def policies(**given: str) -> dict[str, int | None]:
    """How often each asset's step is tried again; None: never."""
    made = build_definitions(load_settings(profile="sample", **given))
    keys = made.resolve_asset_graph().materializable_asset_keys
    found = {key.to_user_string(): made.get_assets_def(key).op.retry_policy for key in keys}
    return {asset: policy and policy.max_retries for asset, policy in found.items()}


def test_a_laptops_errors_are_immediate() -> None:
    assert set(policies(executor="in_process").values()) == {None}


def test_every_other_asset_is_tried_again_unless_a_training_would_run_twice() -> None:
    trainings = {"flip_checkpoint", "flip_ablation"}
    in_pods = policies(executor="kubernetes")
    assert trainings < set(in_pods)
    assert set(in_pods.values()) == {2}
    in_processes = policies(executor="multiprocess")
    assert {asset for asset, number in in_processes.items() if number is None} == trainings
    assert {number for asset, number in in_processes.items() if asset not in trainings} == {2}
