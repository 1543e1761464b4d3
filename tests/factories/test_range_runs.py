"""A run of several shards through several assets: what is recorded, what goes on beside a failure, and what is stale after."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.execution.api import create_execution_plan, execute_run
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from facecaption_assets.factories import records
from facecaption_assets.partitions import SHARDS as PARTITIONS
from small_shards import Chain

S = ["shard-00000", "shard-00001", "shard-00002"]
CONTENT, CODE = "dagster/data_version", "dagster/code_version"


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


def failed(chain: Chain, asset: str) -> set[str]:
    """The partitions that the UI shows in red."""
    status = get_and_update_asset_status_cache_value(chain.instance, dg.AssetKey(asset), PARTITIONS)
    assert status
    with partition_loading_context(dynamic_partitions_store=chain.instance):
        return set(status.deserialize_failed_partition_subsets(PARTITIONS).get_partition_keys())


def checks(chain: Chain, asset: str, check: str) -> dict[str | None, str]:
    """What the check's page shows of each partition."""
    log, key = chain.instance.event_log_storage, dg.AssetCheckKey(dg.AssetKey(asset), check)
    found = log.get_asset_check_partition_info([key])
    assert all(one.is_current for one in found)  # those that are not are shown as missing
    return {one.partition_key: str(one.latest_execution_status.value) for one in found if one.latest_execution_status}


def reasons(chain: Chain, asset: str) -> dict[str | None, str]:
    records = chain.instance.fetch_observations(dg.AssetKey(asset), limit=20).records
    return {r.partition_key: str(r.event_log_entry.asset_observation.metadata["failure"].value) for r in records}  # type: ignore[union-attr]


@pytest.mark.slow
def test_each_shard_is_recorded_once_and_its_checks_are_passed(chain: Chain) -> None:
    chain.words[S[1]] = "Another person."
    run = chain.run()
    assert run.success
    for asset in chain.ASSETS:
        records = {shard: chain.records(asset, shard) for shard in S}
        assert {shard: len(found) for shard, found in records.items()} == dict.fromkeys(S, 1)
        assert checks(chain, asset, "hard") == checks(chain, asset, "schema") == dict.fromkeys(S, "SUCCEEDED")
        versions = {shard: (found[0].tags or {})[CONTENT] for shard, found in records.items()}
        assert len(set(versions.values())) == 3
        assert not any(chain.stale(asset, shard) for shard in S)
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey("llm_captions"))
    assert {record.partition_key for record in chain.instance.fetch_materializations(wanted, limit=50).records} == set(
        S
    )


def test_a_shard_alone_is_recorded_as_in_a_range(chain: Chain) -> None:
    chain.run()
    before = chain.records("llm_captions", S[1])[0]
    assert chain.run("llm_captions", partition_key=S[1]).success
    again = chain.records("llm_captions", S[1])
    assert len(again) == 2
    assert (again[0].tags or {})[CONTENT] == (before.tags or {})[CONTENT]
    assert checks(chain, "llm_captions", "hard")[S[1]] == "SUCCEEDED"


@pytest.mark.slow
def test_what_is_made_again_without_a_change_makes_nothing_stale(chain: Chain) -> None:
    chain.run()
    assert chain.run("summary", partition_key=None).success
    chain.run("template_captions", shards=S[1:])
    assert not any(chain.stale(asset, shard) for asset in chain.ASSETS for shard in S)
    assert not chain.stale("summary")


@pytest.mark.slow
def test_a_shard_with_other_content_makes_what_follows_stale_and_no_other_shard(chain: Chain) -> None:
    chain.run()
    chain.run("summary", partition_key=None)
    chain.words[S[1]] = "Another person."
    chain.run("template_captions")
    assert chain.stale("llm_captions", S[1]) == ["has a new dependency data version"]
    assert not chain.stale("llm_captions", S[0]) + chain.stale("llm_captions", S[2])
    chain.run("llm_captions", "facecaption_dataset", shards=[S[1]])
    assert not chain.stale("facecaption_dataset", S[1])
    assert chain.stale("summary") == ["has a new dependency data version"]


def test_a_changed_setting_makes_stale_what_reads_it_and_nothing_else(chain: Chain) -> None:
    chain.run()
    assert chain.stale("llm_captions", S[0], seed=1) == ["has a new code version"]
    assert chain.stale("template_captions", S[0], seed=1) == chain.stale("facecaption_dataset", S[0], seed=1) == []
    assert chain.stale("llm_captions", S[0], home="/elsewhere", threads=3, shards_per_run=9) == []


