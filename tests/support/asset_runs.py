"""A run of one asset in this process, and what it left."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import dagster as dg


@dataclass
class Outcome:
    """``failure`` is the failed step's message, empty where none failed; ``lines`` are those of the event log."""

    failure: str
    partition: str | None
    metadata: dict[str, Any]
    data_version: str
    checks: dict[str, dg.AssetCheckEvaluation]
    lines: list[str]


def run_asset(definitions: dg.Definitions, asset: str, partition: str | None = None) -> Outcome:
    grid = definitions.get_assets_def(asset).partitions_def
    with warnings.catch_warnings(), dg.DagsterInstance.ephemeral() as instance:
        warnings.simplefilter("ignore")
        done = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(asset)],
            partition_key=grid.get_partition_key_from_str(partition)
            if partition and isinstance(grid, dg.MultiPartitionsDefinition)
            else partition,
            raise_on_error=False,
        )
        lines = [entry.user_message for entry in instance.all_logs(done.run_id)]
    failures = [event.step_failure_data for event in done.all_events if event.is_step_failure]
    events = [event.materialization for event in done.get_asset_materialization_events()]
    made = events[0] if events else dg.AssetMaterialization(asset)
    return Outcome(
        failure=failures[0].user_failure_data.description or "" if failures else "",
        partition=made.partition,
        metadata={name: value.value for name, value in made.metadata.items()},
        data_version=(made.tags or {}).get("dagster/data_version", ""),
        checks={check.check_name: check for check in done.get_asset_check_evaluations()},
        lines=lines,
    )
