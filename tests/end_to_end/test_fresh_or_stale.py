"""What the UI says of shards after a setting has changed, and after a range of them of which one has failed; over GraphQL."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from facecaption_ml.storage.store import Store
from loopback import free_port
from servers import graphql, interrupt, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
S = ["shard-00000", "shard-00001", "shard-00002"]
ASSETS = ["template_captions", "llm_captions", "facecaption_dataset"]
RANGE = {"dagster/asset_partition_range_start": S[0], "dagster/asset_partition_range_end": S[-1]}
SELECTOR = {
    "repositoryLocationName": "facecaption_assets.definitions",
    "repositoryName": "__repository__",
    "pipelineName": "__ASSET_JOB",
}


@pytest.fixture
def ui(home: Path, facecaption) -> Iterator[int]:  # type: ignore[no-untyped-def]
    """The port of a UI under another threshold than the one that the shards were made under."""
    port = free_port()
    process = subprocess.Popen(
        facecaption.words("ui", "--port", str(port)),
        cwd=facecaption.folder,
        env=facecaption.environment(home, FACECAPTION_ATTRIBUTE_THRESHOLD="0.9"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        query = "{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus } } } }"

        def location() -> Any:
            (entry,) = graphql(port, query)["workspaceOrError"]["locationEntries"]
            return entry["loadStatus"] == "LOADED" and entry["name"]

        SELECTOR["repositoryLocationName"] = wait_until("the code location", location, 90)
        yield port
    finally:
        interrupt(process, 30)


def node(ui: int, asset: str, fields: str) -> dict[str, Any]:
    query = f"query($k: AssetKeyInput!){{assetNodeOrError(assetKey: $k){{... on AssetNode{{{fields}}}}}}}"
    return dict(graphql(ui, query, k={"path": [asset]})["assetNodeOrError"])


def checks(ui: int, asset: str) -> dict[str, dict[str, list[str]]]:
    """The lists on the page "Partitions" of each check."""
    fields = """assetChecksOrError{... on AssetChecks{checks{name partitionStatuses{... on AssetCheckDefaultPartitionStatuses{
    succeededPartitions failedPartitions executionFailedPartitions inProgressPartitions skippedPartitions}}}}}"""
    found = {}
    for check in node(ui, asset, fields)["assetChecksOrError"]["checks"]:
        lists = check["partitionStatuses"].items()
        found[check["name"]] = {name.removesuffix("Partitions"): shards for name, shards in lists if shards}
    return found


def events(ui: int, asset: str, shard: str) -> list[str]:
    query = """query($k: AssetKeyInput!, $p: [String!]){assetOrError(assetKey: $k){... on Asset{
    assetMaterializations(partitions: $p, limit: 50){runId} assetObservations(partitions: $p, limit: 50){description}}}}"""
    found = graphql(ui, query, k={"path": [asset]}, p=[shard])["assetOrError"]
    return ["made"] * len(found["assetMaterializations"]) + [one["description"] for one in found["assetObservations"]]


def run(ui: int, assets: list[str], tags: dict[str, str]) -> str:
    launched = graphql(
        ui,
        """mutation($p: ExecutionParams!){launchPipelineExecution(executionParams: $p){__typename
        ... on LaunchRunSuccess{run{runId}} ... on PythonError{message} ... on InvalidSubsetError{message}}}""",
        p={
            "selector": {**SELECTOR, "assetSelection": [{"path": [asset]} for asset in assets]},
            "runConfigData": {},
            "mode": "default",
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        },
    )["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    return str(launched["run"]["runId"])


def ended(ui: int, run_id: str) -> str:
    query = "query($id: ID!){runOrError(runId: $id){... on Run{status}}}"

    def status() -> str | None:
        found = str(graphql(ui, query, id=run_id)["runOrError"]["status"])
        return found if found in ("SUCCESS", "FAILURE", "CANCELED") else None

    return str(wait_until("the run's end", status, 120))


def test_a_threshold_and_a_bad_shard(ui: int, home: Path) -> None:
    shards = json.dumps(S)
    stale = f'staleStatusByPartition(partitions: {shards}) staleCauses(partition: "{S[1]}"){{category reason}}'
    changed = node(ui, "face_attributes", f"{stale} description")
    assert changed["staleStatusByPartition"] == ["STALE"] * 3
    assert changed["staleCauses"] == [{"category": "CODE", "reason": "has a new code version"}]
    assert "p > 0.9" in changed["description"]
    for asset in ("raw_images", "face_crops", *ASSETS):
        assert node(ui, asset, stale)["staleStatusByPartition"] == ["FRESH"] * 3, asset
        assert all(lists == {"succeeded": S} for lists in checks(ui, asset).values()), asset
        assert [events(ui, asset, shard) for shard in S] == [["made"]] * 3

    Store(str(home / "store")).delete("face_attributes/shard-00001.parquet")
    first = run(ui, ASSETS, RANGE)
    assert ended(ui, first) == "FAILURE"
    where = home / "store" / "face_attributes" / "shard-00001.parquet"
    gone = f"face_attributes has made shard-00001, but its file {where} is gone"
    reason = f"{gone}: materialize face_attributes of shard-00001 again"
    for asset in ASSETS:
        stats = node(ui, asset, "partitionStats{numMaterialized numFailed}")["partitionStats"]
        assert stats == {"numMaterialized": 2, "numFailed": 1}, asset
        assert checks(ui, asset)["schema"] == {"succeeded": [S[0], S[2]], "failed": [S[1]]}
        assert events(ui, asset, S[0]) == events(ui, asset, S[2]) == ["made"] * 2
    assert events(ui, ASSETS[0], S[1]) == ["made", f"FAILED: {reason}"]
    assert events(ui, ASSETS[2], S[1]) == ["made", f"FAILED: template_captions failed: {reason}"]

    assert ended(ui, run(ui, ["face_attributes"], {"dagster/partition": S[1]})) == "SUCCESS"
    again = graphql(
        ui,
        """mutation($p: ReexecutionParams!){launchPipelineReexecution(reexecutionParams: $p){__typename
        ... on LaunchRunSuccess{run{runId}} ... on PythonError{message}}}""",
        p={"parentRunId": first, "strategy": "FROM_FAILURE"},
    )["launchPipelineReexecution"]
    assert again["__typename"] == "LaunchRunSuccess", again
    assert ended(ui, again["run"]["runId"]) == "SUCCESS"
    for asset in ASSETS:
        stats = node(ui, asset, "partitionStats{numMaterialized numFailed}")["partitionStats"]
        assert stats == {"numMaterialized": 3, "numFailed": 0}
        assert all(lists == {"succeeded": S} for lists in checks(ui, asset).values()), asset
    assert node(ui, "template_captions", stale)["staleStatusByPartition"] == ["FRESH"] * 3
