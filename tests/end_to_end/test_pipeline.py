"""What the whole pipeline makes of the sample world, against what is known to be true of that world."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from facecaption_ml.captions import check_faithful
from facecaption_ml.decoding import decode_image
from facecaption_ml.sample.world import SampleWorld
from facecaption_ml.storage.store import Store

TABLES = ("raw_images", "face_crops", "face_attributes", "template_captions", "llm_captions", "facecaption_dataset")


def test_every_source_row_ends_as_a_row_with_a_status(finished: Path, facecaption) -> None:  # type: ignore[no-untyped-def]
    manifest, raw = (facecaption.everything(finished, table) for table in ("source_manifest", "raw_images"))
    assert raw["sample_id"].to_list() == manifest["sample_id"].to_list()
    assert raw.filter(pl.col("status") != "ok")["error"].null_count() == 0
    assert (raw["status"] == "ok").mean() > 0.75
    assert raw["status"].n_unique() > 3


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inside = max(width, 0) * max(height, 0)
    return inside / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inside)


def test_most_big_faces_of_fetched_scenes_become_crops(finished: Path, facecaption) -> None:  # type: ignore[no-untyped-def]
    truth = SampleWorld(seed=0, scenes=facecaption.scenes).truth()
    fetched = set(facecaption.everything(finished, "raw_images").filter(pl.col("status") == "ok")["url"])
    crops = facecaption.everything(finished, "face_crops")
    found = missed = 0
    for url in sorted(fetched):
        boxes = [row["box"] for row in crops.filter(pl.col("url") == url).iter_rows(named=True)]
        for face in truth.get(url, ()):
            x0, y0, x1, y1 = face.box
            if min(x1 - x0, y1 - y0) > 150 and "Blurry" not in face.labels:
                hit = any(overlap(tuple(box), tuple(face.box)) > 0.5 for box in boxes)
                found, missed = found + hit, missed + (not hit)
    assert found > 10
    assert found / (found + missed) > 0.8


def test_crops_keep_their_native_resolution_and_the_rules(finished: Path, facecaption) -> None:  # type: ignore[no-untyped-def]
    for row in facecaption.everything(finished, "face_crops").iter_rows(named=True):
        x0, y0, x1, y1 = row["box"]
        assert row["score"] > 0.98
        assert min(x1 - x0, y1 - y0) > 128
        assert row["width"] == pytest.approx(1.6 * (x1 - x0), abs=2)
        assert row["height"] == pytest.approx(1.6 * (y1 - y0), abs=2)
        assert decode_image(row["image"]["bytes"]).shape == (row["height"], row["width"], 3)
        assert row["face_id"].startswith(row["sample_id"])


def test_captions_say_what_the_labels_say(finished: Path, facecaption) -> None:  # type: ignore[no-untyped-def]
    captions = facecaption.everything(finished, "template_captions")
    assert len(captions) > 10
    for text, labels, gender in captions.select("template_caption", "labels", "gender").iter_rows():
        assert check_faithful(text, labels, gender).faithful, text
    assert captions["template_caption"].n_unique() > 0.9 * len(captions)


def test_the_release_opens_and_holds_no_pixels(finished: Path, tmp_path: Path, facecaption) -> None:  # type: ignore[no-untyped-def]
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(finished / "store" / "release"), cache_dir=str(tmp_path))
    rows = sum(len(split) for split in loaded.values())
    assert rows == len(facecaption.everything(finished, "facecaption_dataset"))
    assert "image" not in loaded["train"].column_names
    card = (finished / "store" / "release" / "README.md").read_text()
    assert f"{rows:,} pairs" in card
    for figure in ("funnel", "dataset_comparison", "image_quality", "text_statistics"):
        assert (finished / "store" / "release" / "figures" / f"{figure}.png").stat().st_size > 1000


def test_every_shard_is_recorded_and_every_check_has_passed(home: Path, facecaption) -> None:  # type: ignore[no-untyped-def]
    instance = dg.DagsterInstance.from_config(str(home / "dagster"))
    for table in TABLES:
        assert instance.get_materialized_partitions(dg.AssetKey(table)) == set(facecaption.shards), table
    checks = [
        entry.get_dagster_event().asset_check_evaluation_data
        for run in instance.get_runs()
        for entry in instance.all_logs(run.run_id, of_type={dg.DagsterEventType.ASSET_CHECK_EVALUATION})
    ]
    failed = {check.check_name for check in checks if not check.passed}
    assert failed == {"complete"}  # a warning: there is no model that scores pictures
    conserved = {(c.asset_key.to_user_string(), c.partition) for c in checks if c.check_name.endswith("s_conserved")}
    assert {(table, shard) for table in TABLES for shard in facecaption.shards} <= conserved


def test_a_released_face_is_traced_back_to_its_url(home: Path, facecaption) -> None:  # type: ignore[no-untyped-def]
    face = facecaption.everything(home, "facecaption_dataset").row(0, named=True)
    done = facecaption.run(home, "trace", face["face_id"], "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    stages = {stage["asset"]: stage for stage in record["stages"]}
    assert record["outcome"] == "released"
    assert set(stages) == {*TABLES, "source_manifest"}
    assert all(stage["materialized"] for stage in stages.values())
    assert stages["source_manifest"]["facts"]["url"] == face["url"]


def test_status_shows_the_funnel(home: Path, facecaption) -> None:  # type: ignore[no-untyped-def]
    done = facecaption.run(home, "status")
    assert done.returncode == 0
    assert "URLs" in done.stdout
    assert "3 of 3" in done.stdout
    done = facecaption.run(home, "status", "--shard", "shard-00077")
    assert done.returncode == 1
    assert "no shard 'shard-00077'" in done.stderr
    assert Store(str(home / "store")).shards("facecaption_dataset") == facecaption.shards
