"""The Dagster UI's server, daemon and code location as `facecaption ui` starts them, driven over GraphQL as the UI does."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backfills import ENDED
from loopback import free_port
from servers import graphql, interrupt, wait_until


@pytest.fixture
def ui(home: Path, facecaption) -> Iterator[int]:  # type: ignore[no-untyped-def]
    """The port of a running UI."""
    port = free_port()
    process = subprocess.Popen(
        facecaption.words("ui", "--port", str(port)),
        cwd=facecaption.folder,
        env=facecaption.environment(home, FACECAPTION_SHARDS_PER_RUN="2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        query = "{ workspaceOrError { ... on Workspace { locationEntries { loadStatus } } } }"
        loaded = {"workspaceOrError": {"locationEntries": [{"loadStatus": "LOADED"}]}}
        wait_until("the code location", lambda: graphql(port, query) == loaded, 90)
        yield port
    finally:
        interrupt(process, 30)


@pytest.mark.slow
def test_the_ui_shows_the_lineage_and_a_backfill_over_a_range_ends_well(ui: int, facecaption) -> None:  # type: ignore[no-untyped-def]
    query = "{assetNodes{assetKey{path} dependencyKeys{path} partitionStats{numMaterialized numPartitions}}}"
    nodes = graphql(ui, query)
    by_name = {node["assetKey"]["path"][0]: node for node in nodes["assetNodes"]}
    assert {key["path"][0] for key in by_name["face_attributes"]["dependencyKeys"]} == {"face_crops", "attribute_model"}
    assert by_name["facecaption_dataset"]["partitionStats"] == {"numMaterialized": 3, "numPartitions": 3}

    launched = graphql(
        ui,
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

    def ended_backfill() -> Any:
        found = graphql(ui, status, id=launched["backfillId"])["partitionBackfillOrError"]
        return found if found["status"] in ENDED else None

    result = wait_until("the backfill's end", ended_backfill, 200)
    assert result["status"] == "COMPLETED_SUCCESS"
    ranges = []
    for run in result["runs"]:
        tags = {tag["key"]: tag["value"] for tag in run["tags"]}
        start, end = (f"dagster/asset_partition_range_{end}" for end in ("start", "end"))
        ranges.append((tags.get(start, tags.get("dagster/partition")), tags.get(end, tags.get("dagster/partition"))))
    first, second, third = facecaption.shards
    assert sorted(ranges) == [(first, second), (third, third)]  # runs of two shards
