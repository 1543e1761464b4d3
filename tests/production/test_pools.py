"""Pools whose limits nobody has set, met by several runs at the same moment, on PostgreSQL."""

from __future__ import annotations

import uuid
from pathlib import Path

import psycopg2
import pytest
import yaml

from at_once import at_once
from facecaption_assets.machines.compute import pools
from facecaption_assets.settings import load_settings
from servers import REPOSITORY, Postgres

_PREPARED = """
import dagster as dg
from facecaption_assets.machines import executors
from facecaption_assets.settings import load_settings
os.environ |= given["environment"]
settings = load_settings(profile="production").deploy
instance = dg.DagsterInstance.get()
instance.global_op_concurrency_default_limit
"""
_REGISTER = """
executors.register_pools(instance, settings)
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
for pool in ("download", "a100"):
    with InstanceConcurrencyContext(instance, dg.DagsterRun("job", run_id=given["run"])) as places:
        assert places.claim(pool, "step")
"""


@pytest.fixture
def environment(postgres: Postgres, tmp_path: Path) -> dict[str, str]:
    """Of an instance in a database of its own."""
    name = f"pools_{uuid.uuid4().hex}"
    reached = postgres.environment
    connection = psycopg2.connect(
        host="127.0.0.1", port=postgres.port, user="dagster", password=postgres.password, dbname="postgres"
    )
    connection.autocommit = True
    connection.cursor().execute(f"CREATE DATABASE {name}")
    connection.close()
    file = yaml.safe_load((REPOSITORY / "deploy" / "dagster.yaml").read_text(encoding="utf-8"))
    file.pop("compute_logs")
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(file))
    return {**reached, "DAGSTER_POSTGRES_DB": name, "DAGSTER_HOME": str(tmp_path), "FACECAPTION_HOME": str(tmp_path)}


def test_runs_that_meet_pools_without_a_limit_at_the_same_moment_all_get_a_place(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dagster as dg

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get():  # the tables are there, as in every deployment
        pass
    given = [{"environment": environment, "run": str(uuid.uuid4())} for _ in range(4)]
    ended = at_once(tmp_path / "signs", _PREPARED, _REGISTER, given)
    assert [one.returncode for one in ended] == [0] * 4, [one.stderr for one in ended]
    with dg.DagsterInstance.get() as instance:
        limits = {limit.name: limit.limit for limit in instance.event_log_storage.get_pool_limits()}
    assert limits == dict.fromkeys(pools(load_settings(profile="production").deploy), 8)
