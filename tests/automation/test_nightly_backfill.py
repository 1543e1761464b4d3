"""The nightly backfill: which shards it finds in a real event log, in which order, and in which runs."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from hypothesis import given
from hypothesis import strategies as st

from facecaption_assets.automation.nightly_backfill import Backlog, Reason, Task, find_backlog
from facecaption_assets.automation.schedules import run_ranges
from facecaption_assets.definitions import build_definitions
from facecaption_assets.factories.records import SOURCE_ROWS, note_source_rows
from facecaption_assets.partitions import SHARD_ASSETS
from facecaption_assets.settings import Settings, SettingsError, load_settings
from facecaption_ml.schemas import SHARD_TABLES, empty
from nightly_context import NightlyContext

# Not that of the working folder, where a demo may have left shards.
_EMPTY_HOME = tempfile.TemporaryDirectory(prefix="nightly-home-")


@cache
def code_location(**more: Any) -> tuple[Settings, dg.Definitions]:
    settings = load_settings(profile="photos", shards_per_run=4, **{"home": Path(_EMPTY_HOME.name), **more})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return settings, build_definitions(settings)


def range_tags(first: str, last: str) -> dict[str, str]:
    return {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}


class Night:
    """An instance with shards, and what the schedule makes of it."""

    def __init__(self, shards: int, **more: Any) -> None:
        self.instance = dg.DagsterInstance.ephemeral()
        self.shards = [f"shard-{number:05d}" for number in range(shards)]
        self.instance.add_dynamic_partitions("shards", self.shards)
        self.configure(**more)
        self.now = datetime.now(UTC) + timedelta(hours=1)

    def configure(self, **more: Any) -> None:
        """The code location is loaded anew, under other settings."""
        self.settings, self.definitions = code_location(**more)
        self.repository = self.definitions.get_repository_def()

    def make(
        self,
        shards: Iterable[str],
        assets: Sequence[str] = SHARD_ASSETS,
        version: str | None = None,
        content: str | None = None,
        of: str | None = None,
        rows: str | None = None,
    ) -> None:
        """With this ``content``, made ``of`` that of its inputs; ``rows``: of the source.

        By code of ``version``: None or "1" for the current one, "" for a materialization that does not say.
        """
        for asset in assets:
            current = self.repository.asset_graph.get(dg.AssetKey(asset)).code_version
            made_by = current if version in (None, "1") else version
            tags = {"dagster/code_version": made_by} if made_by else {}
            tags |= {SOURCE_ROWS: rows} if rows else {}
            if content:
                node = self.repository.asset_graph.get(dg.AssetKey(asset))
                tags |= {
                    f"dagster/input_data_version/{key.to_user_string()}": of or content for key in node.parent_keys
                }
                tags["dagster/data_version"] = content
            for shard in shards:
                self.instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=shard, tags=tags))

    def run(self, first: str, last: str) -> dg.DagsterRun:
        """A run at work."""
        job, tags = self.definitions.resolve_job_def("shard_pipeline"), range_tags(first, last)
        return self.instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)

    def fail(self, shard: str, asset: str = "raw_images") -> None:
        """As ``shards.py`` records a shard that failed."""
        self.instance.report_runless_asset_event(
            dg.AssetObservation(asset, partition=shard, metadata={"failure": "only 1% of the images arrived"})
        )

    def tick(self) -> list[tuple[str, str, str, str]]:
        """First shard, last shard, reason and first asset of each run asked for."""
        context = NightlyContext(self.instance, self.now, self.repository)
        data = self.definitions.resolve_schedule_def("nightly_backfill").evaluate_tick(context)
        self.said = data.skip_message or ""
        self.keys = [request.run_key for request in data.run_requests or []]
        asked = []
        for request in data.run_requests or []:
            first, last, reason = (request.tags[tag] for tag in (*range_tags("", ""), "facecaption/reason"))
            assets = request.asset_selection
            asked.append((first, last, reason, assets[0].to_user_string() if assets else SHARD_ASSETS[0]))
        return asked

    def backlog(self) -> Backlog:
        given = self.settings.automation
        memory = timedelta(days=given.nightly_days)
        return find_backlog(self.instance, self.repository, self.now, given.nightly_attempts, memory)


def test_missing_shards_are_built_in_ranges_from_the_first_asset_that_is_missing() -> None:
    night = Night(12)
    s = night.shards
    night.make([*s[:2], s[6]])
    night.make(s[8:10], SHARD_ASSETS[:4])
    assert night.tick() == [
        (s[2], s[5], "missing", "raw_images"),
        (s[7], s[7], "missing", "raw_images"),
        (s[8], s[9], "missing", "llm_captions"),
        (s[10], s[11], "missing", "raw_images"),
    ]
    assert len(set(night.keys)) == 4
    assert all(key and key.startswith(f"{night.now:%Y-%m-%d}:") for key in night.keys)


def test_nothing_to_do_is_said() -> None:
    night = Night(2)
    night.make(night.shards)
    assert night.tick() == []
    assert night.said.startswith("0 of 0 shards to build")


def test_an_asset_older_than_what_it_is_made_from_is_stale_from_there_on() -> None:
    night = Night(3)
    s = night.shards
    night.make(s)
    night.make([s[1]], ["face_crops"])
    assert night.tick() == [(s[1], s[1], "stale", "face_attributes")]
    night.instance.report_runless_asset_event(dg.AssetMaterialization("source_manifest"))
    assert len(night.tick()) == 1  # a further manifest changes no earlier shard
    night.instance.report_runless_asset_event(dg.AssetMaterialization("attribute_model"))
    assert night.tick() == [(s[0], s[2], "stale", "face_attributes")]


def test_shards_made_by_other_code_are_stale() -> None:
    night = Night(5)
    s = night.shards
    night.make(s[:3], version="0")
    night.make(s[3:], version="1")
    assert night.tick() == [(s[0], s[2], "stale", "raw_images")]
    night.make(s[:3], version="1")
    assert night.tick() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("versions", "stale"),
    [
        ("0000", [0, 1, 2, 3]),
        ("1001", [1, 2]),  # a setting that was changed and changed back
        ("0110", [0, 3]),
        ("1-01", [1, 2]),  # one that does not say by which code it was made
        ("--11", [0, 1]),
        ("1111", []),
        ("0" * 20 + "-" * 40 + "1" * 4, list(range(60))),
    ],
)
def test_every_shard_that_is_not_of_the_current_code_is_stale(versions: str, stale: list[int]) -> None:
    night = Night(len(versions))
    for shard, version in zip(night.shards, versions, strict=True):
        night.make([shard], version=version.strip("-"))
    limits = [task.shard for task in night.backlog().tasks if task.reason == "stale" and task.stage == 0]
    assert limits == [night.shards[number] for number in stale]


def test_a_changed_threshold_is_a_reason_and_a_changed_number_of_threads_is_none() -> None:
    night = Night(2)
    night.make(night.shards)
    night.configure(threads=3, connections=7)
    assert night.tick() == []
    night.configure(attribute_threshold=0.9)
    assert night.tick() == [(night.shards[0], night.shards[1], "stale", "face_attributes")]
    night.make(night.shards[:1], SHARD_ASSETS[2:])
    assert night.tick() == [(night.shards[1], night.shards[1], "stale", "face_attributes")]
    night.configure(attribute_threshold=0.85)
    assert [(first, last) for first, last, *_ in night.tick()] == [(night.shards[0], night.shards[0])]


def test_an_input_made_again_is_a_reason_only_where_its_content_is_another() -> None:
    night = Night(3)
    s = night.shards
    night.make(s, content="a")
    night.make(s[:2], ["face_crops"], content="a")
    assert night.tick() == []
    night.make(s[1:2], ["face_crops"], content="b", of="a")
    assert night.tick() == [(s[1], s[1], "stale", "face_attributes")]


def test_rows_of_the_source_are_a_reason_for_their_own_shard_and_no_other() -> None:
    night = Night(3)
    s = night.shards
    note_source_rows(night.instance, dict.fromkeys(s, "rows"))
    night.make(s, content="a", rows="rows")
    assert night.tick() == []
    note_source_rows(night.instance, {s[1]: "other-rows"})
    assert night.tick() == [(s[1], s[1], "stale", "raw_images")]
    night.make(s[1:2], ["raw_images"], content="a", rows="other-rows")
    assert night.tick() == []


def test_a_partition_that_the_source_has_not_is_left_alone(tmp_path: Path) -> None:
    night = Night(2, home=tmp_path)
    night.settings.open_store().write_table("source_manifest", empty("source_manifest"), night.shards[0])
    assert night.tick() == [(night.shards[0], night.shards[0], "missing", "raw_images")]


def test_a_shard_whose_table_is_gone_is_missing_although_it_was_made(tmp_path: Path) -> None:
    night = Night(3, home=tmp_path)
    s, store = night.shards, night.settings.open_store()
    night.make(s, content="a")
    for shard in s:
        for table in SHARD_TABLES:
            store.write_table(table, empty(table), shard)
    assert night.tick() == []
    store.delete(store.table_key("face_crops", s[1]))
    store.delete(store.table_key("facecaption_dataset", s[2]))
    assert night.tick() == [
        (s[1], s[1], "missing", "face_crops"),
        (s[2], s[2], "missing", "facecaption_dataset"),
    ]


def test_a_shard_that_failed_is_alone_and_rests_after_its_attempts_until_they_are_forgotten() -> None:
    night = Night(4)
    s = night.shards
    with_itself = [(s[0], s[0], "missing", "raw_images"), (s[1], s[1], "failed", "raw_images")]
    for _ in range(night.settings.automation.nightly_attempts - 1):
        _fail_in_a_run(night, s[1])
        assert night.tick() == [*with_itself, (s[2], s[3], "missing", "raw_images")]
    _fail_in_a_run(night, s[1])
    assert night.backlog().quarantined == [s[1]]
    assert night.tick() == [(s[0], s[0], "missing", "raw_images"), (s[2], s[3], "missing", "raw_images")]
    night.now += timedelta(days=night.settings.automation.nightly_days + 1)
    assert night.tick() == [(s[0], s[3], "missing", "raw_images")]


def _fail_in_a_run(night: Night, shard: str) -> None:
    """A run in which one shard fails as the assets record it."""

    @dg.op(name="raw_images")
    def failing(context) -> None:  # type: ignore[no-untyped-def]  # Dagster takes no annotation as a string
        context.log_event(dg.AssetObservation("raw_images", partition=shard, metadata={"failure": "nothing arrived"}))
        raise dg.Failure("1 shard(s) of raw_images failed", allow_retries=False)

    @dg.job
    def failing_run() -> None:
        failing()

    tags = range_tags(night.shards[0], night.shards[-1])
    assert not failing_run.execute_in_process(instance=night.instance, raise_on_error=False, tags=tags).success


def test_success_ends_the_failures_of_a_shard() -> None:
    night = Night(1)
    for _ in range(5):
        _fail_in_a_run(night, night.shards[0])
    assert night.tick() == []
    assert "1 quarantined after 3 failures" in night.said
    night.make(night.shards)
    assert night.backlog() == Backlog([], [], [])
    night.make(night.shards, ["raw_images"])
    assert [(task.reason, task.failures) for task in night.backlog().tasks] == [("stale", 0)]


def test_a_run_that_died_without_a_word_counts_against_each_of_its_shards() -> None:
    night = Night(4)
    s = night.shards
    night.instance.report_run_failed(night.run(s[0], s[1]))
    assert night.tick() == [
        (s[0], s[0], "failed", "raw_images"),
        (s[1], s[1], "failed", "raw_images"),
        (s[2], s[3], "missing", "raw_images"),
    ]


def test_shards_at_work_are_left_alone() -> None:
    night = Night(4)
    s = night.shards
    night.run(s[1], s[2])
    assert [(first, last) for first, last, *_ in night.tick()] == [(s[0], s[0]), (s[3], s[3])]


def test_a_backfill_of_shards_that_somebody_started_is_not_disturbed() -> None:
    night = Night(2)
    night.instance.add_backfill(
        PartitionBackfill(
            backfill_id="theirs",
            status=BulkActionStatus.REQUESTED,
            from_failure=False,
            tags={},
            backfill_timestamp=night.now.timestamp(),
            asset_selection=[dg.AssetKey("face_crops")],
        )
    )
    assert night.tick() == []
    assert "backfill theirs" in night.said


def test_the_budget_goes_to_missing_shards_first_then_failed_then_stale_ones() -> None:
    night = Night(8, nightly_shards=5)
    s = night.shards
    night.make(s[:3])
    night.make(s[:3], ["raw_images"])
    for shard in s[3:5]:
        night.fail(shard)
    chosen = night.tick()
    assert [(first, last, reason) for first, last, reason, _ in chosen] == [
        (s[3], s[3], "failed"),
        (s[4], s[4], "failed"),
        (s[5], s[7], "missing"),
    ]


@pytest.mark.slow
def test_five_thousand_shards() -> None:
    night = Night(5_000, nightly_shards=800)
    s = night.shards
    night.make(s[:50])
    night.make(s[50:750], ["raw_images"])
    chosen = night.tick()
    assert len(chosen) == 200
    assert chosen[0] == (s[50], s[53], "missing", "face_crops")
    assert len(night.backlog().tasks) == 4_950


@st.composite
def _tasks(draw: st.DrawFn) -> tuple[list[str], list[Task]]:
    registered = [f"shard-{number:05d}" for number in range(draw(st.integers(0, 30)))]
    draw(st.randoms()).shuffle(registered)
    reasons: list[Reason] = ["missing", "failed", "stale"]
    states = st.one_of(st.none(), st.tuples(st.sampled_from(reasons), st.integers(0, 2)))
    return registered, [Task(s, found[0], found[1]) for s in registered if (found := draw(states)) is not None]


@given(_tasks(), st.integers(1, 6), st.integers(0, 30))
def test_runs_hold_each_chosen_shard_once_and_only_neighbours(
    given_tasks: tuple[list[str], list[Task]], size: int, most: int
) -> None:
    registered, tasks = given_tasks
    chosen = Backlog(tasks).within(most)
    assert len(chosen) == min(most, len(tasks))
    runs = list(run_ranges(chosen, registered, size))
    assert [task for run in runs for task in run] == chosen
    for run in runs:
        start = registered.index(run[0].shard)
        assert [task.shard for task in run] == registered[start : start + len(run)]
        assert len({(task.reason, task.stage) for task in run}) == 1
        assert len(run) <= (1 if run[0].reason == "failed" else size)
    left = [task for task in tasks if task not in chosen]
    if any(task.reason == "missing" for task in left):
        assert {task.reason for task in chosen} <= {"missing"}


@pytest.mark.parametrize("name", ["nightly_cron", "weekly_cron", "summary_cron"])
def test_a_cron_line_that_is_none_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=f"FACECAPTION_{name.upper()} is 'every night'"):
        build_definitions(load_settings(profile="photos", **{name: "every night"}))
