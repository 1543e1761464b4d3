"""The asset raw_images over a list of URLs on loopback: floors, corrected settings, the tag that fetches again."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from command_line import assert_one_line, invoke
from facecaption_assets.assets.source import source_assets
from facecaption_assets.partitions import REFETCH_TAG, SHARDS
from facecaption_assets.resources.data import build_resources
from facecaption_assets.settings import Settings, load_settings
from hostile_site import Site, manifest, picture, reply, running_site

SHARD = "shard-00000"


@pytest.fixture
def site() -> Iterator[Site]:
    with running_site() as found:
        yield found


class World:
    """A shard of URLs in a store, and an instance that knows it."""

    def __init__(self, home: Path, urls: list[str]) -> None:
        settings = load_settings(profile="photos")
        self.settings = settings.replaced(home=home, source="list.csv", allow_private_addresses=True, retries=0)
        self.store = self.settings.open_store()
        self.store.write_table("source_manifest", manifest([*urls]), SHARD)
        self.instance = dg.DagsterInstance.ephemeral()
        assert SHARDS.name
        self.instance.add_dynamic_partitions(SHARDS.name, [SHARD])

    def fetch(self, refetch: str = "", **changed: object) -> pl.DataFrame | str:
        """The rows, or why the shard failed."""
        settings: Settings = self.settings.replaced(**changed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = dg.materialize(
                [source_assets(settings)[1]],
                instance=self.instance,
                partition_key=SHARD,
                resources=build_resources(settings),
                tags={REFETCH_TAG: refetch} if refetch else {},
                raise_on_error=False,
            )
        for event in run.all_events:
            if event.is_step_failure:
                data = event.step_failure_data
                return str(data.user_failure_data.description if data.user_failure_data else data.error)
        return self.store.read_table("raw_images", SHARD)

    def statuses(self, refetch: str = "", **changed: object) -> list[str]:
        rows = self.fetch(refetch, **changed)
        assert isinstance(rows, pl.DataFrame), rows
        return rows["status"].to_list()


def test_a_shard_under_its_floor_is_mended_by_the_setting(site: Site, tmp_path: Path) -> None:
    site.replies |= {f"/{n}.jpg": reply(body=picture(n, size=(90, 60))) for n in range(3)}
    world = World(tmp_path, [f"{site.base}/{n}.jpg" for n in range(3)])
    for again in (False, True):
        assert "only 0.0% of the images arrived" in str(world.fetch(max_image_bytes=1000))
        assert site.requested("/0.jpg") == 1, again
    assert world.statuses() == ["ok"] * 3
    assert not world.store.has_table("raw_images", SHARD, incomplete=True)
    assert list((tmp_path / "cache" / "bodies").iterdir()) == []


def test_a_removal_reaches_a_shard_that_falls_under_its_floor_by_it(site: Site, tmp_path: Path) -> None:
    pictures = [picture(n) for n in range(2)]
    site.replies |= {f"/{n}.jpg": reply(body=pictures[n]) for n in range(2)}
    world = World(tmp_path, [f"{site.base}/{name}.jpg" for name in ("0", "1", "gone", "lost")])
    assert world.statuses(success_floor=0.5) == ["ok", "ok", "http_client_error", "http_client_error"]
    removal_list = tmp_path / "removals.txt"
    removal_list.write_text(f"{site.base}/0.jpg\n")
    for _ in range(2):  # a third of what is still wanted is there, as before
        statuses = world.statuses(success_floor=0.5, removal_list=str(removal_list))
        assert statuses == ["denied", "ok", "http_client_error", "http_client_error"]
    kept = world.store.read_table("raw_images", SHARD)["image"].struct.field("bytes").drop_nulls().to_list()
    assert kept == [pictures[1]]
    reason = world.fetch(success_floor=0.5, removal_list=str(removal_list), max_image_bytes=100)
    assert "only 0.0% of the images arrived" in str(reason)  # lost to something else than a request


def test_the_tag_of_a_run_fetches_rows_again(site: Site, tmp_path: Path) -> None:
    site.replies["/0.jpg"] = reply(body=picture(1))
    world = World(tmp_path, [f"{site.base}/0.jpg", f"{site.base}/later.jpg"])
    assert world.statuses() == ["ok", "http_client_error"]
    site.replies["/later.jpg"] = reply(body=picture(2))
    assert world.statuses() == ["ok", "http_client_error"]
    assert world.statuses("timeout, http_client_error") == ["ok", "ok"]
    assert site.requested("/0.jpg") == 1
    assert "'gone' is no status of a row: choose among ok, invalid_url" in str(world.fetch("gone"))


def test_a_status_that_there_is_not(tmp_path: Path) -> None:
    done = invoke("run", "--refetch", "time_out", home=tmp_path)
    assert_one_line(done, "--refetch", "'time_out'", "did you mean timeout?")
