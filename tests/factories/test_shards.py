"""The mechanism of every shard asset, on a small asset of its own, in a real instance."""

from __future__ import annotations

import contextlib
import errno
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from facecaption_assets.factories.shards import Check, ShardFunction, ShardResult, ShardWork
from facecaption_assets.resources.data import StoreResource, removals
from facecaption_assets.settings import load_settings
from facecaption_ml.dataset.removal_requests import record_requests
from facecaption_ml.storage.store import Store
from small_shards import KEY, RANGE, SHARDS, rows, small_shard_asset


class World:
    """What the asset under test does with each shard."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(str(folder / "store"))
        (folder / "home").mkdir(exist_ok=True)
        self.instance = dg.DagsterInstance.local_temp(str(folder / "home"))
        self.instance.add_dynamic_partitions("shards", SHARDS)
        self.raising, self.failing_check, self.warning_check, self.rejected = (set[str]() for _ in range(4))
        self.opened = 0

    @contextlib.contextmanager
    def open_work(self, work: ShardWork) -> Iterator[ShardFunction]:
        self.opened += 1

        def compute(shard: str) -> ShardResult:
            if shard in self.raising:
                raise OSError(errno.ENOSPC, "the disk is full")
            checks = [
                Check("hard", shard not in self.failing_check),
                Check("acceptance", shard not in self.warning_check),
            ]
            return ShardResult(rows(shard), {"shard": shard}, checks, "too few" if shard in self.rejected else None)

        yield compute

    def run(self, **kwargs: object) -> dg.ExecuteInProcessResult:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            settings = load_settings(profile="sample")
            return dg.materialize(
                [small_shard_asset(self.open_work, settings, hard="must hold", acceptance="should hold")],
                instance=self.instance,
                resources={"store": StoreResource(root=self.store.root)},
                raise_on_error=False,
                **kwargs,  # type: ignore[arg-type]
            )

    def materialized(self) -> list[str]:
        return sorted(self.instance.get_materialized_partitions(KEY))

    def latest_metadata(self, shard: str) -> dict[str, object]:
        wanted = dg.AssetRecordsFilter(asset_key=KEY, asset_partitions=[shard])
        (record,) = self.instance.fetch_materializations(wanted, limit=1).records
        return {name: value.value for name, value in record.asset_materialization.metadata.items()}  # type: ignore[union-attr]

    def check_outcomes(self, check: str, run: dg.ExecuteInProcessResult) -> dict[str | None, str]:
        log = self.instance.event_log_storage
        history = log.get_asset_check_execution_history(dg.AssetCheckKey(KEY, check), limit=50)
        return {record.partition: record.status.value for record in history if record.run_id == run.run_id}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_one_shard(world: World) -> None:
    run = world.run(partition_key=SHARDS[1])
    assert run.success
    assert world.materialized() == [SHARDS[1]]
    assert world.store.read_table("template_captions", SHARDS[1]).equals(rows(SHARDS[1]))
    assert world.latest_metadata(SHARDS[1])["dagster/row_count"] == 1
    for check in ("hard", "schema"):
        assert world.check_outcomes(check, run) == {SHARDS[1]: "SUCCEEDED"}


@pytest.mark.slow
def test_a_range_opens_its_work_once_and_each_shard_has_its_own_record(world: World) -> None:
    run = world.run(tags=RANGE)
    assert run.success
    assert world.opened == 1
    assert world.materialized() == SHARDS
    for shard in SHARDS:
        assert world.latest_metadata(shard)["shard"] == shard
        assert world.check_outcomes("hard", run)[shard] == "SUCCEEDED"


@pytest.mark.slow
def test_what_is_recorded_on_the_spot_says_which_code_made_it(world: World) -> None:
    world.raising = {SHARDS[2]}  # the step fails, so that Dagster writes no events of its own for the others
    assert not world.run(tags=RANGE).success
    records = world.instance.fetch_materializations(KEY, limit=10).records
    made = [record.asset_materialization for record in records]
    versions = {event.partition: (event.tags or {})["dagster/code_version"] for event in made if event}
    asset = small_shard_asset(
        world.open_work, load_settings(profile="sample"), hard="must hold", acceptance="should hold"
    )
    (current,) = asset.code_versions_by_key.values()
    assert current.startswith("1.")
    assert versions == dict.fromkeys(SHARDS[:2], current)


def test_a_range_of_one_shard_records_its_checks_for_that_shard(world: World) -> None:
    run = world.run(tags=dict.fromkeys(RANGE, SHARDS[2]))
    assert run.success
    assert world.materialized() == [SHARDS[2]]
    assert world.check_outcomes("schema", run)[SHARDS[2]] == "SUCCEEDED"


@pytest.mark.slow
def test_a_failing_shard_does_not_undo_the_others(world: World) -> None:
    world.raising = {SHARDS[1]}
    run = world.run(tags=RANGE)
    assert not run.success
    assert world.materialized() == [SHARDS[0], SHARDS[2]]
    assert world.store.shards("template_captions") == [SHARDS[0], SHARDS[2]]
    failure = next(event for event in run.all_events if event.is_step_failure).step_failure_data
    assert failure.user_failure_data
    assert failure.user_failure_data.description == (
        "1 shard(s) of template_captions failed: shard-00001; shard-00001: [Errno 28] the disk is full"
    )
    world.raising = set()
    assert world.run(partition_key=SHARDS[1]).success
    assert world.materialized() == SHARDS


@pytest.mark.slow
def test_a_blocking_check_keeps_its_shard_from_counting(world: World) -> None:
    world.failing_check, world.warning_check = {SHARDS[0]}, {SHARDS[2]}
    run = world.run(tags=RANGE)
    assert not run.success
    assert world.materialized() == SHARDS[1:]
    assert world.check_outcomes("hard", run)[SHARDS[0]] == "FAILED"
    assert world.check_outcomes("acceptance", run)[SHARDS[2]] == "FAILED"
    assert not world.store.has_table("template_captions", SHARDS[0])


@pytest.mark.slow
@pytest.mark.parametrize("several", [False, True])
def test_a_rejected_shard_keeps_its_rows_apart(world: World, several: bool) -> None:
    world.rejected = {SHARDS[0]}
    run = world.run(tags=RANGE) if several else world.run(partition_key=SHARDS[0])
    assert not run.success
    assert SHARDS[0] not in world.materialized()
    assert not world.store.has_table("template_captions", SHARDS[0])
    assert world.store.has_table("template_captions", SHARDS[0], incomplete=True)


_KILLED = """
import contextlib, os, sys, time, warnings
warnings.simplefilter("ignore")
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_shards
world = test_shards.World(Path({folder!r}))
plain = world.open_work
@contextlib.contextmanager
def slow(work):
    with plain(work) as compute:
        def computed(shard):
            if shard == test_shards.SHARDS[1]:
                print("second shard", flush=True)
                time.sleep(60)
            return compute(shard)
        yield computed
