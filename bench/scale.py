"""5,000 shards in production's processes: how long the UI's pages, the nightly choice and the planning of a backfill take.

Real definitions, ``deploy/dagster.yaml``, PostgreSQL, webserver, daemon and code server, each a process of its own. The work is
a stub: runs are queued, none is started. Some shards count as materialized, by events of their own with the tags that the
assets write: versions of the code, of the content and of each input's content. Of these, one in five was made by code of
before, and of one in five the face crops were made anew with other content, as after months of runs.

    .venv/bin/python bench/scale.py --shards 5000 --out scale.json
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._core.definitions.data_version import get_input_data_version_tag
from harness import write_json

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from backfills import launch
from facecaption_assets.automation.nightly_backfill import find_backlog
from facecaption_assets.definitions import build_definitions
from facecaption_assets.factories.records import version_tags
from facecaption_assets.machines.run_queue import keep_connections_of
from facecaption_assets.partitions import SHARD_ASSETS
from facecaption_assets.settings import Settings, load_settings
from servers import Deployment, Postgres, postgres_programs, wait_until

STATUS_PAGE = """query($k: AssetKeyInput!){assetNodeOrError(assetKey: $k){... on AssetNode{
 partitionStats{numMaterialized numPartitions numFailed numMaterializing}
 partitionKeysByDimension{name partitionKeys}
 assetPartitionStatuses{__typename ... on DefaultPartitionStatuses{
 materializedPartitions failedPartitions materializingPartitions unmaterializedPartitions}}}}}"""
LINEAGE_PAGE = (
    """{assetNodes{assetKey{path} dependencyKeys{path} partitionStats{numMaterialized numPartitions numFailed}}}"""
)


class QueueOnly(Deployment):
    """Runs stay in the queue, and logs on this machine."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        super().__init__(home, environment)
        file = home / "dagster.yaml"
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
        found.pop("compute_logs")
        found["concurrency"]["runs"]["max_concurrent_runs"] = 0
        file.write_text(yaml.safe_dump(found), encoding="utf-8")


@contextlib.contextmanager
def timed(into: dict[str, Any], what: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    into[what] = time.perf_counter() - started
    print(f"{what}: {into[what]:.2f} s", flush=True)


def register(shards: int, materialized: int) -> None:
    """Shards, and events that the first of them are materialized, in the real instance."""
    repository = definitions()[1]
    with instance_of_home() as instance:
        names = [f"shard-{number:05d}" for number in range(shards)]
        instance.add_dynamic_partitions("shards", names)
        for asset in SHARD_ASSETS:
            node = repository.asset_graph.get(dg.AssetKey(asset))
            inputs = [key for key in sorted(node.parent_keys) if key.to_user_string() in SHARD_ASSETS]
            for number, name in enumerate(names[:materialized]):
                code = node.code_version if number % 5 else "of before"
                tags = {get_input_data_version_tag(key): content(key.to_user_string(), name) for key in inputs}
                record(instance, asset, name, version_tags(code, content(asset, name), tags))
        for name in names[1:materialized:5]:
            record(instance, "face_crops", name, version_tags("of before", content("face_crops", name, "again"), {}))


def content(*parts: str) -> str:
    return hashlib.sha256("/".join(parts).encode()).hexdigest()


def record(instance: dg.DagsterInstance, asset: str, shard: str, tags: dict[str, str]) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=shard, tags=tags))


@cache
def definitions() -> tuple[Settings, dg.RepositoryDefinition]:
    settings = load_settings()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return settings, build_definitions(settings).get_repository_def()


@contextlib.contextmanager
def instance_of_home() -> Iterator[dg.DagsterInstance]:
    """The deployment's own, as its daemon has it: with connections that stay open."""
    with dg.DagsterInstance.get() as instance:
        keep_connections_of(instance)
        yield instance


