"""Further manifests become shards after the last one: the ledger, the runs, and what a killed run leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import intake_world
from facecaption_ml.dataset.manifests import Ledger, appended, list_manifests, stat_manifest
from facecaption_ml.dataset.sources import ManifestCounts, SourceError, build_shards, sample_id, shard_name
from intake_world import World


def failure(run: dg.ExecuteInProcessResult) -> str:
    data = next(event for event in run.all_events if event.is_step_failure).step_failure_data
    return str(data.user_failure_data and data.user_failure_data.description)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_manifest_adds_shards_after_the_last_and_marks_urls_that_were_there_before(world: World) -> None:
    assert world.run().success
    before = {shard: world.store.read_bytes(f"source_manifest/{shard}.parquet") for shard in world.urls()}
    run = world.run(world.manifest("more.csv", ["d", "a", "d", "e"]))
    assert run.success
    assert world.urls() == {
        "shard-00000": ["a", "b"],
        "shard-00001": ["c"],
        "shard-00002": ["d", "a*"],
        "shard-00003": ["d*", "e"],
    }
    assert world.registered() == [shard_name(number) for number in range(4)]
    assert {shard: world.store.read_bytes(f"source_manifest/{shard}.parquet") for shard in before} == before
    metadata = run.asset_materializations_for_node("source_manifest")[0].metadata
    assert (metadata["shards"].value, metadata["dagster/row_count"].value) == (2, 4)
    assert metadata["duplicate URLs"].value == 2
    assert run.get_asset_check_evaluations()[0].passed


@pytest.mark.slow
def test_the_same_file_or_the_same_content_makes_no_shards_twice(world: World) -> None:
    manifest = world.manifest("more.csv", ["d", "e", "f"])
    assert world.run().success
    assert world.run(manifest).success
    urls = world.urls()
    os.utime(manifest, ns=(1, 1))
    copy = world.manifest("copy.csv", ["d", "e", "f"])
    for again in (manifest, copy):
        assert world.run(again).success
        assert world.urls() == urls
    world.manifest("more.csv", ["d", "e", "f", "g"])
    assert world.run(manifest).success
    assert list(world.urls().values())[-2:] == [["d*", "e*"], ["f*", "g"]]


_KILLED = """
import os, sys, warnings
warnings.simplefilter("ignore")
sys.path.insert(0, {support!r})
from pathlib import Path
import dagster as dg
from facecaption_ml.storage.store import Store
from intake_world import World
write = Store.write_table
def dying(store, table, frame, shard=None, **more):
    if shard == "shard-00004":
        os._exit(9)
    return write(store, table, frame, shard, **more)
