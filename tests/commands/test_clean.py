"""``facecaption clean``: what takes part in nothing goes, everything else stays."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from command_line import assert_one_line, invoke
from facecaption_assets.commands.clean import clean
from facecaption_assets.commands.dead_runs import PROCESS_TAG
from facecaption_assets.commands.instance import Pipeline
from facecaption_assets.factories.whole_dataset import DatasetWork
from facecaption_assets.plan.stages import latest_metadata
from facecaption_assets.settings import Settings
from facecaption_ml.dataset.provenance import UnknownFaceError, find_shard
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.processes.tree import ProcessIdentity
from facecaption_ml.schemas import SHARD_TABLES
from facecaption_ml.storage.store import Store
from small_dataset import NAMES, face

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def littered(settings: Settings) -> Settings:
    """A store whose second shard has left the source, with unfinished tries, answers, features and a killed write."""
    store = Store(settings.store_root)
    store.delete(store.table_key("source_manifest", NAMES[1]))
    for shard in NAMES:
        store.write_table("raw_images", store.read_table("raw_images", shard), shard, incomplete=True)
        store.write_bytes(f"llm_answers/chat1/{shard}.parquet", b"answers")
        store.write_bytes(f"face_features/c0ffee/{shard}.npy", b"features")
    unfinished = store.read_table("face_crops", NAMES[0])
    store.delete(store.table_key("face_crops", NAMES[0]))
    store.write_table("face_crops", unfinished, NAMES[0], incomplete=True)
    for name, age in ((".old.tmp", 7200), (".new.tmp", 60)):
        path = Path(settings.store_root, "release", name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * 100)
        os.utime(path, (time.time() - age,) * 2)
    return settings


@pytest.mark.slow
def test_what_left_the_source_goes_and_what_is_in_use_stays(littered: Settings, capsys: Captured) -> None:
    store = Store(littered.store_root)
    before = store.sizes()
    gone = {key for key in before if NAMES[1] in key} | {f"raw_images/incomplete/{NAMES[0]}.parquet"}
    clean(littered, dry_run=True)
    said = capsys.readouterr().out
    assert store.sizes() == before
    clean(littered, dry_run=False)
    assert store.sizes() == {key: size for key, size in before.items() if key not in gone}
    tables = len(SHARD_TABLES) - 1 + 1  # each of the gone shard, and its unfinished try
    size = sum(before[key] for key in gone) + 100
    assert f"tables of shards that left the source: {tables}," in said
    assert f"{len(gone) + 1} file(s), {size:,} bytes, would be deleted (dry run)" in said
    assert f"{len(gone) + 1} file(s), {size:,} bytes, deleted" in capsys.readouterr().out
    release = Path(littered.store_root, "release")
    assert [path.name for path in release.iterdir()] == [".new.tmp"]
    clean(littered, dry_run=False)
    assert "0 file(s)" in capsys.readouterr().out


def test_nothing_is_deleted_while_a_run_is_in_progress(littered: Settings, capsys: Captured) -> None:
    store, instance = Store(littered.store_root), Pipeline(littered).instance
    before = store.sizes()
    run = started(instance, ProcessIdentity.own())
    with pytest.raises(FaceCaptionError, match=rf"1 run\(s\) are in progress \({run.run_id[:8]}\): nothing is deleted"):
        clean(littered, dry_run=False)
    assert store.sizes() == before
    clean(littered, dry_run=True)
    assert "would be deleted" in capsys.readouterr().out


def test_a_run_whose_process_has_ended_holds_nothing_up(littered: Settings, capsys: Captured) -> None:
    instance = Pipeline(littered).instance
    code = "from facecaption_ml.processes.tree import ProcessIdentity; print(ProcessIdentity.own())"
    ended_process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    run = started(instance, ended_process.strip())
    clean(littered, dry_run=False)
    assert "deleted" in capsys.readouterr().out
    ended = instance.get_run_by_id(run.run_id)
    assert ended
    assert ended.status == dg.DagsterRunStatus.FAILURE


def started(instance: dg.DagsterInstance, process: ProcessIdentity | str) -> dg.DagsterRun:
    """A run from the shell that is in progress in a process."""
    idle = dg.job(name="idle")(lambda: None)  # type: ignore[arg-type, var-annotated]
    return instance.create_run_for_job(idle, status=dg.DagsterRunStatus.STARTED, tags={PROCESS_TAG: str(process)})


def test_a_store_without_a_manifest_is_left_alone(littered: Settings) -> None:
    store = Store(littered.store_root)
    store.delete(store.table_key("source_manifest", NAMES[0]))
    before = store.sizes()
    assert_one_line(invoke("clean", home=littered.home), "source_manifest", "materialize source_manifest first")
    assert store.sizes() == before


def test_shards_that_left_the_source_take_part_in_nothing(settings: Settings) -> None:
    store, instance = Store(settings.store_root), Pipeline(settings).instance
    assert set(latest_metadata(instance, "raw_images")) == set(NAMES)
    assert DatasetWork.open(store, settings).shards == NAMES
    assert find_shard(store, face(1, 2)[:16], face(1, 2)) == NAMES[1]
    store.delete(store.table_key("source_manifest", NAMES[1]))
    instance.delete_dynamic_partition("shards", NAMES[1])
    assert set(latest_metadata(instance, "raw_images")) == {NAMES[0]}
    work = DatasetWork.open(store, settings)
    assert (work.shards, work.missing, work.rows) == ([NAMES[0]], [], 2)
    with pytest.raises(UnknownFaceError, match="no source row"):
        find_shard(store, face(1, 2)[:16], face(1, 2))
    assert set(latest_metadata(instance, "source_manifest")) == {""}
