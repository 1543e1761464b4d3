"""Production's processes on one machine: PostgreSQL, S3, code server, webserver, daemon, and a process for each step."""

from __future__ import annotations

import pytest

from backfills import finished, launch, lineage, materialized
from facecaption_ml.storage.store import Store
from servers import SHARDS, Deployment, Postgres, s3_options


@pytest.fixture(scope="session")
def backfilled(registered: Deployment) -> Deployment:
    """Four shards, from URLs to face crops."""
    shards = [f"shard-{n:05d}" for n in range(4)]
    ended = finished(registered, launch(registered, ["raw_images", "face_crops"], shards))
    assert ended["status"] == "COMPLETED_SUCCESS", ended
    ranges = {tag["value"] for run in ended["runs"] for tag in run["tags"] if "range_start" in tag["key"]}
    assert ranges == {shards[0], shards[2]}, "two shards a run"
    return registered


def test_a_backfill_from_the_ui_makes_every_shard(backfilled: Deployment) -> None:
    for asset in ("raw_images", "face_crops"):
        assert materialized(backfilled, asset) >= {f"shard-{n:05d}" for n in range(4)}


def test_the_source_registered_all_its_shards(registered: Deployment) -> None:
    query = "query($k: AssetKeyInput!){assetNodeOrError(assetKey: $k){... on AssetNode{partitionKeys}}}"
    found = registered.graphql(query, k={"path": ["raw_images"]})
    assert found["assetNodeOrError"]["partitionKeys"] == [f"shard-{n:05d}" for n in range(SHARDS)]


def test_the_lineage_goes_from_the_source_to_the_tables(registered: Deployment) -> None:
    found = lineage(registered)
    assert found["raw_images"] == {"source_manifest"}
    assert found["face_crops"] == {"raw_images"}
    assert "facecaption_dataset" in found["flip_checkpoint"]
    assert {"retrieval_benchmark", "attribute_benchmark", "sketch_benchmark"} <= found["benchmark_tables"]


def test_tables_and_logs_of_the_steps_lie_on_s3(backfilled: Deployment, s3_server: dict[str, str]) -> None:
    keys = Store("s3://data", s3_options(s3_server)).keys()
    tables = [key for key in keys if "/face_crops/shard-" in key and key.endswith(".parquet")]
    assert len(tables) == 4
    logs = [key for key in keys if key.startswith("dagster-logs/")]
    assert any(key.endswith(".err") for key in logs), logs


def test_no_credential_reaches_a_log_or_the_event_log(
    backfilled: Deployment, postgres: Postgres, s3_server: dict[str, str]
) -> None:
    secrets = [s3_server["AWS_SECRET_ACCESS_KEY"], postgres.password]
    bucket = Store("s3://data", s3_options(s3_server))
    step_logs = [bucket.read_bytes(key).decode(errors="replace") for key in bucket.keys("dagster-logs/")]
    events = backfilled.graphql(
        """{runsOrError{... on Runs{results{runId eventConnection{events{... on MessageEvent{message}}}}}}}"""
    )
    shown = backfilled.graphql(
        """{repositoryOrError(repositorySelector: {repositoryLocationName: "facecaption", repositoryName: "__repository__"}){
        ... on Repository{allTopLevelResourceDetails{name configuredValues{key value}}}}}"""
    )
    everything = "\n".join([backfilled.logs(), *step_logs, repr(events), repr(shown)])
    assert "face_crops" in everything
    for secret in secrets:
        assert secret not in everything
