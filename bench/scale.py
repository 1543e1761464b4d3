"""5,000 shards in production's processes: how long the UI's pages and the planning of a backfill over all of them take.

Real definitions, ``deploy/dagster.yaml``, PostgreSQL, webserver, daemon and code server, each a process of its own. The work is
a stub: runs are queued, none is started. Some shards count as materialized, by events of their own, as after months of runs.

    .venv/bin/python bench/scale.py --shards 5000 --out scale.json
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from harness import write_json

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from backfills import launch
from facecaption_assets.partitions import SHARD_ASSETS
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


def register(home: Path, environment: dict[str, str], shards: int, materialized: int) -> None:
    """Shards, and events that the first of them are materialized, in the real instance."""
    import dagster as dg

    os.environ |= environment | {"DAGSTER_HOME": str(home)}
    with dg.DagsterInstance.get() as instance:
        names = [f"shard-{number:05d}" for number in range(shards)]
        instance.add_dynamic_partitions("shards", names)
        for asset in SHARD_ASSETS:
            for name in names[:materialized]:
                instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=name))


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
    import dagster as dg

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
    parser.add_argument("--materialized", type=int, default=1000, help="shards that are done already")
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
            with timed(found, f"{arguments.shards:,} shards and {6 * arguments.materialized:,} events recorded"):
                register(home, environment, arguments.shards, arguments.materialized)
            found |= measure(deployment, arguments.shards, arguments.rounds)
        finally:
            deployment.stop()
            postgres.close()
    print(f"{found['runs']:,} runs of {arguments.shards_per_run} shards")
    write_json(arguments.out, found)


if __name__ == "__main__":
    main()