Store.write_table = dying
World(Path({folder!r})).run({manifest!r})
"""


@pytest.mark.processes
def test_a_run_that_was_killed_leaves_no_shards_and_can_be_repeated(world: World) -> None:
    assert world.run().success
    first, second = world.manifest("1.csv", ["d", "e", "f", "g", "h"]), world.manifest("2.csv", ["i"])
    code = _KILLED.format(support=str(Path(intake_world.__file__).parent), folder=str(world.folder), manifest=first)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 9, done.stderr
    assert list(world.urls().values())[2:] == [["d", "e"], ["f", "g"]]  # what it left behind
    assert world.run(second).success
    assert world.run(first).success
    assert list(world.urls().values())[2:] == [["i"], ["d", "e"], ["f", "g"], ["h"]]
    assert world.registered() == list(world.urls())


def test_the_source_may_change_within_its_shards_but_not_grow_into_those_of_others(world: World) -> None:
    assert world.run().success
    assert world.run(world.manifest("more.csv", ["d"])).success
    world.settings = world.with_source("x")
    assert world.run().success
    assert world.registered() == ["shard-00000", "shard-00002"]
    world.settings = world.with_source("x", "y", "z", "zz", "zzz")
    run = world.run()
    assert not run.success
    assert "grown past shard-00001, and shard-00002 is another manifest's" in failure(run)
    assert world.urls()["shard-00002"] == ["d"]


def test_an_instance_that_was_lost_gets_the_shards_of_every_manifest_back(world: World) -> None:
    manifest = world.manifest("more.csv", ["d"])
    assert world.run().success
    assert world.run(manifest).success
    world.instance = dg.DagsterInstance.ephemeral()
    assert world.run().success
    assert world.registered() == ["shard-00000", "shard-00001", "shard-00002"]


def test_a_manifest_alone_is_enough(world: World) -> None:
    assert world.run(world.manifest("more.csv", ["d"])).success
    assert world.urls() == {"shard-00000": ["d"]}
    assert "grown past nothing, and shard-00000" in failure(world.run())


def test_a_manifest_without_a_usable_row_is_done_and_one_without_urls_fails(world: World) -> None:
    assert world.run().success
    empty = world.inbox / "empty.csv"
    empty.write_text("URL\n \n")
    assert world.run(str(empty)).success
    assert Ledger.read(world.store).manifests[0].rows == 1
    bad = world.inbox / "bad.csv"
    bad.write_text("address\nhttp://pictures.test/a\n")
    assert "no column 'URL'" in failure(world.run(str(bad)))
    assert "no such table" in failure(world.run(str(world.inbox / "absent.csv")))
    assert len(world.urls()) == 2


def test_a_manifest_that_changed_since_it_was_asked_for_is_left_alone(world: World) -> None:
    manifest = world.manifest("more.csv", ["d"])
    seen = stat_manifest(manifest).version
    world.manifest("more.csv", ["d", "e"])
    assert "has changed since it was asked for" in failure(world.run(manifest, seen))
    assert world.urls() == {}


def test_what_was_made_from_earlier_shards_is_not_out_of_date_after_a_further_manifest(world: World) -> None:
    versions = []
    for manifest in ("", world.manifest("more.csv", ["d"])):
        assert world.run(manifest).success
        event = world.instance.get_latest_materialization_event(dg.AssetKey("source_manifest"))
        versions.append(event.asset_materialization.tags["dagster/data_version"])  # type: ignore[union-attr,index]
    assert versions[0] == versions[1]


def test_files_that_are_being_written_are_not_manifests(tmp_path: Path) -> None:
    for name in ("a.csv", ".b.csv", "c.csv.tmp", "d.csv.part", "e.txt", "f/g.PARQUET", ".h/i.csv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("URL\n")
    assert [Path(m.location).name for m in list_manifests(str(tmp_path))] == ["a.csv", "g.PARQUET"]
    with pytest.raises(SourceError, match=r"inbox .*absent: no such folder"):
        list_manifests(str(tmp_path / "absent"))


def test_manifests_on_s3(s3_server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, s3_server[name])
    options = {"aws_endpoint_url": s3_server["endpoint"], "aws_region": "us-east-1"}
    client = boto3.client("s3", endpoint_url=s3_server["endpoint"], region_name="us-east-1")
    for name in ("intake/a.csv", "intake/.b.csv", "intake2/c.csv"):
        client.put_object(Bucket="data", Key=name, Body=b"URL\nx\n")
    found = list_manifests("s3://data/intake", options)
    assert [manifest.location for manifest in found] == ["s3://data/intake/a.csv"]
    assert stat_manifest("s3://data/intake/a.csv", options) == found[0]
    client.put_object(Bucket="data", Key="intake/a.csv", Body=b"URL\ny\n")
    assert list_manifests("s3://data/intake", options)[0].version != found[0].version
    with pytest.raises(SourceError, match="no such table"):
        stat_manifest("s3://data/intake/z.csv", options)


@pytest.mark.slow
@given(st.lists(st.lists(st.sampled_from("abcdefghij"), max_size=8), min_size=1, max_size=4), st.integers(1, 4))
def test_manifests_one_after_the_other_mark_the_urls_that_one_long_manifest_would(
    manifests: list[list[str]], size: int
) -> None:
    def frames(urls: list[str]) -> list[pl.DataFrame]:
        schema = {"url": pl.String, "alt_text": pl.String, "width": pl.Int32, "height": pl.Int32, "nsfw": pl.String}
        return list(build_shards([pl.DataFrame([{"url": u} for u in urls], schema)], size, ManifestCounts()))

    marks: list[bool] = []
    shards: list[str] = []
    known = np.empty(0, np.uint64)
    for urls in manifests:
        for frame in appended(frames(urls), len(shards), known):
            marks += frame["duplicate_url"].to_list()
            shards += frame["shard"].unique().to_list()
        known = np.union1d(known, np.array([int(sample_id(url), 16) for url in urls], np.uint64))
    flat = [url for urls in manifests for url in urls]
    assert marks == [url in flat[:place] for place, url in enumerate(flat)]
    assert shards == [shard_name(number) for number in range(len(shards))]
