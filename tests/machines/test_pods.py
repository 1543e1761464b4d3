"""What becomes of each asset on Kubernetes: the Job that dagster-k8s makes of the real definitions under Helm's values."""

from __future__ import annotations

import json
import warnings
from typing import Any

import kubernetes_validate
import pytest
from dagster_k8s.job import get_user_defined_k8s_config
from hypothesis import given
from hypothesis import strategies as st

from cluster_objects import (
    DEPLOY,
    REPOSITORY,
    as_job,
    assert_quantities,
    assert_restricted,
    definitions,
    node_groups_for,
    production,
    quantity_of,
    read_yaml,
    run_context,
    step_context,
)
from examples import examples
from facecaption_assets.definitions import build_definitions
from facecaption_assets.machines.compute import KUBERNETES, Compute
from facecaption_assets.machines.executors import build_executor, kubernetes_config
from facecaption_assets.machines.pod_table import pod_configs, pod_table
from facecaption_assets.partitions import SHARD_ASSETS
from facecaption_assets.settings import load_settings

ASSETS = tuple(pod_configs(definitions()))
SETTINGS = production(
    k8s_namespace="facecaption", k8s_service_account="facecaption", k8s_env_secrets="facecaption-secrets"
)
GPU_IMAGE = "YOUR_ACCOUNT.dkr.ecr.YOUR_REGION.amazonaws.com/facecaption:0.1.0-cuda"


def job_of(asset: str) -> Any:
    return as_job(step_context(SETTINGS, pod_configs(definitions())[asset]), asset)


def pod_of(asset: str) -> Any:
    return job_of(asset)["spec"]["template"]["spec"]


@pytest.mark.parametrize("asset", ASSETS)
def test_an_assets_job_is_valid_and_says_all_that_a_node_must_have(asset: str) -> None:
    job = job_of(asset)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    resources = container["resources"]
    assert {"cpu", "memory", "ephemeral-storage"} <= set(resources["requests"])
    assert {"memory", "ephemeral-storage"} <= set(resources["limits"])
    assert job["spec"]["backoffLimit"] == 0
    assert "activeDeadlineSeconds" not in job["spec"]  # it would count the time in which a pod waits
    assert pod["activeDeadlineSeconds"] >= 3600
    assert job["spec"]["ttlSecondsAfterFinished"] == 86400
    assert pod["nodeSelector"]["facecaption/node-pool"] in ("cpu", "a100", "a100x8")
    assert pod["serviceAccountName"] == "facecaption"
    assert {"secretRef": {"name": "facecaption-secrets"}} in container["envFrom"]
    assert pod["restartPolicy"] == "Never"
    assert_restricted(pod)
    assert {"/tmp", "/data"} <= {mount["mountPath"] for mount in container["volumeMounts"]}


@pytest.mark.slow
@pytest.mark.parametrize("asset", ASSETS)
def test_a_pod_with_gpus_is_sure_of_all_that_it_asks_for(asset: str) -> None:
    pod = pod_of(asset)
    (container,) = pod["containers"]
    keys = {toleration["key"] for toleration in pod.get("tolerations", ())}
    if pod["nodeSelector"]["facecaption/node-pool"] == "cpu":
        assert "nvidia.com/gpu" not in container["resources"]["requests"]
        assert "nvidia.com/gpu" not in keys
        assert "cpu" not in container["resources"]["limits"]  # idle cores are for who can use them
        assert container["image"] == "registry.example.org/facecaption:0.1.0-cpu"
    else:
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert pod["nodeSelector"]["nvidia.com/gpu.product"] == "NVIDIA-A100-SXM4-80GB"
        assert "nvidia.com/gpu" in keys
        assert container["image"] == GPU_IMAGE


@pytest.mark.slow
def test_the_steps_of_one_run_go_to_different_nodes() -> None:
    job = definitions().resolve_job_def("shard_pipeline")
    assert {key.to_user_string() for key in job.asset_layer.selected_asset_keys} == set(SHARD_ASSETS)
    pools = {asset: pod_of(asset)["nodeSelector"]["facecaption/node-pool"] for asset in SHARD_ASSETS}
    on_gpus = {"face_crops", "face_attributes", "llm_captions"}
    assert pools == {asset: "a100" if asset in on_gpus else "cpu" for asset in SHARD_ASSETS}
    assert pod_of("flip_checkpoint")["nodeSelector"]["facecaption/node-pool"] == "a100x8"
    gpus = {a: pod_of(a)["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") for a in ASSETS}
    assert {gpus[asset] for asset in on_gpus} == {"1"}
    assert gpus["flip_checkpoint"] == gpus["flip_ablation"] == "8"
    assert gpus["raw_images"] is None


def test_every_node_pool_and_taint_is_one_that_the_cluster_has() -> None:
    for asset in ASSETS:
        pod = pod_of(asset)
        assert node_groups_for(pod["nodeSelector"], pod.get("tolerations", ())), asset


