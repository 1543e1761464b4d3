"""The queue of runs on PostgreSQL, by a process that keeps its connections.

Dagster's storages open a connection for every query and close it again, so that many short processes do not use up the
server's. To queue one run of a backfill over the shard assets the daemon writes six assets and their checks as planned:
hundreds of queries, and a connection costs more than the query. One in five asks whether a table is there; that is kept too.
Only the webserver and the daemon ask for the coordinator of runs; what it does to their instance holds for no run and no step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import dagster as dg
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster_postgres.utils import create_pg_engine
from sqlalchemy.pool import NullPool

_LIMITS: Final = ("max_concurrent_runs", "tag_concurrency_limits")
_OPEN: Final = {"pool_size": 4, "max_overflow": 16, "pool_recycle": 1800}


class PersistentQueuedRunCoordinator(QueuedRunCoordinator):
    """Dagster's queue with its configuration, whose instance keeps connections to PostgreSQL open.

    Dagster refuses limits in two places of its own queue only, so this one does it itself.
    """

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> PersistentQueuedRunCoordinator:
        """Raises DagsterInvariantViolationError for limits that belong under ``concurrency.runs`` of the instance's file."""
        given = [name for name in _LIMITS if config_value.get(name) is not None]
        if given:
            raise dg.DagsterInvariantViolationError(
                f"run_coordinator has {', '.join(given)}: set it under concurrency.runs of dagster.yaml, where it counts"
            )
        return super().from_config_value(inst_data, config_value)

    def register_instance(self, instance: Any) -> None:
        super().register_instance(instance)
        keep_connections_of(instance)


def keep_connections_of(instance: dg.DagsterInstance) -> None:
    """Of all three storages of an instance, see ``keep_connections``."""
    for storage in (instance.event_log_storage, instance.run_storage, instance.schedule_storage):
        keep_connections(storage)


def keep_connections(storage: Any) -> None:
    """Of one of Dagster's storages on PostgreSQL that opens one for every query; others are left as they are.

    A connection that the server has closed meanwhile, as by a restart, is noticed and opened anew.
    """
    engine = getattr(storage, "_engine", None)
    if engine is None or not hasattr(storage, "postgres_url") or not isinstance(engine.pool, NullPool):
        return
    storage._engine = create_pg_engine(
        storage.postgres_url, storage._token_provider, isolation_level="AUTOCOMMIT", pool_pre_ping=True, **_OPEN
    )
    if hasattr(storage, "has_table"):
        storage.has_table = _Tables(storage.has_table)


class _Tables:
    """Whether the database has a table; one that was there once is not asked for again, since no table ever goes."""

    def __init__(self, has_table: Callable[[str], bool]) -> None:
        self._has_table = has_table
        self._there: set[str] = set()

    def __call__(self, table_name: str) -> bool:
        if table_name not in self._there and self._has_table(table_name):
            self._there.add(table_name)
        return table_name in self._there
