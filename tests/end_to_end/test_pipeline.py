"""What the whole pipeline makes of the sample world, against what is known to be true of that world."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from facecaption_ml.captions import check_faithful
from facecaption_ml.decoding import decode_image
from facecaption_ml.sample.world import SampleWorld
from facecaption_ml.storage.store import Store

SHARDS = [f"shard-{i:05d}" for i in range(3)]


def everything(store: Store, table: str) -> pl.DataFrame:
    return pl.concat([store.read_table(table, shard) for shard in SHARDS])


def test_captions_are_rewritten_faithfully_or_kept_with_the_reason(store: Store) -> None:
    template = everything(store, "template_captions")
    final = everything(store, "llm_captions").join(template, on="face_id", how="inner")
    assert len(final) == len(template)
    for row in final.iter_rows(named=True):
        assert check_faithful(row["caption"], row["labels"], row["gender"]).faithful, row["caption"]
        assert (row["caption_source"] == "llm") == (row["reason"] is None)
        assert (row["caption_source"] == "llm") == (row["caption"] != row["template_caption"])
    assert (final["caption_source"] == "llm").sum() >= 5
    assert final["model"].str.starts_with("SmolLM2-135M-Instruct").all()
    released = everything(store, "facecaption_dataset")
    rewritten = dict(final.select("face_id", "caption").iter_rows())
    assert all(caption == rewritten[face_id] for face_id, caption in released.select("face_id", "caption").iter_rows())


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inside = max(width, 0) * max(height, 0)
    return inside / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inside)


def test_every_source_row_ends_as_a_row_with_a_status(store: Store) -> None:
    manifest, raw = everything(store, "source_manifest"), everything(store, "raw_images")
    assert raw["sample_id"].to_list() == manifest["sample_id"].to_list()
    assert raw.filter(pl.col("status") != "ok")["error"].null_count() == 0
    assert (raw["status"] == "ok").mean() > 0.75
    assert raw["status"].n_unique() > 3


def test_most_big_faces_of_fetched_scenes_become_crops(store: Store) -> None:
    truth = SampleWorld(seed=0, scenes=48).truth()
    fetched = set(everything(store, "raw_images").filter(pl.col("status") == "ok")["url"])
    crops = everything(store, "face_crops")
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


def test_crops_keep_their_native_resolution_and_the_rules(store: Store) -> None:
    for row in everything(store, "face_crops").iter_rows(named=True):
        x0, y0, x1, y1 = row["box"]
        assert row["score"] > 0.98
        assert min(x1 - x0, y1 - y0) > 128
        assert row["width"] == pytest.approx(1.6 * (x1 - x0), abs=2)
        assert row["height"] == pytest.approx(1.6 * (y1 - y0), abs=2)
        assert decode_image(row["image"]["bytes"]).shape == (row["height"], row["width"], 3)
        assert row["face_id"].startswith(row["sample_id"])


def test_captions_say_what_the_labels_say(store: Store) -> None:
    captions = everything(store, "template_captions")
    assert len(captions) > 10
    for text, labels, gender in captions.select("template_caption", "labels", "gender").iter_rows():
        assert check_faithful(text, labels, gender).faithful, text
    assert captions["template_caption"].n_unique() > 0.9 * len(captions)


def test_the_release_opens_and_holds_no_pixels(finished: Path, store: Store) -> None:
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset(str(finished / "store" / "release"), cache_dir=str(finished / "cache"))
    rows = sum(len(split) for split in loaded.values())
    assert rows == len(everything(store, "facecaption_dataset"))
    assert "image" not in loaded["train"].column_names
    card = (finished / "store" / "release" / "README.md").read_text()
    assert f"{rows:,} pairs" in card
    for figure in ("funnel", "dataset_comparison", "image_quality", "text_statistics"):
        assert (finished / "store" / "release" / "figures" / f"{figure}.png").stat().st_size > 1000


def test_running_again_fetches_only_what_may_have_passed_and_changes_nothing_else(
    finished: Path, tmp_path: Path, facecaption
) -> None:  # type: ignore[no-untyped-def]
    home = tmp_path / "again"
    shutil.copytree(finished, home)
    before = everything(Store(str(home / "store")), "raw_images")
    assert facecaption.run(home, "run", "--skip-source", **facecaption.rewriting).returncode == 0
    after = everything(Store(str(home / "store")), "raw_images")
    passing = {"dns_error", "timeout", "http_server_error", "connect_error", "truncated", "rate_limited", "read_error"}
    settled = ~before["status"].is_in(passing | {"duplicate_image"})
    assert settled.sum() > 30
    assert before.filter(settled).equals(after.filter(settled))
    for table in ("face_crops", "face_attributes", "template_captions", "llm_captions", "facecaption_dataset"):
        first, second = (everything(Store(str(folder / "store")), table) for folder in (finished, home))
        ids = sorted(set(first["face_id"]) & set(second["face_id"]))
        assert len(ids) >= 0.9 * len(first)
        kept = [frame.filter(pl.col("face_id").is_in(ids)).sort("face_id") for frame in (first, second)]
        for column in first.columns:
            if first.schema[column] == pl.Float32:  # batches differ: arithmetic may, in the last digits
                assert np.allclose(kept[0][column], kept[1][column], atol=2e-3)
            elif column not in ("box", "landmarks", "image"):
                assert kept[0][column].equals(kept[1][column]), (table, column)


def test_one_shard_alone_gives_the_rows_that_a_range_gave(store: Store, tmp_path: Path, facecaption) -> None:  # type: ignore[no-untyped-def]
    done = facecaption.run(tmp_path, "run", "--first", SHARDS[1])
    assert done.returncode == 0, done.stderr
    alone = Store(str(tmp_path / "store"))
    assert alone.shards("template_captions") == [SHARDS[1]]
    columns = ["face_id", "template_caption", "labels", "gender"]
    assert alone.read_table("template_captions", SHARDS[1], columns=columns).equals(
        store.read_table("template_captions", SHARDS[1], columns=columns)
    )


def test_a_removal_request_reaches_the_release(finished: Path, tmp_path: Path, facecaption) -> None:  # type: ignore[no-untyped-def]
    home = tmp_path / "removed"
    shutil.copytree(finished, home)
    url = everything(Store(str(home / "store")), "facecaption_dataset")["url"][0]
    (tmp_path / "removals.txt").write_text(f"{url}\n")
    done = facecaption.run(home, "run", "--skip-source", FACECAPTION_REMOVAL_LIST=str(tmp_path / "removals.txt"))
    assert done.returncode == 0, done.stderr
    left = Store(str(home / "store"))
    for table in ("raw_images", "facecaption_dataset"):
        rows = everything(left, table).filter(pl.col("url") == url)
        assert rows.is_empty() if table == "facecaption_dataset" else rows["status"].to_list() == ["denied"]
    packed = pl.concat([pl.read_parquet(left.uri(key)) for key in left.keys("release/data/")])
    assert url not in set(packed["url"])


def test_a_process_killed_in_the_middle_is_completed_by_the_next_run(tmp_path: Path, facecaption) -> None:  # type: ignore[no-untyped-def]
    process = subprocess.Popen(
        facecaption.words("run"),
        cwd=facecaption.folder,
        env=facecaption.environment(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    for line in process.stderr:
        if line.startswith("raw_images shard-00000"):
            break
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    store = Store(str(tmp_path / "store"))
    for shard in store.shards("raw_images"):
        assert len(store.read_table("raw_images", shard)) == 16
    done = facecaption.run(tmp_path, "run")
    assert done.returncode == 0, done.stderr
    assert store.shards("facecaption_dataset") == SHARDS
    assert not [path for path in (tmp_path / "store").rglob("*.tmp") if time.time() - path.stat().st_mtime > 3600]


def test_a_dead_network_is_not_taken_for_a_finished_shard(tmp_path: Path, facecaption) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "list.csv").write_text("URL\n" + "".join(f"http://host{i}.invalid/x.jpg\n" for i in range(6)))
    done = facecaption.run(
        tmp_path / "home",
        "--profile",
        "photos",
        "run",
        FACECAPTION_SOURCE=str(tmp_path / "list.csv"),
        FACECAPTION_RETRIES="0",
    )
    assert done.returncode == 1
    assert "0.0% of the images arrived" in done.stderr
    assert "FACECAPTION_SUCCESS_FLOOR" in done.stderr.strip().splitlines()[-1]
    store = Store(str(tmp_path / "home" / "store"))
    assert store.shards("raw_images") == []
    assert len(store.read_table("raw_images", SHARDS[0], incomplete=True)) == 6


def test_status_shows_the_funnel(finished: Path, facecaption) -> None:  # type: ignore[no-untyped-def]
    done = facecaption.run(finished, "status")
    assert done.returncode == 0
    assert "URLs" in done.stdout
    assert "3 of 3" in done.stdout
    done = facecaption.run(finished, "status", "--shard", "shard-00077")
    assert done.returncode == 1
    assert "no shard 'shard-00077'" in done.stderr