world.open_work = slow
world.run(tags=test_shards.RANGE)
"""


@pytest.mark.processes
def test_a_killed_process_keeps_the_shards_it_had_done(tmp_path: Path) -> None:
    code = _KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline().strip() == "second shard"
        time.sleep(0.2)
        process.kill()
    world = World(tmp_path)
    assert world.materialized() == [SHARDS[0]]
    assert world.store.shards("template_captions") == [SHARDS[0]]
    assert world.run(tags=RANGE).success
    assert world.materialized() == SHARDS


def test_a_shard_that_is_being_made_when_a_removal_is_asked_for_is_made_without_what_goes(tmp_path: Path) -> None:
    """Whoever asks looks for what there is, and does not see the shard that is being made."""
    world, made = World(tmp_path), list[str]()
    settings = load_settings(profile="photos", home=tmp_path / "home", source=str(tmp_path))
    assert settings.release.removal_list == ""  # nobody has asked for anything yet

    @contextlib.contextmanager
    def open_work(work: ShardWork) -> Iterator[ShardFunction]:
        def compute(shard: str) -> ShardResult:
            made.append(shard)
            faces = rows(shard).with_columns(face_id=pl.lit("0123456789abcdef_0"))
            kept = faces.filter(~faces["face_id"].is_in(list(removals(work.settings).face_ids)))
            if made == SHARDS[:2]:
                record_requests(str(tmp_path / "home" / "removals.txt"), ["0123456789abcdef_0"], "", date(2026, 5, 4))
            return ShardResult(kept, {}, [])

        yield compute

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        asset = small_shard_asset(open_work, settings)
        run = dg.materialize(
            [asset], instance=world.instance, resources={"store": StoreResource(world.store.root)}, tags=RANGE
        )
    assert run.success
    assert made == [*SHARDS[:2], SHARDS[1], SHARDS[2]]
    assert [len(world.store.read_table("template_captions", shard)) for shard in SHARDS] == [1, 0, 0]
    assert world.latest_metadata(SHARDS[1])["dagster/row_count"] == 0
