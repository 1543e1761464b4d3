"""The values of Dagster's chart, as far as Dagster itself can check them; the chart is not at hand here."""

from __future__ import annotations

import json
import re
from typing import Any

import kubernetes_validate
import pytest
import yaml
from dagster._config import process_config
from dagster._core.instance.config import dagster_instance_config_schema
from dagster_k8s import K8sRunLauncher

from cluster_objects import (
    DEPLOY,
    REPOSITORY,
    VERSION,
    assert_restricted,
    launcher_config,
    quantity_of,
    read_yaml,
    snake,
)

VALUES = read_yaml(DEPLOY / "values.yaml")
INSTANCE = read_yaml(DEPLOY / "dagster.yaml")
SETTINGS_MAP = read_yaml(DEPLOY / "eks" / "settings.yaml")
COMPONENTS = ("dagsterWebserver", "dagsterDaemon")


def instance_of_the_chart() -> dict[str, Any]:
    """The parts of the instance's file that the chart writes from the values, except storage and the launcher."""
    daemon = VALUES["dagsterDaemon"]
    coordinator = snake(daemon["runCoordinator"]["config"]["queuedRunCoordinator"])
    logs = dict(VALUES["computeLogManager"]["config"]["s3ComputeLogManager"])
    extra = logs.pop("uploadExtraArgs")
    return {
        "run_coordinator": {
            "module": "dagster.core.run_coordinator",
            "class": daemon["runCoordinator"]["type"],
            "config": {key: value for key, value in coordinator.items() if value not in (None, [])},
        },
        "compute_logs": {
            "module": "dagster_aws.s3.compute_log_manager",
            "class": VALUES["computeLogManager"]["type"],
            "config": {**snake(logs), "upload_extra_args": extra},
        },
        **snake({key: daemon[key] for key in ("runMonitoring", "runRetries")}),
        **{key: snake(daemon[key]) for key in ("backfills", "sensors", "schedules")},
        **concurrency(),
        "retention": snake({key: value for key, value in VALUES["retention"].items() if key != "enabled"}),
        "python_logs": snake(VALUES["pythonLogs"]),
        "telemetry": VALUES["telemetry"],
        **VALUES["additionalInstanceConfig"],
    }


def concurrency() -> dict[str, Any]:
    """The chart leaves the block out unless it is told not to; its own default is false."""
    given = dict(VALUES["concurrency"])
    return {"concurrency": snake(given)} if given.pop("enabled", False) else {}


def pods() -> dict[str, dict[str, Any]]:
    """The pods that the chart makes of the values and keeps running, init containers included, as far as values decide them."""
    places = {name: VALUES[name] for name in COMPONENTS}
    (places["code server"],) = VALUES["dagster-user-deployments"]["deployments"]
    found = {}
    for name, place in places.items():
        container = {"securityContext": place["securityContext"], "volumeMounts": place["volumeMounts"]}
        init = [] if name == "code server" else [{"securityContext": place["securityContext"]}]
        found[name] = {
            "securityContext": place["podSecurityContext"],
            "containers": [container],
            "initContainers": init,
            "volumes": place["volumes"],
        }
    return found


def test_the_charts_instance_is_that_of_dagster_yaml() -> None:
    assert instance_of_the_chart() == {key: value for key, value in INSTANCE.items() if key != "storage"}


def test_the_charts_database_is_spoken_to_as_in_dagster_yaml() -> None:
    assert VALUES["postgresql"]["postgresqlScheme"] == INSTANCE["storage"]["postgres"]["postgres_db"]["scheme"]
    assert "postgresqlPassword" not in VALUES["postgresql"]
    assert VALUES["generatePostgresqlPasswordSecret"] is False


def test_the_charts_instance_fits_dagsters_schema() -> None:
    found = process_config(dagster_instance_config_schema(), instance_of_the_chart())
    assert found.success, found.errors


def test_the_launchers_configuration_fits_its_schema() -> None:
    schema = K8sRunLauncher.config_type()
    found = process_config(schema, launcher_config())
    assert found.success, found.errors
    assert not process_config(schema, {**launcher_config(), "job_namespac": "x"}).success


def test_what_runs_read_from_the_environment_is_there_by_name() -> None:
    needed = {"DAGSTER_LOGS_BUCKET", "DAGSTER_LOGS_ENDPOINT_URL", "FACECAPTION_PROFILE", "FACECAPTION_STORE"}
    assert needed <= set(SETTINGS_MAP["data"])
    launcher = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
    for place in (*map(VALUES.get, COMPONENTS), *VALUES["dagster-user-deployments"]["deployments"], launcher):
        assert [one["name"] for one in place["envConfigMaps"]] == [SETTINGS_MAP["metadata"]["name"]]
        assert [one["name"] for one in place["envSecrets"]] == ["facecaption-secrets"]


