"""Reading what deploy/ and the definitions say, and checking it as a cluster would."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import kubernetes_validate
import yaml
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import DagsterK8sJobConfig, UserDefinedDagsterK8sConfig, construct_dagster_k8s_job
from kubernetes.client import ApiClient

from facecaption_assets.definitions import build_definitions
from facecaption_assets.machines.executors import kubernetes_config
from facecaption_assets.settings import SETTINGS, Settings, load_settings

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
VERSION = "1.33"
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|Ki|Mi|Gi|Ti)?")
_UNITS = {None: 1, "m": Decimal("0.001"), "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def production(**given: Any) -> Settings:
    return load_settings(profile="production", **given)


@cache
def definitions(**given: Any) -> dg.Definitions:
    """The real definitions under the profile ``production``, the settings of deploy/eks and those that are given."""
    data = read_yaml(DEPLOY / "eks" / "settings.yaml")["data"]
    names = {setting.variable: name for name, setting in SETTINGS.items()}
    found = {names[key]: value for key, value in data.items() if key in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build_definitions(load_settings(**{**found, **given}))


def node_groups_for(selector: Mapping[str, str], tolerations: Iterable[Mapping[str, str]]) -> list[dict[str, Any]]:
    """The groups of the cluster's nodes that a pod may go to."""
    tolerated = {toleration["key"] for toleration in tolerations}
    return [
        group
        for group in read_yaml(DEPLOY / "eks" / "cluster.yaml")["managedNodeGroups"]
        if selector.items() <= group["labels"].items()
        and {taint["key"] for taint in group.get("taints", ())} <= tolerated
    ]


