"""The pipeline when something is different: a chat model, a second run, one shard, a removal, a kill, a dead network."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from facecaption_ml.captions import check_faithful
from facecaption_ml.storage.store import Store

pytestmark = pytest.mark.slow


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
    process.kill()
    process.wait()
    process.stderr.close()
    store = Store(str(tmp_path / "store"))
    for shard in store.shards("raw_images"):
        assert len(store.read_table("raw_images", shard)) == facecaption.scenes // len(facecaption.shards)
    done = facecaption.run(tmp_path, "run")
    assert done.returncode == 0, done.stderr
    assert store.shards("facecaption_dataset") == facecaption.shards
    assert not [path for path in (tmp_path / "store").rglob("*.tmp") if time.time() - path.stat().st_mtime > 3600]


def test_a_dead_network_is_not_taken_for_a_finished_shard(tmp_path: Path, facecaption) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "list.csv").write_text("URL\n" + "".join(f"http://host{i}.invalid/x.jpg\n" for i in range(6)))
    given = {"FACECAPTION_SOURCE": str(tmp_path / "list.csv"), "FACECAPTION_RETRIES": "0"}
    done = facecaption.run(tmp_path / "home", "--profile", "photos", "run", **given)
    assert done.returncode == 1
    assert "0.0% of the images arrived" in done.stderr
    assert "FACECAPTION_SUCCESS_FLOOR" in done.stderr.strip().splitlines()[-1]
    store = Store(str(tmp_path / "home" / "store"))
    assert store.shards("raw_images") == []
    assert len(store.read_table("raw_images", facecaption.shards[0], incomplete=True)) == 6


def test_one_shard_alone_gives_the_rows_that_a_range_gave(tmp_path: Path, facecaption, request) -> None:  # type: ignore[no-untyped-def]
    shard = facecaption.shards[1]
    done = facecaption.run(tmp_path, "run", "--first", shard)
    assert done.returncode == 0, done.stderr
    alone = Store(str(tmp_path / "store"))
    assert alone.shards("template_captions") == [shard]
    columns = ["face_id", "template_caption", "labels", "gender"]
    # Asked for at last: another worker may be at it meanwhile.
    ranged = Store(str(request.getfixturevalue("finished") / "store"))
    assert alone.read_table("template_captions", shard, columns=columns).equals(
        ranged.read_table("template_captions", shard, columns=columns)
    )


def test_a_removal_request_reaches_the_release(home: Path, tmp_path: Path, facecaption) -> None:  # type: ignore[no-untyped-def]
    url = facecaption.everything(home, "facecaption_dataset")["url"][0]
    (tmp_path / "removals.txt").write_text(f"{url}\n")
    done = facecaption.run(home, "run", "--skip-source", FACECAPTION_REMOVAL_LIST=str(tmp_path / "removals.txt"))
    assert done.returncode == 0, done.stderr
    assert facecaption.everything(home, "facecaption_dataset").filter(pl.col("url") == url).is_empty()
    assert facecaption.everything(home, "raw_images").filter(pl.col("url") == url)["status"].to_list() == ["denied"]
    left = Store(str(home / "store"))
    packed = pl.concat([pl.read_parquet(left.uri(key)) for key in left.keys("release/data/")])
    assert url not in set(packed["url"])


def test_captions_are_rewritten_faithfully_or_kept_with_the_reason(rewritten: Path, facecaption) -> None:  # type: ignore[no-untyped-def]
    template = facecaption.everything(rewritten, "template_captions")
    final = facecaption.everything(rewritten, "llm_captions").join(template, on="face_id", how="inner")
    assert len(final) == len(template)
    for row in final.iter_rows(named=True):
        assert check_faithful(row["caption"], row["labels"], row["gender"]).faithful, row["caption"]
        assert (row["caption_source"] == "llm") == (row["reason"] is None)
        assert (row["caption_source"] == "llm") == (row["caption"] != row["template_caption"])
    assert (final["caption_source"] == "llm").sum() >= 5
    assert final["model"].str.starts_with("SmolLM2-135M-Instruct").all()
    released = facecaption.everything(rewritten, "facecaption_dataset")
    captions = dict(final.select("face_id", "caption").iter_rows())
    assert all(caption == captions[face_id] for face_id, caption in released.select("face_id", "caption").iter_rows())


def test_running_again_fetches_only_what_may_have_passed_and_changes_nothing_else(
    rewritten: Path, tmp_path: Path, facecaption
) -> None:  # type: ignore[no-untyped-def]
    home = shutil.copytree(rewritten, tmp_path / "again")
    before = facecaption.everything(home, "raw_images")
    assert facecaption.run(home, "run", "--skip-source", **facecaption.rewriting).returncode == 0
    after = facecaption.everything(home, "raw_images")
    passing = {"dns_error", "timeout", "http_server_error", "connect_error", "truncated", "rate_limited", "read_error"}
    settled = ~before["status"].is_in(passing | {"duplicate_image"})
    assert settled.sum() > 0.8 * facecaption.scenes
    assert before.filter(settled).equals(after.filter(settled))
    for table in ("face_crops", "face_attributes", "template_captions", "llm_captions", "facecaption_dataset"):
        first, second = (facecaption.everything(folder, table) for folder in (rewritten, home))
        ids = sorted(set(first["face_id"]) & set(second["face_id"]))
        assert len(ids) >= 0.9 * len(first)
        kept = [frame.filter(pl.col("face_id").is_in(ids)).sort("face_id") for frame in (first, second)]
        for column in first.columns:
            if first.schema[column] == pl.Float32:  # batches differ: arithmetic may, in the last digits
                assert np.allclose(kept[0][column], kept[1][column], atol=2e-3)
            elif column not in ("box", "landmarks", "image"):
                assert kept[0][column].equals(kept[1][column]), (table, column)
