"""What of Dagster's output reaches the terminal of ``facecaption ui``."""

from __future__ import annotations

import pytest

from facecaption_assets.commands.terminal_lines import TerminalLines

DAEMON = "2026-11-29 15:43:08 +0000 - dagster.daemon"
RUN = "shard_pipeline - 0c461666-83f4-483e-b081-68ccac23ed9b"


@pytest.mark.parametrize(
    "line",
    [
        f"{DAEMON}.QueuedRunCoordinatorDaemon - INFO - 1 runs are currently in progress. Maximum is 1, won't launch more.",
        f"{DAEMON}.MonitoringDaemon - INFO - Collected 1 runs for monitoring",
        f"{DAEMON}.MonitoringDaemon - INFO - Checking run 0c461666",
        f"{DAEMON}.SensorDaemon - INFO - Checking for new runs for sensor: failure_alerts",
        f"{DAEMON}.SensorDaemon - INFO - Sensor failure_alerts skipped: Sensor function returned an empty result",
        f"{DAEMON}.AssetDaemon - INFO - Checking 6 assets/checks and 0 observable source assets for summaries",
        f"{DAEMON}.AssetDaemon - INFO - Done prefetching asset records.",
        f"{DAEMON}.AssetDaemon - INFO - Tick produced 0 runs and 6 asset evaluations for evaluation ID 3 for summaries",
        f"{DAEMON}.AssetDaemon - INFO - Finished auto-materialization tick for summaries in facecaption",
        f"2026-11-29 15:43:08 +0000 - dagster - DEBUG - {RUN} - 12 - raw_images - STEP_START - Started execution of step.",
        "2026-11-29 15:43:08 +0000 - dagster-webserver - INFO - Serving dagster-webserver on http://127.0.0.1:3000",
        "\x1b[32m2026-11-29 15:43:08 +0000\x1b[0m - dagster - \x1b[34mINFO\x1b[0m - Launching Dagster services...",
    ],
)
def test_chatter_stays_away_with_what_belongs_to_it(line: str) -> None:
    lines = TerminalLines()
    assert lines.shown(f"{line}\n") is None
    assert lines.shown("  and more of it\n") is None


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (f"2026-11-29 15:43:26 +0000 - dagster - INFO - {RUN} - raw_images - download: 128 of 198 (65%), 21.4/s",
         "15:43:26 shard_pipeline 0c461666: raw_images - download: 128 of 198 (65%), 21.4/s"),
        (f"2026-11-29 15:43:26 +0000 - dagster - WARNING - {RUN} - raw_images - no proxy",
         "15:43:26 WARNING: shard_pipeline 0c461666: raw_images - no proxy"),
        (f"{DAEMON}.AssetDaemon - INFO - Tick produced 2 runs and 6 asset evaluations",
         "15:43:08 Tick produced 2 runs and 6 asset evaluations"),
        (f"{DAEMON}.SensorDaemon - ERROR - Another SENSOR daemon is still sending heartbeats",
         "15:43:08 ERROR: Another SENSOR daemon is still sending heartbeats"),
        ("Fatal Python error: Aborted", "Fatal Python error: Aborted"),
    ],
)  # fmt: skip
def test_progress_warnings_and_errors_come_with_their_time(line: str, shown: str) -> None:
    assert TerminalLines().shown(line) == shown


def test_why_a_sensor_does_nothing_is_said_once() -> None:
    lines = TerminalLines()
    reasons = ["no inbox", "no inbox", "no new list", "no new list", "no inbox"]
    said = [lines.shown(f"{DAEMON}.SensorDaemon - INFO - Sensor new_manifests skipped: {reason}") for reason in reasons]
    assert [line is not None for line in said] == [True, False, True, False, True]
    assert lines.shown(f"{DAEMON}.SchedulerDaemon - INFO - Schedule nightly_backfill skipped: no inbox")


def test_a_traceback_comes_with_its_error() -> None:
    lines = TerminalLines()
    assert lines.shown(f"{DAEMON}.MonitoringDaemon - INFO - Collected 1 runs for monitoring") is None
    assert lines.shown(f"2026-11-29 15:43:26 +0000 - dagster - ERROR - {RUN} - STEP_FAILURE - failed")
    assert lines.shown("Traceback (most recent call last):") == "Traceback (most recent call last):"
    assert lines.shown('  File "a.py", line 1') == '  File "a.py", line 1'
    assert lines.is_error
