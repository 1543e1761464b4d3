"""The nightly schedule's context in tests."""

from __future__ import annotations

from datetime import datetime

import dagster as dg


class NightlyContext(dg.ScheduleEvaluationContext):
    """Of an instance in memory, which Dagster's own builder of contexts does not take."""

    def __init__(self, instance: dg.DagsterInstance, now: datetime, repository: dg.RepositoryDefinition) -> None:
        super().__init__(None, now, None, "nightly_backfill", repository_def=repository)
        self._in_memory = instance

    @property
    def instance(self) -> dg.DagsterInstance:
        return self._in_memory
