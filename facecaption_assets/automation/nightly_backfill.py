"""Which shards want building, why, and from which asset on.

All of it comes from a few queries for each asset, whatever the number of shards: the latest record of each shard, which says
what it was made of (``records.made_of``), and the failures of the last days.

- missing: an asset of the shard has never been materialized, or its table is gone, and the shard has not failed lately;
- failed: it has failed lately, alone (``shards.py`` observed it) or in a run that died without saying which shard it was;
- stale: its code version, which settings and files are part of, is not the present one, or one of its inputs has other
  content than it was made of. An input that was merely made again is no reason.

A shard that the source has not, such as a partition that somebody has added by hand, is left alone.
Of ``source_manifest`` only the rows of the shard itself are a reason: a further manifest, or a source that has grown,
changes nothing for the other shards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

import dagster as dg

from facecaption_assets.automation.ranges import shards_of_run
from facecaption_assets.factories.records import FAILURE, SOURCE_ROWS, MadeOf, latest_of, made_of, source_rows
from facecaption_assets.partitions import SHARD_ASSETS, SHARDS
from facecaption_ml.schemas import SHARD_TABLES, SOURCE
from facecaption_ml.storage.store import Store

Reason = Literal["missing", "failed", "stale"]
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
    instance: dg.DagsterInstance,
    repository: dg.RepositoryDefinition,
    now: datetime,
    attempts: int,
    memory: timedelta,
    tables: Mapping[str, Collection[str]] | None = None,
) -> Backlog:
    """The backlog at ``now``. A shard with ``attempts`` failures within ``memory`` is quarantined, whatever it needs.

    ``tables``: the shards of each table that the store has (``stored_shards``). Without those of the source, all shards that
    are registered count, and none of their tables is known to be gone.
    """
    assert SHARDS.name
    registered = list(instance.get_dynamic_partitions(SHARDS.name))
    position = {shard: number for number, shard in enumerate(registered)}
    rows = source_rows(instance, registered)
    in_source = set((tables or {}).get(SOURCE, ()))
    there = tables if tables and in_source else {}
    stages = [_Stage.of(instance, repository, name, rows, there.get(name)) for name in SHARD_ASSETS]
    made = {stage.name: stage.made for stage in stages}
    failures = _failures(instance, registered, position, [stage.made for stage in stages], now - memory)
    unfinished = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    running = {shard for run in unfinished for shard in shards_of_run(run.tags, position, registered)}
    tasks, quarantined = [], []
    for shard in registered if not in_source else filter(in_source.__contains__, registered):
        needed = _first_stage(shard, stages, made)
        if needed is None or shard in running:
            continue
        count = failures[shard]
        if count >= attempts:
            quarantined.append(shard)
            continue
        reason: Reason = "failed" if count else needed[1]
        tasks.append(Task(shard, reason, needed[0], count))
    return Backlog(tasks, quarantined, sorted(running, key=position.__getitem__))


def stored_shards(store: Store) -> dict[str, frozenset[str]]:
    """Table → the shards of it that are in the store."""
    return {table: frozenset(store.shards(table)) for table in SHARD_TABLES}


@dataclass(frozen=True)
class _Stage:
    """A shard asset as it is defined now, its shards as they were made, and its inputs that are not by shard.

    ``made`` leaves out shards whose table is gone. ``rows``: the versions of the source's rows, of the asset that is made of
    them.
    """

    name: str
    code: str | None
    parents: Sequence[str]
    made: Mapping[str, MadeOf]
    whole: Mapping[str, MadeOf]
    rows: Mapping[str, str]

    @classmethod
    def of(
        cls,
        instance: dg.DagsterInstance,
        repository: dg.RepositoryDefinition,
        name: str,
        rows: Mapping[str, str],
        there: Collection[str] | None,
    ) -> _Stage:
        """``there``: the shards whose tables are there, where that is known."""
        node = repository.asset_graph.get(dg.AssetKey(name))
        parents = [key.to_user_string() for key in node.parent_keys]
        whole = {
            parent: latest
            for parent in parents
            if parent not in SHARD_ASSETS and parent != SOURCE and (latest := latest_of(instance, parent))
        }
        made = made_of(instance, name)
        if there is not None:
            made = {shard: made[shard] for shard in made.keys() & there}
        return cls(name, node.code_version, parents, made, whole, rows if SOURCE in parents else {})

    def is_stale(self, shard: str, made: Mapping[str, Mapping[str, MadeOf]]) -> bool:
        """Whether a shard that is made is of other code or of other inputs than there are now."""
        mine = self.made[shard]
        if self.code is not None and mine.code != self.code:
            return True
        rows = mine.inputs.get(SOURCE_ROWS)
        if rows and rows != self.rows.get(shard, rows):
            return True
        inputs = {parent: made[parent].get(shard) for parent in self.parents if parent in made} | dict(self.whole)
        return any(now and mine.is_older_than(now, parent) for parent, now in inputs.items())


def _first_stage(
    shard: str, stages: Sequence[_Stage], made: Mapping[str, Mapping[str, MadeOf]]
) -> tuple[int, Reason] | None:
    """The number of the first asset to build and why; None for a shard that is complete and up to date."""
    first: int | None = None
    for number, stage in enumerate(stages):
        if shard not in stage.made:
            return (number if first is None else first), "missing"
        if first is None and stage.is_stale(shard, made):
            first = number
    return None if first is None else (first, "stale")


def _failures(
    instance: dg.DagsterInstance,
    registered: Sequence[str],
    position: Mapping[str, int],
    made: Sequence[Mapping[str, MadeOf]],
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
            if observed is None or shard is None or FAILURE not in observed.metadata:
                continue
            named.add(record.run_id)
            if shard not in latest or record.storage_id > latest[shard].storage_id:
                runs_of.setdefault(shard, set()).add(record.run_id)
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], created_after=since)
    for run in instance.get_runs(failed, limit=_MOST_RUNS):
        if run.run_id not in named:
            for shard in shards_of_run(run.tags, position, registered):
                runs_of.setdefault(shard, set()).add(run.run_id)
    return Counter({shard: len(runs) for shard, runs in runs_of.items()})