def test_every_setting_of_the_config_map_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from facecaption_assets.settings import load_settings

    for name, value in SETTINGS_MAP["data"].items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.deploy.executor == "kubernetes"
    assert settings.deploy.k8s_env_secrets == ("facecaption-secrets",)
    assert settings.deploy.k8s_namespace == VALUES["runLauncher"]["config"]["k8sRunLauncher"]["jobNamespace"]


@pytest.mark.parametrize("name", pods())
def test_pod_security_at_its_strictest_lets_the_pods_in(name: str) -> None:
    assert_restricted(pods()[name])
    (container,) = pods()[name]["containers"]
    written_to = {"/tmp", "/data"} | ({VALUES["global"]["dagsterHome"]} if name == "code server" else set())
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == written_to


def test_the_namespace_asks_for_the_strictest_pod_security() -> None:
    (namespace, *_) = yaml.safe_load_all((DEPLOY / "eks" / "service-account.yaml").read_text(encoding="utf-8"))
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_webserver_listens_where_any_user_may_and_is_probed_there() -> None:
    webserver = VALUES["dagsterWebserver"]
    port = webserver["service"]["port"]
    assert 1024 <= port < 32768
    assert webserver["readinessProbe"]["httpGet"]["port"] == port
    assert f"service/dagster-dagster-webserver {port}:{port}" in (REPOSITORY / "docs" / "kubernetes.md").read_text()


def test_volumes_are_named_once_for_runs_and_steps() -> None:
    launcher = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
    assert not launcher["volumes"]
    assert not launcher["volumeMounts"]


PLACEHOLDERS = ("YOUR_ACCOUNT", "YOUR_REGION", "YOUR_DATABASE_HOST", "your-bucket")


def keys_of(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(keys_of, value.values()))
    return set().union(*map(keys_of, value)) if isinstance(value, list) else set()


def test_a_placeholder_can_be_replaced_over_the_whole_folder() -> None:
    """No key and no word of a comment holds one, and what is replaced is all there is to replace."""
    page = (REPOSITORY / "docs" / "kubernetes.md").read_text(encoding="utf-8")
    for path in [*DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("*.json")]:
        text = path.read_text(encoding="utf-8")
        for document in yaml.safe_load_all(text):
            assert not [key for key in keys_of(document) for name in PLACEHOLDERS if name in key], path
        for name in set(re.findall(r"YOUR_[A-Z_]+|your-[a-z]+", text)):
            assert name in PLACEHOLDERS, path
            assert name in page


def test_no_image_is_the_latest_and_all_are_one() -> None:
    images = [VALUES[name]["image"] for name in COMPONENTS]
    images += [one["image"] for one in VALUES["dagster-user-deployments"]["deployments"]]
    assert {image["tag"] for image in images} == {"0.1.0-cpu"}
    assert len({image["repository"] for image in images}) == 1


def test_quantities_are_quantities() -> None:
    for name in COMPONENTS:
        resources = VALUES[name]["resources"]
        assert quantity_of(resources["requests"]["memory"]) <= quantity_of(resources["limits"]["memory"])
        assert quantity_of(resources["requests"]["cpu"]) > 0


def test_the_code_location_names_a_module_that_loads() -> None:
    (deployment,) = VALUES["dagster-user-deployments"]["deployments"]
    assert deployment["codeServerArgs"] == ["-m", "facecaption_assets.definitions"]
    # whatever stands here is added to every step's pod
    assert "resources" not in deployment


@pytest.mark.parametrize("name", ["service-account.yaml", "settings.yaml"])
def test_the_manifests_are_valid(name: str) -> None:
    found = list(yaml.safe_load_all((DEPLOY / "eks" / name).read_text(encoding="utf-8")))
    assert found
    for manifest in found:
        kubernetes_validate.validate(manifest, VERSION, strict=True)
        assert "facecaption" in (manifest["metadata"].get("namespace"), manifest["metadata"]["name"])


def test_the_service_account_has_an_iam_role_and_may_start_pods() -> None:
    found = list(yaml.safe_load_all((DEPLOY / "eks" / "service-account.yaml").read_text(encoding="utf-8")))
    by_kind = {manifest["kind"]: manifest for manifest in found}
    account = by_kind["ServiceAccount"]
    assert account["metadata"]["name"] == VALUES["global"]["serviceAccountName"]
    assert account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"].endswith("role/facecaption")
    allowed = {
        f"{verb} {name}" for rule in by_kind["Role"]["rules"] for name in rule["resources"] for verb in rule["verbs"]
    }
    assert {"create jobs", "delete jobs", "create pods", "list pods", "get pods/log"} <= allowed
    assert by_kind["RoleBinding"]["subjects"][0]["name"] == account["metadata"]["name"]


def test_the_bucket_policy_covers_what_the_store_does() -> None:
    policy = json.loads((DEPLOY / "eks" / "bucket-policy.json").read_text(encoding="utf-8"))
    actions = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert {"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"} <= actions
