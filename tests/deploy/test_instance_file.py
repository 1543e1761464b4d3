"""deploy/dagster.yaml loads as an instance, and deploy/Dockerfile fits the repository."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance.config import PoolGranularity, dagster_instance_config
from dagster._core.instance.ref import InstanceRef

from cluster_objects import DEPLOY, REPOSITORY, read_yaml

ENVIRONMENT = {
    "DAGSTER_POSTGRES_HOST": "127.0.0.1",
    "DAGSTER_POSTGRES_PORT": "1",
    "DAGSTER_POSTGRES_USER": "dagster",
    "DAGSTER_POSTGRES_PASSWORD": "not-to-be-seen",
    "DAGSTER_POSTGRES_DB": "dagster",
    "DAGSTER_LOGS_BUCKET": "my-bucket",
    "DAGSTER_LOGS_ENDPOINT_URL": "http://127.0.0.1:1",
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SECRET_ACCESS_KEY": "x",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(DEPLOY / "dagster.yaml", tmp_path)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def without_database(home: Path) -> dg.DagsterInstance:
    """The instance with everything of the file but its database."""
    config = {key: value for key, value in read_yaml(home / "dagster.yaml").items() if key != "storage"}
    (home / "dagster.yaml").write_text(json.dumps(config), encoding="utf-8")
    return dg.DagsterInstance.from_config(str(home))


def test_the_file_is_accepted_whole(home: Path) -> None:
    config, custom = dagster_instance_config(str(home))
    assert custom is None
    assert config["storage"]["postgres"]
    assert set(config) == set(read_yaml(DEPLOY / "dagster.yaml"))


def test_storage_is_postgres_by_the_environment_alone(home: Path) -> None:
    ref = InstanceRef.from_dir(str(home))
    assert ref.run_storage_data is not None
    assert "Postgres" in ref.run_storage_data.class_name
    text = (DEPLOY / "dagster.yaml").read_text(encoding="utf-8")
    for name in ENVIRONMENT:
        assert name.startswith("AWS_") or f"{{env: {name}}}" in text, name


def test_a_missing_variable_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DAGSTER_LOGS_BUCKET")
    with without_database(home) as instance, pytest.raises(Exception, match="DAGSTER_LOGS_BUCKET"):
        instance.compute_log_manager  # noqa: B018


def test_the_instance_runs_as_the_file_says(home: Path) -> None:
    from dagster._core.launcher import DefaultRunLauncher
    from dagster._core.run_coordinator import QueuedRunCoordinator
    from dagster_aws.s3 import S3ComputeLogManager

    with without_database(home) as instance:
        assert isinstance(instance.run_coordinator, QueuedRunCoordinator)
        assert type(instance.run_coordinator).__name__ == "PersistentQueuedRunCoordinator"
        assert isinstance(instance.run_launcher, DefaultRunLauncher)
        concurrency = instance.get_concurrency_config()
        assert concurrency.run_queue_config
        assert concurrency.run_queue_config.max_concurrent_runs == 32
        assert concurrency.pool_config.pool_granularity == PoolGranularity.OP
        assert concurrency.pool_config.default_pool_limit == 8
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_max_resume_run_attempts == 0
        assert instance.run_retries_enabled
        assert instance.run_retries_retry_on_asset_or_op_failure is False
        assert not instance.telemetry_enabled
        assert not instance.nux_enabled
        assert instance.get_settings("backfills")["num_submit_workers"] == 8
        logs = instance.compute_log_manager
        assert isinstance(logs, S3ComputeLogManager)
        assert logs._s3_bucket == "my-bucket"
        assert logs.upload_interval == 30


def test_a_run_is_cancelled_no_sooner_than_a_training_has_saved(home: Path) -> None:
    from facecaption_assets.machines.compute import EIGHT_A100

    with without_database(home) as instance:
        assert instance.run_monitoring_cancel_timeout_seconds > EIGHT_A100.stop_seconds


def test_a_limit_in_two_places_is_refused(home: Path) -> None:
    config = read_yaml(home / "dagster.yaml")
    config["run_coordinator"]["config"]["max_concurrent_runs"] = 3
    (home / "dagster.yaml").write_text(json.dumps(config), encoding="utf-8")
    with (
        without_database(home) as instance,
        pytest.raises(dg.DagsterInvariantViolationError, match="max_concurrent_runs: set it under concurrency"),
    ):
        instance.run_coordinator  # noqa: B018


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage of the Dockerfile; the first list is what comes before them all."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    found: list[list[tuple[str, str]]] = [[]]
    for line in joined.splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            if word == "FROM":
                found.append([])
            found[-1].append((word, rest.strip()))
    return found


def test_every_file_that_the_image_copies_is_there_and_let_through() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    lines = [rest for stage in stages() for word, rest in stage if word == "COPY" and not rest.startswith("--from")]
    copied = [source for line in lines for source in line.split()[:-1]]
    assert {"pyproject.toml", "facecaption_ml", "facecaption_assets"} <= set(copied)
    for source in copied:
        assert (REPOSITORY / source).exists(), source
        assert f"!{source}" in ignored, source


@pytest.mark.parametrize("lock", ["cpu", "cuda"])
def test_each_image_has_its_own_list_in_which_every_package_has_hashes(lock: str) -> None:
    name = f"deploy/requirements-{lock}.txt"
    assert name in next(rest for word, rest in stages()[1] if word == "COPY")
    packages = re.findall(r"^[a-z0-9].*(?:\n    .*)+", (REPOSITORY / name).read_text(encoding="utf-8"), re.MULTILINE)
    pinned = {package.split("==")[0] for package in packages}
    assert all("==" in package and "--hash=sha256:" in package for package in packages)
    assert {"dagster", "dagster-k8s", "dagster-postgres", "torch", "transformers", "polars"} <= pinned
    assert ("vllm" in pinned) == (lock == "cuda")
    assert not {"pytest", "ruff", "mypy"} & pinned


def test_the_image_names_its_bases_and_no_registry_of_packages() -> None:
    (before, build, last) = stages()
    arguments = dict(rest.partition("=")[::2] for word, rest in [*before, *build] if word == "ARG")
    assert arguments["BASE"] == "python:3.11-slim"
    assert arguments["TORCH_INDEX"] == '""'
    assert build[0] == ("FROM", "python:3.11-slim AS build")
    assert last[0] == ("FROM", "${BASE}")
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert ":latest" not in text
    assert not re.search(r"https?://", text)


def test_the_image_does_not_run_as_root_and_starts_the_code_location() -> None:
    last = stages()[-1]
    users = [rest for word, rest in last if word == "USER"]
    assert users == ["10001"]
    (command,) = [json.loads(rest) for word, rest in last if word == "CMD"]
    module = command[command.index("--module-name") + 1]
    assert importlib.util.find_spec(module) is not None
    assert command[:3] == ["dagster", "code-server", "start"]
    environment = next(rest for word, rest in last if word == "ENV")
    assert "DAGSTER_HOME=" + read_yaml(DEPLOY / "values.yaml")["global"]["dagsterHome"] in environment


def test_the_last_stage_has_the_compiler_that_triton_needs_and_leaves_no_package_lists() -> None:
    (installed,) = [rest for word, rest in stages()[-1] if word == "RUN" and "apt-get" in rest]
    assert {"gcc", "libc6-dev", "--no-install-recommends"} <= set(installed.split())
    assert installed.endswith("rm -rf /var/lib/apt/lists/*")


def test_later_stages_copy_only_from_stages_that_there_are() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert set(re.findall(r"COPY --from=(\S+)", text)) == set(re.findall(r"FROM \S+ AS (\S+)", text)) == {"build"}
