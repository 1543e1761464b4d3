"""What the sensor and the schedule ask for becomes runs in Dagster's own daemon code, with the code location loaded apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

REPOSITORY = Path(__file__).parents[2]


def test_ticks_of_the_daemon_create_the_runs(tmp_path: Path) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "out.json"
    inbox.mkdir()
    manifest = inbox / "more.csv"
    manifest.write_text("URL\nhttp://pictures.test/a\n")
    settings = {
        "PROFILE": "photos",
        "AUTOMATION": "true",
        "HOME": str(tmp_path / "home"),
        "MANIFEST_INBOX": str(inbox),
        "NIGHTLY_CRON": "0 * * * *",
    }
    environment = {**os.environ, **{f"FACECAPTION_{name}": value for name, value in settings.items()}}
    command = [sys.executable, str(REPOSITORY / "tests" / "support" / "daemon_process.py"), str(out)]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(out.read_text())
    assert found["errors"] == []
    night, intake = found["runs"]
    assert night["job"] == "shard_pipeline"
    assert night["tags"]["dagster/asset_partition_range_start"] == "shard-00000"
    assert night["tags"]["dagster/asset_partition_range_end"] == "shard-00001"
    assert night["tags"]["facecaption/reason"] == "missing"
    assert intake["job"] == "manifest_intake"
    assert intake["config"]["ops"]["source_manifest"]["config"]["manifest"] == str(manifest)
    # What the UI shows under a tick, View logs.
    logged = "\n".join(found["logs"])
    assert "nightly_backfill: " in logged
    assert "2 of 2 shards to build, 0 at work" in logged
    assert "shard-00000 to shard-00001 (2 shards): missing, raw_images has not been made yet" in logged
    assert "1 manifests, 1 not ingested; 1 runs asked for" in logged
