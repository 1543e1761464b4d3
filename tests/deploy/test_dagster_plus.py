"""Both forms of Dagster+ configuration: valid, equal, and a misspelt key in either is an error."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dagster_cloud_cli.config.models import load_dagster_cloud_yaml
from dagster_dg_cli.cli.utils import _dagster_cloud_entry_for_project
from dagster_dg_core.context import DgContext

from cluster_objects import REPOSITORY, as_job, container_context, deployment_context, launcher_config

TEXT = (REPOSITORY / "dagster_cloud.yaml").read_text(encoding="utf-8")


def location() -> dict[str, Any]:
    (found,) = load_dagster_cloud_yaml(TEXT).locations
    return found.model_dump(exclude_none=True)


def current_form() -> dict[str, Any]:
    """What ``dg plus`` makes of build.yaml, container_context.yaml and pyproject.toml."""
    context = DgContext.for_project_environment(REPOSITORY, {})
    return dict(_dagster_cloud_entry_for_project(context, None))


def test_both_forms_say_the_same() -> None:
    given, current = location(), current_form()
    assert current["container_context"] == given["container_context"]
    assert current["code_source"] == given["code_source"]
    assert current["build"]["registry"] == given["build"]["registry"]
    assert Path(current["build"]["directory"]) == (REPOSITORY / given["build"]["directory"]).resolve()
    assert {"image": given["image"], **current}["image"] == given["image"]  # where pyproject.toml names one


def test_the_image_lies_in_the_registry_and_has_a_version() -> None:
    given = location()
    repository, _, tag = given["image"].rpartition(":")
    assert repository == given["build"]["registry"]
    assert tag not in ("", "latest")


def test_the_command_line_of_dagster_plus_accepts_the_file() -> None:
    command = ["ci", "check", "--project-dir", ".", "--dagster-cloud-connect-check", "skip"]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("dagster-cloud")), *command], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Checked OK" in done.stdout


def test_runs_of_dagster_plus_are_valid_jobs_and_get_what_runs_under_helm_get() -> None:
    plus = container_context(location()["container_context"])
    helm = launcher_config()
    assert plus.namespace == helm["job_namespace"]
    run = plus.run_k8s_config
    assert run.pod_spec_config["service_account_name"] == helm["service_account_name"]
    assert run.pod_spec_config["node_selector"] == helm["run_k8s_config"]["pod_spec_config"]["nodeSelector"]
    assert run.container_config["resources"] == helm["run_k8s_config"]["container_config"]["resources"]
    assert as_job(plus, "run")["spec"]["ttlSecondsAfterFinished"] == 86400
    sources = [one.get("config_map_ref", one.get("secret_ref"))["name"] for one in run.container_config["env_from"]]
    assert sources == [*helm["env_config_maps"], *helm["env_secrets"]]


def test_no_value_of_a_secret_is_in_the_files() -> None:
    for name in ("dagster_cloud.yaml", "container_context.yaml", "build.yaml"):
        text = (REPOSITORY / name).read_text(encoding="utf-8")
        assert not re.search(r"(?im)^[\s-]*(password|token|secret|aws_secret_access_key)\s*:", text), name
    assert location()["container_context"]["k8s"]["env_secrets"] == ["facecaption-secrets"]


@pytest.mark.parametrize(
    "place",
    [
        "k8s",
        "k8s env_secrets",
        "k8s run_k8s_config",
        "k8s run_k8s_config pod_spec_config node_selector",
        "k8s run_k8s_config job_spec_config backoff_limit",
        "k8s server_k8s_config container_config resources",
    ],
)
def test_a_misspelt_key_of_a_container_context_is_refused(place: str) -> None:
    context = location()["container_context"]
    *above, last = place.split()
    inner = functools.reduce(dict.__getitem__, above, context)
    inner[f"{last}x"] = inner.pop(last)
    with pytest.raises(Exception, match=f"{last}x"):
        container_context(context)


@pytest.mark.parametrize("line", ["    module_nam: x", "  - location_nam: y", "    imag: z"])
def test_a_misspelt_key_of_dagster_cloud_yaml_is_refused(line: str) -> None:
    misspelt = TEXT.replace("    image:", f"{line}\n    image:")
    with pytest.raises(ValueError, match=line.split(":")[0].strip(" -")):
        load_dagster_cloud_yaml(misspelt)


def test_the_charts_code_location_has_a_valid_container_context() -> None:
    context = container_context(deployment_context())
    assert context.run_k8s_config.container_config["image_pull_policy"] == "IfNotPresent"
