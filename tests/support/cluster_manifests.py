"""What is applied to a cluster for its tests: the manifests of deploy/, and what Dagster's chart makes of deploy/values.yaml.

The chart itself is not at hand everywhere; what is written here follows it in names, environment, ports and what it hands on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import yaml

from cluster_objects import DEPLOY, deployment_context, launcher_config, read_yaml
from servers import quick_instance

NAMESPACE: Final = "facecaption"
WEBSERVER: Final = "dagster-dagster-webserver"
DAEMON: Final = "dagster-daemon"
CODE_SERVER: Final = "facecaption"
_VALUES: Final = read_yaml(DEPLOY / "values.yaml")
(_LOCATION,) = _VALUES["dagster-user-deployments"]["deployments"]
WEB_PORT: Final[int] = _VALUES["dagsterWebserver"]["service"]["port"]
CODE_PORT: Final[int] = _LOCATION["port"]
_HOME: Final[str] = _VALUES["global"]["dagsterHome"]
_PASSWORD: Final = "DAGSTER_PG_PASSWORD"
_WORKSPACE: Final = f"{_HOME}/workspace.yaml"


def filled(name: str) -> list[dict[str, Any]]:
    """The objects of a file of deploy/eks, its placeholders replaced."""
    text = (DEPLOY / "eks" / name).read_text(encoding="utf-8")
    for placeholder, value in (
        ("YOUR_ACCOUNT", "registry.example.org"),
        ("YOUR_REGION", "here"),
        ("your-bucket", "data"),
    ):
        text = text.replace(placeholder, value)
    return list(yaml.safe_load_all(text))


def settings_map(changes: Mapping[str, str]) -> dict[str, Any]:
    """deploy/eks/settings.yaml with other values; '' takes a key away."""
    (found,) = filled("settings.yaml")
    found["data"] = {key: value for key, value in {**found["data"], **changes}.items() if value != ""}
    return found


def secret(name: str, **data: str) -> dict[str, Any]:
    return {**_object("v1", "Secret", name), "stringData": data}


def dagster_objects(database: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Dagster's config maps, services and deployments. ``database``: host, port, user and name, as the values have them."""
    instance = {
        **quick_instance(),
        "storage": {"postgres": {"postgres_db": {**database, "password": {"env": _PASSWORD}}}},
        "run_launcher": {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": launcher_config()},
    }
    location = {"host": CODE_SERVER, "port": CODE_PORT, "location_name": "facecaption"}
    workspace = {"load_from": [{"grpc_server": location}]}
    where = ["-h", "0.0.0.0", "-p"]
    code = ["dagster", "code-server", "start", *where, str(CODE_PORT), *_LOCATION["codeServerArgs"]]
    web = ["dagster-webserver", *where, str(WEB_PORT), "-w", _WORKSPACE]
    daemon = ["dagster-daemon", "run", "-w", _WORKSPACE]
    own = {"DAGSTER_CURRENT_IMAGE": image(), "DAGSTER_CONTAINER_CONTEXT": json.dumps(deployment_context())}
    return [
        _config_map("dagster-instance", {"dagster.yaml": yaml.safe_dump(instance)}),
        _config_map("dagster-workspace-yaml", {"workspace.yaml": yaml.safe_dump(workspace)}),
        _config_map("dagster-facecaption-user-env", {}),
        _service(WEBSERVER, WEB_PORT),
        _service(CODE_SERVER, CODE_PORT),
        _deployment(CODE_SERVER, _LOCATION, code, own, reads_instance=False),
        _deployment(WEBSERVER, _VALUES["dagsterWebserver"], web),
        _deployment(DAEMON, _VALUES["dagsterDaemon"], daemon),
    ]


def image() -> str:
    named = _LOCATION["image"]
    return f"{named['repository']}:{named['tag']}".replace("YOUR_ACCOUNT", "0").replace("YOUR_REGION", "here")


def _deployment(
    name: str,
    place: Mapping[str, Any],
    command: list[str],
    given: Mapping[str, str] | None = None,
    reads_instance: bool = True,
) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": name, **place.get("labels", {})}
    environment: list[dict[str, Any]] = [{"name": key, "value": value} for key, value in (given or {}).items()]
    password = {"name": _VALUES["global"]["postgresqlSecretName"], "key": "postgresql-password"}
    environment.append({"name": _PASSWORD, "valueFrom": {"secretKeyRef": password}})
    files = {"dagster-instance": "dagster.yaml", "dagster-workspace-yaml": "workspace.yaml"} if reads_instance else {}
    mounts = [{"name": one, "mountPath": f"{_HOME}/{file}", "subPath": file} for one, file in files.items()]
    container: dict[str, Any] = {
        "name": name,
        "image": image(),
        "imagePullPolicy": place["image"]["pullPolicy"],
        "args": command,
        "env": environment,
        "envFrom": [
            *({"configMapRef": one} for one in place["envConfigMaps"]),
            *({"secretRef": one} for one in place["envSecrets"]),
        ],
        "securityContext": place["securityContext"],
        "resources": place.get("resources", {}),
        "volumeMounts": [*mounts, *place["volumeMounts"]],
    }
    if "readinessProbe" in place:
        container["readinessProbe"] = place["readinessProbe"]
    pod = {
        "serviceAccountName": _VALUES["global"]["serviceAccountName"],
        "securityContext": place["podSecurityContext"],
        "nodeSelector": place["nodeSelector"],
        "containers": [container],
        "volumes": [
            *({"name": one, "configMap": {"name": one}} for one in files),
            *place["volumes"],
        ],
    }
    spec = {
        "replicas": 1,  # pods share one network here
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": {"app.kubernetes.io/name": name}},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    return {**_object("apps/v1", "Deployment", name), "spec": spec}


def _service(name: str, port: int) -> dict[str, Any]:
    spec = {"selector": {"app.kubernetes.io/name": name}, "ports": [{"port": port}]}
    return {**_object("v1", "Service", name), "spec": spec}


def _config_map(name: str, data: Mapping[str, str]) -> dict[str, Any]:
    return {**_object("v1", "ConfigMap", name), "data": dict(data)}


def _object(version: str, kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}}
