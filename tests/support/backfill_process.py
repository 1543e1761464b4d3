"""A real backfill without a daemon: ``backfill_process.py OUT ASSET KEY …`` writes how it and its runs ended to OUT, as JSON.

The daemon's own iteration is called until the backfill has ended; runs are executed in this process, one after the other.
Settings come from the environment.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from pathlib import Path

import dagster as dg
from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES, PartitionBackfill
from dagster._core.test_utils import create_test_daemon_workspace_context, instance_for_test
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.backfill import execute_backfill_iteration

from facecaption_assets.automation.alerts import innermost_error

_IN_THIS_PROCESS = {
    "run_launcher": {
        "module": "dagster._core.launcher.sync_in_memory_run_launcher",
        "class": "SyncInMemoryRunLauncher",
    },
    "run_coordinator": {"module": "dagster._core.run_coordinator", "class": "DefaultRunCoordinator"},
}


def main(out: Path, asset: str, keys: list[str]) -> None:
    warnings.simplefilter("ignore")
    target = ModuleTarget("facecaption_assets.definitions", None, working_directory=None, location_name="here")
    with (
        instance_for_test(overrides=_IN_THIS_PROCESS) as instance,
        create_test_daemon_workspace_context(target, instance) as workspace,
    ):
        backfill = PartitionBackfill.from_asset_partitions(
            backfill_id="backfill",
            asset_graph=workspace.create_request_context().asset_graph,
            partition_names=keys,
            asset_selection=[dg.AssetKey(asset)],
            backfill_timestamp=time.time(),
            tags={},
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )
        instance.add_backfill(backfill)
        errors: list[str] = []
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            errors += [error.message for error in execute_backfill_iteration(workspace, logging.getLogger()) if error]
            found = instance.get_backfill("backfill")
            assert found is not None
            if errors or found.status in BULK_ACTION_TERMINAL_STATUSES:
                break
        ended = {run.tags["dagster/partition"]: _ended(instance, run) for run in instance.get_runs()}
        out.write_text(json.dumps({"status": found.status.value, "errors": errors, "partitions": ended}))


def _ended(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """The run's status; with the innermost error of a run that failed."""
    for entry in instance.all_logs(run.run_id):
        if entry.dagster_event and entry.dagster_event.is_step_failure:
            error = innermost_error(entry.dagster_event.step_failure_data.error)
            return f"{run.status.value}: {error.message.strip() if error else ''}"
    return run.status.value


main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
