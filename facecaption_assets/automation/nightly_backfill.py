"""Which shards want building, why, and from which asset on.

All of it comes from a few queries for each asset, whatever the number of shards: the latest materialization of each shard
by its number in the event log, which grows with time, and the failures of the last days.

- missing: an asset of the shard has never been materialized, and the shard has not failed lately;
- failed: it has failed lately, alone (``shards.py`` observed it) or in a run that died without saying which shard it was;
- stale: an asset is older than what it is made from, or its code version has changed since.

``source_manifest`` is no reason for staleness: each further manifest makes it newer without a change to earlier shards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

import dagster as dg

from facecaption_assets.automation.ranges import shards_of_run
from facecaption_assets.factories.records import CODE_VERSION_TAG as CODE_VERSION
from facecaption_assets.partitions import SHARD_ASSETS, SHARDS

Reason = Literal["missing", "failed", "stale"]
_MOST_UNVERSIONED: Final = 16  # materializations in a row that are read in search of a code version
_MOST_EVENTS: Final = 5_000  # failures that are read of each asset, the latest first
_MOST_RUNS: Final = 2_000
UNFINISHED: Final = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class Task:
    """A shard that wants building. ``stage`` is the first of ``SHARD_ASSETS`` to build, ``failures`` those of late."""

    shard: str
    reason: Reason
    stage: int
    failures: int = 0


@dataclass(frozen=True)
class Backlog:
    """Shards that want building, in order of registration; ``quarantined`` have failed too often, ``running`` are in a run."""

    tasks: Sequence[Task] = ()
    quarantined: Sequence[str] = ()
    running: Sequence[str] = ()

    def within(self, most: int) -> list[Task]:
        """At most ``most`` tasks, in order of registration: missing shards first, then failed ones, then stale ones.

        Shards that never failed come before those that did, and of these those with fewer failures, so that no shard that
        fails every night takes the place of one that would not.
        """
        rank = {"missing": 0, "failed": 1, "stale": 2}
        chosen = sorted(self.tasks, key=lambda task: (rank[task.reason], task.failures))[:most]
        kept = {task.shard for task in chosen}
        return [task for task in self.tasks if task.shard in kept]


def find_backlog(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition, now: datetime, attempts: int, memory: timedelta
) -> Backlog:
    """The backlog at ``now``. A shard with ``attempts`` failures within ``memory`` is quarantined, whatever it needs."""
    assert SHARDS.name
    registered = list(instance.get_dynamic_partitions(SHARDS.name))
    position = {shard: number for number, shard in enumerate(registered)}
    nodes = [repository.asset_graph.get(dg.AssetKey(name)) for name in SHARD_ASSETS]
    parents = [[number for number, other in enumerate(nodes) if other.key in node.parent_keys] for node in nodes]
    log, kind = instance.event_log_storage, dg.DagsterEventType.ASSET_MATERIALIZATION
    made = [log.get_latest_storage_id_by_partition(node.key, kind) for node in nodes]
    limits = [_outdated_before(instance, repository, *one) for one in zip(SHARD_ASSETS, made, strict=True)]
    failures = _failures(instance, registered, position, made, now - memory)
    unfinished = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    running = {shard for run in unfinished for shard in shards_of_run(run.tags, position, registered)}
    tasks, quarantined = [], []
    for shard in registered:
        needed = _first_stage(shard, made, limits, parents)
        if needed is None or shard in running:
            continue
        count = failures[shard]
        if count >= attempts:
            quarantined.append(shard)
            continue
        reason: Reason = "failed" if count else needed[1]
        tasks.append(Task(shard, reason, needed[0], count))
    return Backlog(tasks, quarantined, sorted(running, key=position.__getitem__))


def _first_stage(
    shard: str, made: Sequence[Mapping[str, int]], limits: Sequence[int], parents: Sequence[Sequence[int]]
) -> tuple[int, Reason] | None:
    """The number of the first asset to build and why; None for a shard that is complete and up to date."""
    first: int | None = None
    for number, latest in enumerate(made):
        mine = latest.get(shard)
        if mine is None:
            return (number if first is None else first), "missing"
        newer = any(made[parent].get(shard, 0) > mine for parent in parents[number])
        if first is None and (newer or mine < limits[number]):
            first = number
    return None if first is None else (first, "stale")


def _outdated_before(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition, name: str, made: Mapping[str, int]
) -> int:
    """Materializations with a smaller number are of other code, or of an older model than there is; 0: none is."""
    node = repository.asset_graph.get(dg.AssetKey(name))
    limit = _code_changed_at(instance, node.key, node.code_version, sorted(made.values()))
    for key in node.parent_keys:
        if not repository.asset_graph.get(key).is_partitioned and key != dg.AssetKey("source_manifest"):
            record = instance.get_asset_records([key])
            latest = record[0].asset_entry.last_materialization_storage_id if record else None
            limit = max(limit, latest or 0)
    return limit


def _code_changed_at(instance: dg.DagsterInstance, key: dg.AssetKey, current: str | None, ids: Sequence[int]) -> int:
    """The first of these materializations that is of the current code; found by halves, as code only ever moves on.

    Reading each would take minutes: they hold pictures. One without a version may be of any code: it counts as old unless one
    of the current code is known to come before it.
    """
    if current is None:
        return 0
    low, high, first = 0, len(ids), len(ids)
    while low < high:
        middle = (low + high) // 2
        end = min(middle + _MOST_UNVERSIONED, high)
        versions = ((place, _code_version(instance, key, ids[place])) for place in range(middle, end))
        place, version = next(((at, found) for at, found in versions if found is not None), (end, None))
        if version == current:
            first, high = place, middle
        elif version is None and end == high:
            high = middle
        else:
            low = place if version is None else place + 1
    return ids[first] if first < len(ids) else (ids[-1] + 1 if ids else 0)


def _code_version(instance: dg.DagsterInstance, key: dg.AssetKey, storage_id: int) -> str | None:
    wanted = dg.AssetRecordsFilter(asset_key=key, storage_ids=[storage_id])
    records = instance.fetch_materializations(wanted, limit=1).records
    event = records[0].asset_materialization if records else None
    return (event.tags or {}).get(CODE_VERSION) if event else None


def _failures(
    instance: dg.DagsterInstance,
    registered: Sequence[str],
    position: Mapping[str, int],
    made: Sequence[Mapping[str, int]],
    since: datetime,
) -> Counter[str]:
    """How often each shard has failed since then: in runs that named it, and in runs that died without naming any shard.

    A failure before the asset's latest materialization of the shard is over.
    """
    runs_of: dict[str, set[str]] = {}
    named: set[str] = set()
    for name, latest in zip(SHARD_ASSETS, made, strict=True):
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(name), after_timestamp=since.timestamp())
        for record in instance.fetch_observations(wanted, limit=_MOST_EVENTS).records:
            observed, shard = record.event_log_entry.asset_observation, record.partition_key
            if observed is None or shard is None or "failure" not in observed.metadata:
                continue
            named.add(record.run_id)
            if record.storage_id > latest.get(shard, 0):
                runs_of.setdefault(shard, set()).add(record.run_id)
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], created_after=since)
    for run in instance.get_runs(failed, limit=_MOST_RUNS):
        if run.run_id not in named:
            for shard in shards_of_run(run.tags, position, registered):
                runs_of.setdefault(shard, set()).add(run.run_id)
    return Counter({shard: len(runs) for shard, runs in runs_of.items()})