def test_only_trainings_keep_off_spot_nodes_unless_told_otherwise() -> None:
    def on_spot(**changes: Any) -> set[str]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            configs = pod_configs(build_definitions(load_settings(**changes)))
        return {
            asset
            for asset, config in configs.items()
            if "facecaption/spot" in {found["key"] for found in config["pod_spec_config"].get("tolerations", ())}
        }

    def preferring(**changes: Any) -> set[str]:
        path = ("node_affinity", "preferred_during_scheduling_ignored_during_execution")
        return {
            asset
            for asset, config in pod_configs(definitions(**changes)).items()
            for term in config["pod_spec_config"].get("affinity", {path[0]: {path[1]: []}})[path[0]][path[1]]
            if term["preference"]["match_expressions"] == [{"key": "facecaption/spot", "operator": "Exists"}]
        }

    assert preferring() == set(ASSETS) - {"flip_checkpoint", "flip_ablation"}
    assert preferring(k8s_spot=False) == set()
    assert on_spot() == set(ASSETS) - {"flip_checkpoint", "flip_ablation"}
    assert on_spot(k8s_spot=False, k8s_spot_training=True) == {"flip_checkpoint", "flip_ablation"}
    assert on_spot(k8s_spot=False) == set()


def test_a_runs_own_pod_is_small_and_on_a_node_that_stays() -> None:
    pod = as_job(run_context(), "run")["spec"]["template"]["spec"]
    assert pod["nodeSelector"] == {"facecaption/node-pool": "cpu"}
    assert not pod.get("tolerations")
    assert_restricted(pod)
    assert quantity_of(pod["containers"][0]["resources"]["requests"]["cpu"]) < 1


def test_nodes_that_may_be_taken_away_have_the_label_that_steps_prefer() -> None:
    for group in read_yaml(DEPLOY / "eks" / "cluster.yaml")["managedNodeGroups"]:
        tainted = "facecaption/spot" in {taint["key"] for taint in group.get("taints", ())}
        assert tainted == ("facecaption/spot" in group["labels"]) == bool(group.get("spot")), group["name"]


def test_a_runs_pod_takes_its_steps_along() -> None:
    """Its service account may look at pods: the executor asks for its own pod's uid."""
    assert kubernetes_config(SETTINGS.deploy)["enable_owner_references"] is True


def test_every_pool_is_said_by_the_assets_machine() -> None:
    pools = {asset: definitions().get_assets_def(asset).op.pool for asset in ASSETS}
    for asset, config in pod_configs(definitions()).items():
        gpus = config["container_config"]["resources"]["requests"].get("nvidia.com/gpu")
        download = "download" if asset == "raw_images" else None
        assert pools[asset] == {None: download, "1": "a100", "8": "a100x8"}[gpus], asset


def test_the_kubernetes_page_shows_the_table_of_the_real_definitions() -> None:
    text = (REPOSITORY / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    shown = text.split("<!-- pods -->")[1].split("<!-- /pods -->")[0].strip()
    assert shown == pod_table(definitions())


@pytest.mark.slow
@examples(30)
@given(
    st.builds(
        Compute,
        st.just("any"),
        st.just("cpu"),
        cores=st.integers(1, 96),
        memory_gib=st.integers(1, 1152),
        disk_gib=st.integers(1, 4000),
        timeout_minutes=st.integers(1, 100_000),
        gpus=st.integers(0, 8),
        shared_memory_gib=st.integers(0, 256),
        stop_seconds=st.integers(0, 600),
        spot=st.booleans(),
    )
)
def test_any_machine_makes_a_valid_job(machine: Compute) -> None:
    tag = get_user_defined_k8s_config({KUBERNETES: json.dumps(machine.op_tags[KUBERNETES])}).to_dict()
    job = as_job(step_context(SETTINGS, tag), "any")
    assert job["spec"]["template"]["spec"]["activeDeadlineSeconds"] == 60 * machine.timeout_minutes
    limits = job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert quantity_of(limits["memory"]) == machine.memory_gib * 2**30


def test_what_the_schema_would_let_pass_is_caught_here() -> None:
    pod = pod_of("face_crops")
    pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = "two"
    with pytest.raises(ValueError, match="'two' is no quantity"):
        assert_quantities(pod)
    job = job_of("face_crops")
    job["spec"]["template"]["spec"]["nodeSelektor"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="nodeSelektor"):
        kubernetes_validate.validate(job, "1.33", strict=True)


def test_a_misspelt_key_of_a_tag_is_refused() -> None:
    with pytest.raises(Exception, match="node_selektor"):
        get_user_defined_k8s_config({"dagster-k8s/config": json.dumps({"pod_spec_config": {"node_selektor": {}}})})


@pytest.mark.parametrize("executor", ["in_process", "multiprocess", "kubernetes"])
def test_the_executor_is_a_setting(executor: str) -> None:
    assert build_executor(load_settings(executor=executor).deploy).name == executor


def test_pods_are_productions_and_a_laptop_has_none() -> None:
    assert production().deploy.executor == "kubernetes"
    assert {load_settings(profile=profile).deploy.executor for profile in ("sample", "photos")} == {"in_process"}


def test_the_executors_settings_reach_dagster_k8s() -> None:
    from dagster._config import process_config

    given = {"executor_steps": 5, "k8s_env_secrets": "one, two", "k8s_namespace": "faces"}
    definition = build_executor(production(k8s_image="registry.example.org/x:1", **given).deploy)
    found = process_config({"config": definition.config_schema.config_type}, {"config": {}})
    assert found.success, found.errors
    config = definition.apply_config_mapping({"config": {}}).value["config"]
    assert (config["job_image"], config["max_concurrent"]) == ("registry.example.org/x:1", 5)
    assert (config["env_secrets"], config["job_namespace"]) == (["one", "two"], "faces")
