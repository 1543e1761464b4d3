"""Ticks as the daemon makes them: ``daemon_process.py OUT`` writes the runs that it created to OUT, as JSON.

One tick of ``nightly_backfill`` at the hour, then ticks of ``new_manifests``; nothing is executed. Settings come from the
environment; two shards are registered.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dagster._core.definitions.instigation_logger import get_instigation_log_records
from dagster._core.test_utils import create_test_daemon_workspace_context, freeze_time, instance_for_test
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.sensor import execute_sensor_iteration
from dagster._scheduler.scheduler import ScheduleIterationTimes, launch_scheduled_runs

_NOT_EXECUTED = {"run_launcher": {"module": "dagster._core.test_utils", "class": "MockedRunLauncher"}}


def main(out: Path) -> None:
    warnings.simplefilter("ignore")
    target = ModuleTarget("facecaption_assets.definitions", None, working_directory=None, location_name="here")
    start = datetime.now(UTC).replace(minute=30, second=0, microsecond=0) + timedelta(hours=1)
    with (
        instance_for_test(overrides=_NOT_EXECUTED) as instance,
        create_test_daemon_workspace_context(target, instance) as workspace,
    ):
        instance.add_dynamic_partitions("shards", ["shard-00000", "shard-00001"])
        logger = logging.getLogger("daemon")
        times: dict[str, ScheduleIterationTimes] = {}
        for ahead in (timedelta(0), timedelta(minutes=40)):
            with freeze_time(start + ahead):
                list(launch_scheduled_runs(workspace, logger, start + ahead, times))
        for ahead in (timedelta(hours=1), timedelta(hours=1, minutes=2)):
            with freeze_time(start + ahead):
                list(execute_sensor_iteration(workspace, logger, None, None))
        runs = [
            {"job": run.job_name, "tags": dict(run.tags), "config": run.run_config}
            for run in reversed(instance.get_runs())
        ]
        errors = [
            tick.error.message
            for state in instance.all_instigator_state()
            for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id)
            if tick.error
        ]
        logs = {
            f"{state.instigator_name}: {record['orig_message' if 'orig_message' in record else 'msg']}"
            for state in instance.all_instigator_state()
            for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id)
            if tick.log_key
            for record in get_instigation_log_records(instance, tick.log_key)
        }
        out.write_text(json.dumps({"runs": runs, "errors": errors, "logs": sorted(logs)}))


main(Path(sys.argv[1]))
