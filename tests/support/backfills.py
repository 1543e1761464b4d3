"""What a person does in the UI, over the GraphQL interface that the UI itself uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from servers import Deployment, wait_until

_SELECTOR = {
    "repositoryLocationName": "facecaption",
    "repositoryName": "__repository__",
    "pipelineName": "__ASSET_JOB",
}
ENDED = ("COMPLETED_SUCCESS", "COMPLETED_FAILED", "COMPLETED", "FAILED", "CANCELED")


def materialize(deployment: Deployment, asset: str) -> str:
    """Start a run of one asset; its id."""
    selector = {**_SELECTOR, "assetSelection": [{"path": [asset]}]}
    found = deployment.graphql(
        """mutation($p: ExecutionParams!){launchPipelineExecution(executionParams: $p){
        __typename ... on LaunchRunSuccess{run{runId}} ... on InvalidSubsetError{message} ... on PythonError{message}}}""",
        p={"selector": selector, "runConfigData": {}, "mode": "default"},
    )["launchPipelineExecution"]
    assert found["__typename"] == "LaunchRunSuccess", found
    return str(found["run"]["runId"])


def run_status(deployment: Deployment, run: str) -> str:
    found = deployment.graphql("query($id: ID!){runOrError(runId: $id){... on Run{status}}}", id=run)
    return str(found["runOrError"]["status"])


def launch(deployment: Deployment, assets: Sequence[str], shards: Sequence[str]) -> str:
    """Start a backfill; its id."""
    found = deployment.graphql(
        """mutation($b: LaunchBackfillParams!){launchPartitionBackfill(backfillParams: $b){
        __typename ... on LaunchBackfillSuccess{backfillId} ... on PythonError{message}}}""",
        b={"assetSelection": [{"path": [a]} for a in assets], "partitionNames": list(shards), "fromFailure": False},
    )["launchPartitionBackfill"]
    assert found["__typename"] == "LaunchBackfillSuccess", found
    return str(found["backfillId"])


def backfill(deployment: Deployment, backfill_id: str) -> dict[str, Any]:
    """Its status, and its runs with their statuses."""
    found: dict[str, Any] = deployment.graphql(
        """query($id: String!){partitionBackfillOrError(backfillId: $id){... on PartitionBackfill{
        status numPartitions runs(limit: 100){runId status tags{key value}}}}}""",
        id=backfill_id,
    )["partitionBackfillOrError"]
    return found


def finished(deployment: Deployment, backfill_id: str, seconds: float = 240) -> dict[str, Any]:
    """The backfill once it has ended."""
    found: dict[str, Any] = wait_until(
        "the backfill's end",
        lambda: (state := backfill(deployment, backfill_id))["status"] in ENDED and state,
        seconds,
    )
    return found


def materialized(deployment: Deployment, asset: str) -> set[str]:
    """The shards of an asset that count as materialized."""
    nodes = deployment.graphql(
        """query($k: AssetKeyInput!){assetNodeOrError(assetKey: $k){... on AssetNode{assetPartitionStatuses{
        __typename ... on DefaultPartitionStatuses{materializedPartitions}}}}}""",
        k={"path": [asset]},
    )
    return set(nodes["assetNodeOrError"]["assetPartitionStatuses"]["materializedPartitions"])


def lineage(deployment: Deployment) -> dict[str, set[str]]:
    """What each asset depends on."""
    nodes = deployment.graphql("{assetNodes{assetKey{path} dependencyKeys{path}}}")["assetNodes"]
    return {node["assetKey"]["path"][0]: {key["path"][0] for key in node["dependencyKeys"]} for node in nodes}
