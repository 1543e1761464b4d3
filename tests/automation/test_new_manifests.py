"""The inbox's sensor: what it asks for tick by tick, and the runs that it asks for, carried out on a small web."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from PIL import Image

from facecaption_assets.automation.schedules import awaited_shards
from facecaption_assets.automation.sensors import MANIFEST_TAG, new_manifests_sensor
from facecaption_assets.definitions import build_definitions
from facecaption_assets.settings import load_settings
from facecaption_ml.schemas import empty
from facecaption_ml.storage.store import Store
from loopback import http_server
from nightly_context import NightlyContext


class Inbox:
    """An inbox, the sensor that watches it, and an instance in which its runs are carried out."""

    def __init__(self, folder: Path, **more: object) -> None:
        self.folder = folder / "inbox"
        self.folder.mkdir()
        given = {"home": folder / "home", "manifest_inbox": str(self.folder), "shard_size": 2, "shards_per_run": 2}
        self.settings = load_settings(profile="photos", **given, **more)
        self.instance = dg.DagsterInstance.ephemeral()
        self.cursor: str | None = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.definitions = build_definitions(self.settings)

    def put(self, name: str, urls: Sequence[str]) -> None:
        pl.DataFrame({"URL": urls}).write_csv(self.folder / name)

    def tick(self) -> list[dg.RunRequest]:
        context = dg.build_sensor_context(instance=self.instance, cursor=self.cursor)
        sensor = self.definitions.resolve_sensor_def("new_manifests")
        result = sensor(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        self.said = str(result.skip_reason)
        return list(result.run_requests or [])

    def carry_out(self, request: dg.RunRequest, assets: Sequence[str] | None = None) -> dg.ExecuteInProcessResult:
        assert request.job_name
        return self.definitions.resolve_job_def(request.job_name).execute_in_process(
            instance=self.instance,
            run_config=request.run_config,
            tags=dict(request.tags),
            asset_selection=[dg.AssetKey(name) for name in assets] if assets else None,
            raise_on_error=False,
        )

    def ingest(self) -> None:
        """A manifest is there, and is ingested once it has stayed the same for a tick."""
        assert self.tick() == []
        (request,) = self.tick()
        assert self.carry_out(request).success


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path)


def ranges(requests: Sequence[dg.RunRequest]) -> list[tuple[str, str]]:
    ends = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
    return [(request.tags[ends[0]], request.tags[ends[1]]) for request in requests]


def test_without_an_inbox_the_sensor_says_that_it_does_nothing() -> None:
    with dg.build_sensor_context(instance=dg.DagsterInstance.ephemeral()) as context:
        result = new_manifests_sensor(load_settings(profile="photos"))(context)
    assert isinstance(result, dg.SensorResult)
    assert not result.run_requests
    assert "FACECAPTION_MANIFEST_INBOX is not set" in str(result.skip_reason)


def test_a_manifest_is_ingested_when_it_has_stopped_growing_and_its_shards_are_run_then(inbox: Inbox) -> None:
    assert inbox.tick() == []
    inbox.put("a.csv", [f"http://pictures.test/{number}" for number in range(4)])
    assert inbox.tick() == []
    inbox.put("a.csv", [f"http://pictures.test/{number}" for number in range(5)])
    assert inbox.tick() == []  # it has grown since the last tick
    (intake,) = inbox.tick()
    assert intake.job_name == "manifest_intake"
    assert inbox.carry_out(intake).success
    runs = inbox.tick()
    assert [request.job_name for request in runs] == ["shard_pipeline", "shard_pipeline"]
    assert ranges(runs) == [("shard-00000", "shard-00001"), ("shard-00002", "shard-00002")]
    assert len({request.run_key for request in runs}) == 2
    assert inbox.tick() == []
    assert "1 manifests, 0 not ingested" in inbox.said


def test_one_manifest_at_a_time_and_none_while_another_run_is_at_the_manifest(inbox: Inbox) -> None:
    inbox.put("a.csv", ["http://pictures.test/a"])
    inbox.put("b.csv", ["http://pictures.test/b"])
    inbox.tick()
    (first,) = inbox.tick()
    job = inbox.definitions.resolve_job_def("manifest_intake")
    under_way = inbox.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=dict(first.tags))
    assert inbox.tick() == []
    assert under_way.run_id in inbox.said
    inbox.instance.report_run_failed(under_way)
    (again,) = inbox.tick()
    assert again.tags[MANIFEST_TAG] == first.tags[MANIFEST_TAG]
    assert again.run_key != first.run_key  # Dagster starts a run of the same key once
    assert inbox.carry_out(again).success
    requests = inbox.tick()
    assert [request.job_name for request in requests] == ["shard_pipeline", "manifest_intake"]
    assert str(requests[1].run_config["ops"]["source_manifest"]["config"]["manifest"]).endswith("b.csv")


def test_a_manifest_that_cannot_be_read_is_left_alone_in_the_end_and_does_not_hold_up_others(inbox: Inbox) -> None:
    (inbox.folder / "a.csv").write_text("address\nhttp://pictures.test/a\n")
    inbox.put("b.csv", ["http://pictures.test/b"])
    inbox.tick()
    for _ in range(inbox.settings.automation.manifest_attempts):
        (request,) = inbox.tick()
        assert not inbox.carry_out(request).success
    (request,) = inbox.tick()
    assert inbox.carry_out(request).success
    assert len(inbox.tick()) == 1
    assert inbox.tick() == []
    assert "1 left alone after 3 failed runs" in inbox.said
    inbox.put("a.csv", ["http://pictures.test/a"])  # mended
    inbox.ingest()


def test_a_lost_cursor_takes_nothing_in_twice(inbox: Inbox) -> None:
    inbox.put("a.csv", ["http://pictures.test/a"])
    inbox.ingest()
    for inbox.cursor in (None, "{", "[1]", json.dumps({"waiting": 3})):
        assert inbox.tick() == []
        assert inbox.tick() == []


def test_the_cursor_forgets_what_is_done_and_what_is_gone(inbox: Inbox) -> None:
    for number in range(30):
        inbox.put(f"{number}.csv", [f"http://pictures.test/{number}"])
    inbox.tick()
    assert len(json.loads(str(inbox.cursor))["waiting"]) == 30
    for path in inbox.folder.iterdir():
        path.unlink()
    inbox.tick()
    assert json.loads(str(inbox.cursor)) == {"waiting": {}, "asked": []}


def test_the_nightly_backfill_leaves_new_shards_to_the_sensor_until_a_night_later(inbox: Inbox) -> None:
    inbox.instance.add_dynamic_partitions("shards", ["shard-00000"])  # of the first source, which no sensor asks for
    inbox.put("a.csv", [f"http://pictures.test/{number}" for number in range(4)])
    inbox.ingest()
    inbox.settings.open_store().write_table("source_manifest", empty("source_manifest"), "shard-00000")
    runs = inbox.tick()
    assert ranges(runs) == [("shard-00001", "shard-00002")]  # asked for, and none of them is there yet
    now = datetime.now(UTC) + timedelta(minutes=10)
    assert awaited_shards(inbox.instance, inbox.settings, now) == {"shard-00001", "shard-00002"}
    assert _night(inbox, now) == [("shard-00000", "shard-00000")]
    assert _night(inbox, now + timedelta(days=1)) == [("shard-00000", "shard-00001"), ("shard-00002", "shard-00002")]


def _night(inbox: Inbox, now: datetime) -> list[tuple[str, str]]:
    context = NightlyContext(inbox.instance, now, inbox.definitions.get_repository_def())
    data = inbox.definitions.resolve_schedule_def("nightly_backfill").evaluate_tick(context)
    return ranges(data.run_requests or [])


class _Pictures(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/robots.txt":
            self.send_error(404)
            return
        body = BytesIO()
        Image.new("RGB", (32, 24), (int(self.path.strip("/x")), 90, 30)).save(body, "PNG")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.getvalue())


def test_from_a_file_in_the_inbox_to_pictures_in_the_store(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, allow_private_addresses=True)
    with http_server(_Pictures) as port:
        inbox.put("a.csv", [f"http://127.0.0.1:{port}/x{number}" for number in range(3)])
        inbox.ingest()
        (run,) = inbox.tick()
        assert inbox.carry_out(run, ["raw_images"]).success
    store = Store(inbox.settings.store_root)
    statuses = [store.read_table("raw_images", shard)["status"].to_list() for shard in store.shards("raw_images")]
    assert statuses == [["ok", "ok"], ["ok"]]
    assert inbox.instance.get_materialized_partitions(dg.AssetKey("raw_images")) == {"shard-00000", "shard-00001"}
