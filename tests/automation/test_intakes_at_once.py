"""Readings of lists, and removals, that meet: each in a process of its own, on one store and one instance."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from at_once import at_once
from facecaption_ml.dataset.manifests import Ledger
from facecaption_ml.dataset.sources import shard_name
from facecaption_ml.storage.store import Store
from intake_world import World, table

pytestmark = pytest.mark.processes
_PREPARED = """
import dagster as dg
from facecaption_ml.storage.store import Store
from intake_world import World
world = World(Path(given["folder"]))
world.instance = dg.DagsterInstance.local_temp(given["folder"] + "/dagster")
write = Store.write_table
def slowly(store, table, frame, shard=None, **more):
    time.sleep(given.get("pause", 0.3))
    return write(store, table, frame, shard, **more)
Store.write_table = slowly
"""
_READ = """
run = world.run(given["manifest"])
sys.exit(0 if run.success else 1)
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    (tmp_path / "dagster").mkdir()
    world.instance = dg.DagsterInstance.local_temp(str(tmp_path / "dagster"))
    assert world.run().success
    return world


def _rows(world: World) -> list[str]:
    return [url for urls in world.urls().values() for url in urls]


def test_two_manifests_at_once_become_shards_one_after_the_other(world: World, tmp_path: Path) -> None:
    manifests = [world.manifest("1.csv", ["d", "e", "f", "g"]), world.manifest("2.csv", ["p", "q", "r", "s"])]
    given = [{"folder": str(tmp_path), "manifest": manifest} for manifest in manifests]
    ended = at_once(tmp_path / "signs", _PREPARED, _READ, given)
    assert [one.returncode for one in ended] == [0, 0], [one.stderr for one in ended]
    assert {entry.location for entry in Ledger.read(world.store).manifests} == set(manifests)
    assert sorted(_rows(world)) == [*"abcdefgpqrs"]
    assert world.registered() == [shard_name(number) for number in range(6)] == list(world.urls())


def test_a_source_that_is_read_again_leaves_the_shards_of_a_manifest_that_comes_meanwhile(
    world: World, tmp_path: Path
) -> None:
    table(tmp_path / "source.csv", ["a", "b", "c"])
    slow = {"folder": str(tmp_path), "manifest": "", "pause": 3}
    given = [slow, {"folder": str(tmp_path), "manifest": world.manifest("1.csv", ["d", "e", "f"])}]
    ended = at_once(tmp_path / "signs", _PREPARED, _READ, given)
    assert [one.returncode for one in ended] == [0, 0], [one.stderr for one in ended]
    assert _rows(world) == [*"abcdef"]
    assert world.registered() == list(world.urls())


_REMOVE = """
from facecaption_assets.commands.remove import remove
if given["url"]:
    remove(world.settings, [given["url"]], "by letter", False)
else:
    sys.exit(0 if world.run().success else 1)
"""


def test_a_row_that_is_removed_while_the_source_is_read_does_not_come_back(world: World, tmp_path: Path) -> None:
    slow = {"folder": str(tmp_path), "url": "", "pause": 3}
    given = [slow, {"folder": str(tmp_path), "url": "http://pictures.test/c"}]
    ended = at_once(tmp_path / "signs", _PREPARED, _REMOVE, given)
    assert [one.returncode for one in ended] == [0, 0], [one.stderr for one in ended]
    assert _rows(world) == ["a", "b", "removed"]


def test_two_removals_of_one_shard_at_once_both_hold(world: World, tmp_path: Path) -> None:
    given = [{"folder": str(tmp_path), "url": f"http://pictures.test/{name}"} for name in "ab"]
    ended = at_once(tmp_path / "signs", _PREPARED, _REMOVE, given)
    assert [one.returncode for one in ended] == [0, 0], [one.stderr for one in ended]
    assert _rows(world) == ["removed", "removed", "c"]
    assert len(Store(world.settings.store_root).shards("source_manifest")) == 2