def snake(value: Any) -> Any:
    """Keys in camel case, as the chart has them, in snake case, as it writes them to the instance's file."""
    if isinstance(value, Mapping):
        return {re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", key).lower(): snake(found) for key, found in value.items()}
    return [snake(found) for found in value] if isinstance(value, list) else value


def container_context(config: Mapping[str, Any]) -> K8sContainerContext:
    """What dagster-k8s makes of a container context. Raises for an unknown key at any depth that it knows, ``k8s`` included."""
    unknown = set(config) - {"k8s"}
    if unknown:  # dagster-k8s passes over these in silence
        raise ValueError(f"unknown keys of a container context: {', '.join(sorted(unknown))}")
    return K8sContainerContext.create_from_config(config)


def launcher_config() -> dict[str, Any]:
    """The configuration of K8sRunLauncher that the chart makes of values.yaml."""
    values = read_yaml(DEPLOY / "values.yaml")
    given = dict(values["runLauncher"]["config"]["k8sRunLauncher"])
    run = given.pop("runK8sConfig")
    return {
        **snake({key: value for key, value in given.items() if key not in ("labels", "envConfigMaps", "envSecrets")}),
        "labels": given["labels"],
        "env_config_maps": [found["name"] for found in given["envConfigMaps"]],
        "env_secrets": [found["name"] for found in given["envSecrets"]],
        "run_k8s_config": {snake({key: None}).popitem()[0]: value for key, value in run.items()},
        "service_account_name": values["global"]["serviceAccountName"],
        "postgres_password_secret": values["global"]["postgresqlSecretName"],
        "dagster_home": values["global"]["dagsterHome"],
        "instance_config_map": "dagster-instance",
    }


def deployment_context() -> dict[str, Any]:
    """The container context of the code location that the chart makes of values.yaml and gives to its runs."""
    values = read_yaml(DEPLOY / "values.yaml")
    (found,) = values["dagster-user-deployments"]["deployments"]
    k8s = {
        "image_pull_policy": found["image"]["pullPolicy"],
        "env_config_maps": ["dagster-facecaption-user-env", *(one["name"] for one in found["envConfigMaps"])],
        "env_secrets": [one["name"] for one in found["envSecrets"]],
        "labels": found["labels"],
        "namespace": "facecaption",
        "service_account_name": values["global"]["serviceAccountName"],
        "run_k8s_config": {"pod_spec_config": {"automount_service_account_token": True}},
    }
    handed_on = {
        snake({key: None}).popitem()[0]: found[key] for key in ("resources", "volumes", "volumeMounts") if key in found
    }
    return {"k8s": {**k8s, **handed_on}}


def run_context() -> K8sContainerContext:
    """Of a run under Helm: the launcher's and the code location's, as K8sRunLauncher merges them."""
    given = {key: value for key, value in launcher_config().items() if key not in _LAUNCHER_ONLY}
    launcher = K8sContainerContext(
        **{**given, "run_k8s_config": UserDefinedDagsterK8sConfig.from_dict(given["run_k8s_config"])}
    )
    return launcher.merge(container_context(deployment_context()))


_LAUNCHER_ONLY = (
    "job_namespace", "load_incluster_config", "fail_pod_on_run_failure", "postgres_password_secret", "dagster_home",
    "instance_config_map",
)  # fmt: skip


def step_context(settings: Settings, tag: Mapping[str, Any]) -> K8sContainerContext:
    """Of a step: the run's, then the executor's, then the asset's own, as k8s_job_executor merges them."""
    executor = kubernetes_config(settings.deploy)
    own = K8sContainerContext(
        service_account_name=executor.get("service_account_name"),
        env_secrets=executor.get("env_secrets"),
        namespace=executor.get("job_namespace"),
        run_k8s_config=UserDefinedDagsterK8sConfig.from_dict(executor["step_k8s_config"]),
    )
    asset = K8sContainerContext(run_k8s_config=UserDefinedDagsterK8sConfig.from_dict(tag))
    return run_context().merge(own).merge(asset)


def as_job(context: K8sContainerContext, name: str, image: str = "registry.example.org/facecaption:0.1.0-cpu") -> Any:
    """The Job object of a pod in this context, as JSON goes to the cluster; checked against Kubernetes' schema."""
    own = ("dagster_home", "instance_config_map", "postgres_password_secret")
    config = DagsterK8sJobConfig(job_image=image, **{key: launcher_config()[key] for key in own})
    job = construct_dagster_k8s_job(
        config,
        args=["dagster", "api", "execute_step"],
        job_name=f"dagster-step-{name.replace('_', '-')}",
        user_defined_k8s_config=context.run_k8s_config,
        component="step_worker",
    )
    found = ApiClient().sanitize_for_serialization(job)
    kubernetes_validate.validate(found, VERSION, strict=True)
    assert_quantities(found["spec"]["template"]["spec"])
    return found


def assert_quantities(pod: Mapping[str, Any]) -> None:
    """Every quantity of a pod's containers is one, and no request exceeds its limit: the schema checks neither."""
    for container in pod["containers"]:
        requests, limits = container["resources"].get("requests", {}), container["resources"].get("limits", {})
        for resource, quantity in {**requests, **limits}.items():
            assert quantity_of(quantity) > 0, resource
        for resource, limit in limits.items():
            assert quantity_of(requests.get(resource, limit)) <= quantity_of(limit), (resource, requests, limits)


def assert_restricted(pod: Mapping[str, Any]) -> None:
    """Pod Security's level ``restricted`` lets the pod in (Kubernetes, "Pod Security Standards"); its root is read-only."""
    whole = pod["securityContext"]
    for container in [*pod["containers"], *pod.get("initContainers", ())]:
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"]["drop"] == ["ALL"]
        assert own["readOnlyRootFilesystem"] is True
        assert not own.get("privileged")
        assert own.get("runAsNonRoot", whole.get("runAsNonRoot")) is True
        assert own.get("runAsUser", whole.get("runAsUser")) != 0
        assert own.get("seccompProfile", whole.get("seccompProfile"))["type"] == "RuntimeDefault"
    for volume in pod.get("volumes", ()):
        kinds = {"emptyDir", "configMap", "secret", "projected", "downwardAPI", "persistentVolumeClaim"}
        assert set(volume) - {"name"} <= kinds
    names = [volume["name"] for volume in pod.get("volumes", ())]
    assert len(names) == len(set(names)), names
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)


def quantity_of(text: str) -> Decimal:
    """A Kubernetes quantity as a number. Raises ValueError for what is none."""
    found = _QUANTITY.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is no quantity")
    return Decimal(found[1]) * _UNITS[found[2]]
