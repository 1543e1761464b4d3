"""The Dagster UI's server, daemon and code location as `facecaption ui` starts them, driven over GraphQL as the UI does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SELECTOR = {"repositoryName": "__repository__", "repositoryLocationName": "facecaption_assets.definitions"}


class Ui:
    """A running UI."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, query: str, **variables: object) -> dict[str, Any]:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            found = json.load(answer)
        assert "errors" not in found, found
        return dict(found["data"])

    def wait(self, query: str, done: Any, seconds: float, **variables: object) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            try:
                found = done(self.ask(query, **variables))
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                found = None
            if found:
                return found
            assert time.monotonic() < deadline, f"{query} did not come to its end"
            time.sleep(1)


@pytest.fixture
def ui(home: Path, facecaption) -> Iterator[Ui]:  # type: ignore[no-untyped-def]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        facecaption.words("ui", "--port", str(port)),
        cwd=facecaption.folder,
        env=facecaption.environment(home, FACECAPTION_SHARDS_PER_RUN="2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        running = Ui(f"http://127.0.0.1:{port}")
        query = "{ workspaceOrError { ... on Workspace { locationEntries { loadStatus } } } }"
        running.wait(
            query, lambda d: [e["loadStatus"] for e in d["workspaceOrError"]["locationEntries"]] == ["LOADED"], 90
        )
        yield running
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()


def test_the_ui_shows_the_lineage_and_a_backfill_over_a_range_ends_well(ui: Ui, facecaption) -> None:  # type: ignore[no-untyped-def]
    nodes = ui.ask(
        "{ assetNodes { assetKey { path } dependencyKeys { path } partitionStats { numMaterialized numPartitions } } }"
    )
    by_name = {node["assetKey"]["path"][0]: node for node in nodes["assetNodes"]}
    assert {key["path"][0] for key in by_name["face_attributes"]["dependencyKeys"]} == {"face_crops", "attribute_model"}
    assert by_name["facecaption_dataset"]["partitionStats"] == {"numMaterialized": 3, "numPartitions": 3}

    launched = ui.ask(
        """mutation($p: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $p) {
             ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }""",
        p={
            "assetSelection": [{"path": ["template_captions"]}],
            "partitionNames": facecaption.shards,
            "fromFailure": False,
            "title": "again",
        },
    )["launchPartitionBackfill"]
    status = """query($id: String!) { partitionBackfillOrError(backfillId: $id) {
                  ... on PartitionBackfill { status runs { status tags { key value } } } } }"""
    ended = {"COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}
    result = ui.wait(
        status,
        lambda d: d["partitionBackfillOrError"] if d["partitionBackfillOrError"]["status"] in ended else None,
        200,
        id=launched["backfillId"],
    )
    assert result["status"] == "COMPLETED_SUCCESS"
    ranges = []
    for run in result["runs"]:
        tags = {tag["key"]: tag["value"] for tag in run["tags"]}
        start, end = (f"dagster/asset_partition_range_{end}" for end in ("start", "end"))
        ranges.append((tags.get(start, tags.get("dagster/partition")), tags.get(end, tags.get("dagster/partition"))))
    first, second, third = facecaption.shards
    assert sorted(ranges) == [(first, second), (third, third)]  # runs of two shards