@pytest.mark.slow
def test_good_shards_go_on_beside_a_failed_one(chain: Chain) -> None:
    chain.run()  # so that there are tables of an earlier run, which the failed shard must not be carried on with
    chain.failing, chain.computed = {("template_captions", S[1])}, []
    chain.words = dict.fromkeys(S, "Somebody.")
    run = chain.run()
    assert not run.success
    assert {event.step_key for event in run.all_events if event.is_step_failure} == set(chain.ASSETS)
    assert chain.computed[3:] == [(asset, shard) for asset in chain.ASSETS[1:] for shard in (S[0], S[2])]
    for asset in chain.ASSETS:
        assert failed(chain, asset) == {S[1]}
        assert checks(chain, asset, "schema") == {S[0]: "SUCCEEDED", S[1]: "FAILED", S[2]: "SUCCEEDED"}
        assert len(chain.records(asset, S[1])) == 1
        assert len(chain.records(asset, S[2])) == 2
    assert reasons(chain, "template_captions") == {S[1]: "[Errno 28] the disk is full"}
    for asset in chain.ASSETS[1:]:
        assert reasons(chain, asset) == {S[1]: "template_captions failed: [Errno 28] the disk is full"}


def test_a_run_again_from_its_failure_makes_only_what_failed(chain: Chain) -> None:
    chain.failing = {("llm_captions", S[1])}
    first = chain.run()
    chain.failing, chain.computed = set(), []
    with_parent = {"dagster/is_resume_retry": "true", "dagster/parent_run_id": first.run_id}
    again = _resumed(chain, first, with_parent)
    assert again.success
    assert chain.computed == [("llm_captions", S[1]), ("facecaption_dataset", S[1])]
    assert all(not failed(chain, asset) for asset in chain.ASSETS)
    for asset in chain.ASSETS:
        assert set(checks(chain, asset, "hard").values()) == {"SUCCEEDED"}


def _resumed(chain: Chain, first: dg.ExecuteInProcessResult, tags: dict[str, str]) -> dg.DagsterRun:
    """As the UI's "From failure" does it."""
    job = (
        chain.definitions()
        .resolve_implicit_global_asset_job_def()
        .get_subset(asset_selection={dg.AssetKey(name) for name in chain.ASSETS})
    )
    parent = chain.instance.get_run_by_id(first.run_id)
    assert parent
    steps, known = KnownExecutionState.build_resume_retry_reexecution(chain.instance, parent)
    assert sorted(steps) == ["facecaption_dataset", "llm_captions"]
    plan = create_execution_plan(
        job, {}, step_keys_to_execute=steps, known_state=known, tags=parent.tags, instance_ref=None
    )
    run = chain.instance.create_run_for_job(
        job,
        execution_plan=plan,
        run_config={},
        tags={**parent.tags, **tags},
        parent_run_id=first.run_id,
        root_run_id=first.run_id,
        asset_selection=frozenset(dg.AssetKey(name) for name in chain.ASSETS),
    )
    return execute_run(InMemoryJob(job), run, chain.instance, raise_on_error=False)


@pytest.mark.parametrize("several", [False, True])
def test_a_partition_that_no_source_has_is_named_as_such(chain: Chain, several: bool) -> None:
    chain.instance.add_dynamic_partitions("shards", ["shard-7"])
    run = (
        chain.run("llm_captions", shards=["shard-7"]) if several else chain.run("llm_captions", partition_key="shard-7")
    )
    assert not run.success
    assert reasons(chain, "llm_captions") == {
        "shard-7": "shard-7 is in no source (its shards run from shard-00000 to shard-00002): take the partition out "
        "again, or add a manifest with its images"
    }


def test_an_input_that_is_gone_or_was_never_made_is_told_apart(chain: Chain) -> None:
    chain.run("template_captions", shards=S[:2])
    chain.store.delete("template_captions/shard-00000.parquet")
    chain.run("llm_captions")
    where = chain.store.uri("template_captions/shard-00000.parquet")
    assert reasons(chain, "llm_captions") == {
        S[0]: f"template_captions has made shard-00000, but its file {where} is gone: "
        "materialize template_captions of shard-00000 again",
        S[2]: "template_captions has not made shard-00002 yet: materialize it first",
    }
    assert chain.records("llm_captions", S[1])


def test_what_shards_are_made_of_is_known_without_reading_their_events(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain.run("template_captions")
    monkeypatch.setattr(records, "_read", None)
    made = records.made_of(chain.instance, "template_captions")
    assert {shard: one.data for shard, one in made.items()} == {
        shard: (chain.records("template_captions", shard)[0].tags or {})[CONTENT] for shard in S
    }