def choose(found: dict[str, Any], rounds: int) -> None:
    """The nightly schedule's look at all shards, first as after an upgrade, then as every night."""
    settings, repository = definitions()
    times = []
    with dg.DagsterInstance.get() as instance:  # the code server's: a connection for every query
        for number in range(rounds + 1):
            started = time.perf_counter()
            memory = timedelta(days=settings.automation.nightly_days)
            attempts = settings.automation.nightly_attempts
            backlog = find_backlog(instance, repository, datetime.now(UTC), attempts, memory)
            backlog.within(settings.automation.nightly_shards)
            times.append(time.perf_counter() - started)
            if not number:
                found["backlog"] = dict(Counter(task.reason for task in backlog.tasks))
    found["nightly choice, first"], found["nightly choice, median"] = times[0], statistics.median(times[1:])
    print(f"backlog: {found['backlog']}")
    print(f"nightly choice, first: {times[0]:.2f} s, then, median of {rounds}: {statistics.median(times[1:]):.2f} s")


def measure(deployment: Deployment, shards: int, rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with timed(found, "code location, webserver and daemon ready"):
        deployment.start()
    asset = {"path": ["face_crops"]}
    with timed(found, "partition page of an asset, first"):
        page = deployment.graphql(STATUS_PAGE, k=asset)["assetNodeOrError"]
    assert page["partitionStats"]["numPartitions"] == shards, page["partitionStats"]
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        deployment.graphql(STATUS_PAGE, k=asset)
        times.append(time.perf_counter() - started)
    found["partition page, median"] = statistics.median(times)
    print(f"partition page, median of {rounds}: {found['partition page, median']:.2f} s")
    with timed(found, "lineage page with the numbers of all assets"):
        deployment.graphql(LINEAGE_PAGE)
    with timed(found, "backfill over all shards and six assets, accepted"):
        name = launch(deployment, SHARD_ASSETS, [f"shard-{number:05d}" for number in range(shards)])
    runs = -(-shards // int(os.environ["FACECAPTION_SHARDS_PER_RUN"]))
    with timed(found, "the same, every run planned"):
        wait_until("the plan", lambda: planned(name) >= runs, 300)
    found["runs"] = runs
    found["seconds a queued run"] = queueing(deployment, name)
    print(f"the daemon then queues a run every {found['seconds a queued run']:.1f} s, one after the other")
    return found


def planned(name: str) -> int:
    """Runs that the daemon has decided on, queued already or not, as its own record says."""
    with dg.DagsterInstance.get() as instance:
        backfill = instance.get_backfill(name)
        assert backfill is not None
        return len(backfill.submitting_run_requests or ())


def queueing(deployment: Deployment, name: str, seconds: float = 60) -> float:
    """Seconds from one queued run to the next."""
    query = """query($f: RunsFilter!){runsOrError(filter: $f){... on Runs{count}}}"""
    tags = {"tags": [{"key": "dagster/backfill", "value": name}]}

    def queued() -> int:
        return int(deployment.graphql(query, f=tags)["runsOrError"]["count"])

    before, started = queued(), time.monotonic()
    time.sleep(seconds)
    return (time.monotonic() - started) / max(queued() - before, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=5000)
    parser.add_argument("--materialized", type=int, default=4000, help="shards that were made before")
    parser.add_argument("--shards-per-run", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    programs = postgres_programs()
    if programs is None:
        parser.error("PostgreSQL's initdb and pg_ctl are not installed")
    postgres = Postgres(programs)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "dagster"
        environment = {
            **postgres.environment,
            "FACECAPTION_PROFILE": "photos",
            "FACECAPTION_HOME": folder,
            "FACECAPTION_SHARDS_PER_RUN": str(arguments.shards_per_run),
        }
        deployment = QueueOnly(home, environment)
        try:
            found: dict[str, Any] = {"shards": arguments.shards, "materialized": arguments.materialized}
            os.environ |= environment | {"DAGSTER_HOME": str(home)}
            with timed(found, f"{arguments.shards:,} shards and their events recorded"):
                register(arguments.shards, arguments.materialized)
            choose(found, arguments.rounds)
            found |= measure(deployment, arguments.shards, arguments.rounds)
        finally:
            deployment.stop()
            postgres.close()
    print(f"{found['runs']:,} runs of {arguments.shards_per_run} shards")
    write_json(arguments.out, found)


if __name__ == "__main__":
    main()
