from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecaption_ml.dataset.data_card import data_card, summary_json
from facecaption_ml.dataset.release import ReleaseError, release_table, require_one_form, split_of, write_release
from facecaption_ml.dataset.release_summary import ReleaseSummary
from facecaption_ml.dataset.removals import RemovalList
from facecaption_ml.dataset.sources import sample_id
from facecaption_ml.decoding import encode_jpeg
from facecaption_ml.errors import naming
from facecaption_ml.schemas import SCHEMAS
from facecaption_ml.storage.store import Store

PICTURE = encode_jpeg(np.full((17, 31, 3), 90, dtype=np.uint8))
URLS = [f"http://host{i % 5}.test/{i}.jpg" for i in range(200)]


def crops(urls: list[str]) -> pl.DataFrame:
    ids = [sample_id(url) for url in urls]
    return pl.DataFrame(
        {
            "face_id": [f"{i}_0" for i in ids],
            "sample_id": ids,
            "url": urls,
            "box": [[1.0, 2.0, 131.0, 142.0]] * len(urls),
            "alt_text": ["alt"] * len(urls),
        },
        schema_overrides={"box": pl.Array(pl.Float32, 4)},
    )


def captions(urls: list[str]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "face_id": [f"{sample_id(url)}_0" for url in urls],
            "caption": ["He is smiling."] * len(urls),
            "caption_source": ["llm"] * len(urls),
            "caption_model": ["chat1"] * len(urls),
            "prompt_version": ["2-abcd"] * len(urls),
            "attempts": [1] * len(urls),
            "template_caption": ["The man smiles."] * len(urls),
            "labels": [["Male", "Smiling"]] * len(urls),
            "label_probabilities": [[0.99, 0.9]] * len(urls),
        },
        schema_overrides={"attempts": pl.Int16, "label_probabilities": pl.List(pl.Float32)},
    )


def fill(
    store: Store, shard: str, urls: list[str], hashes: list[str], removed: RemovalList | None = None
) -> Counter[str]:
    raw = pl.DataFrame({"sample_id": [sample_id(url) for url in urls], "sha256": hashes}).with_columns(
        *(
            pl.lit(None, dtype=dtype).alias(name)
            for name, dtype in SCHEMAS["raw_images"].items()
            if name not in ("sample_id", "sha256")
        )
    )
    store.write_table("raw_images", raw, shard)
    sha256_of = dict(zip(raw["sample_id"], hashes, strict=True))
    frame, outcomes = release_table(crops(urls), captions(urls), sha256_of, removed or RemovalList(), 0.1, 0.1)
    store.write_table("facecaption_dataset", frame, shard)
    return outcomes


def card(summary: ReleaseSummary) -> dict[str, bytes]:
    funnel = {"URLs": 200, "released pairs": summary.faces}
    return {
        "README.md": data_card(summary, funnel, {"grammar": "1"}, pixels=False, label_rule="p > 0.85"),
        "summary.json": summary_json(summary, funnel),
    }


def hashes_of(urls: list[str]) -> list[str]:
    return [f"{i:064x}"[::-1] for i in range(len(urls))]


@given(st.text(min_size=1), st.floats(0, 0.4), st.floats(0, 0.4))
def test_a_split_follows_from_the_url_alone(url: str, validation: float, test: float) -> None:
    assert split_of(sample_id(url), validation, test) == split_of(sample_id(url), validation, test)
    if split_of(sample_id(url), validation, test) == "test":
        assert split_of(sample_id(url), 0, test) == "test"


def test_splits_have_their_shares() -> None:
    found = Counter(split_of(sample_id(f"http://a.test/{i}"), 0.05, 0.1) for i in range(20_000))
    assert found["validation"] / 20_000 == pytest.approx(0.05, abs=0.008)
    assert found["test"] / 20_000 == pytest.approx(0.1, abs=0.01)


def test_removals_are_left_out_and_counted() -> None:
    removed = RemovalList(urls=frozenset(URLS[:3]), face_ids=frozenset({f"{sample_id(URLS[9])}_0"}))
    frame, outcomes = release_table(crops(URLS), captions(URLS), {}, removed, 0.1, 0.1)
    assert outcomes == Counter(released=196, removed_url=3, removed_face=1)
    assert not set(frame["url"]) & {*URLS[:3], URLS[9]}


def test_the_release_opens_with_load_dataset_and_repeated_images_are_left_out(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    store = Store(str(tmp_path / "store"))
    hashes = hashes_of(URLS)
    hashes[150] = hashes[3]  # the same file behind another URL, in another shard
    fill(store, "shard-00000", URLS[:100], hashes[:100])
    fill(store, "shard-00001", URLS[100:], hashes[100:])
    summary = write_release(store, ["shard-00000", "shard-00001"], card)
    assert (summary.faces, summary.duplicate_faces) == (199, 1)
    loaded = datasets.load_dataset(str(tmp_path / "store" / "release"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(rows) for split, rows in loaded.items()} == dict(summary.by_split)
    row = loaded["train"][0]
    assert row["caption"] == "He is smiling."
    assert (row["caption_source"], row["caption_model"], row["prompt_version"]) == ("llm", "chat1", "2-abcd")
    assert row["attempts"] == 1
    assert dict(zip(row["labels"], row["label_probabilities"], strict=True)) == pytest.approx(
        {"Male": 0.99, "Smiling": 0.9}
    )
    assert row["box"] == [1.0, 2.0, 131.0, 142.0]
    assert "image" not in row
    urls = {split: set(rows["url"]) for split, rows in loaded.items()}
    assert not urls["train"] & urls["test"]
    assert URLS[150] not in set.union(*urls.values())
    text = (tmp_path / "store" / "release" / "README.md").read_text()
    assert "199 pairs" in text
    assert "$" not in text


def test_a_rebuild_leaves_nothing_of_what_was_removed(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    fill(store, "shard-00000", URLS, hashes_of(URLS))
    write_release(store, ["shard-00000"], card)
    tested = [url for url in URLS if split_of(sample_id(url), 0.1, 0.1) == "test"]
    assert fill(store, "shard-00000", URLS, hashes_of(URLS), RemovalList(urls=frozenset(tested)))["removed_url"] == len(
        tested
    )
    write_release(store, ["shard-00000"], card)
    assert not [key for key in store.keys("release/") if "test" in key]
    left = pl.concat([pl.read_parquet(store.uri(key)) for key in store.keys("release/data/")])
    assert not set(left["url"]) & set(tested)


def test_the_release_leaves_out_what_left_the_source_or_was_removed_though_the_shard_is_old(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    hashes = hashes_of(URLS)
    hashes[120] = hashes[5]  # its first copy leaves the source: then this one stays
    fill(store, "shard-00000", URLS[:100], hashes[:100])
    fill(store, "shard-00001", URLS[100:], hashes[100:])
    write_manifest(store, "shard-00000", URLS[:5] + URLS[10:100])
    write_manifest(store, "shard-00001", [*URLS[100:110], *["removed"] * 10, *URLS[120:]], ids=URLS[100:])
    removed = RemovalList(hosts=frozenset({"HOST3.test"}), sha256=frozenset({hashes[0]}))
    of_host = [url for url in URLS if "host3" in url and url not in (*URLS[5:10], *URLS[110:120])]
    summary = write_release(store, ["shard-00000", "shard-00001"], card, removed=removed)
    assert summary.left_out == Counter(left_source=4, removed_url=8, removed_hash=1, removed_host=len(of_host) + 3)
    assert summary.duplicate_faces == 0
    left = pl.concat([pl.read_parquet(store.uri(key)) for key in store.keys("release/data/")])
    assert set(left["url"]) == {*URLS[1:5], *URLS[10:110], *URLS[120:]} - set(of_host)
    assert summary.faces == len(left)
    assert f"and {summary.left_out.total()} because" in (tmp_path / "store" / "release" / "README.md").read_text()


def write_manifest(store: Store, shard: str, urls: list[str], ids: list[str] | None = None) -> None:
    rows = {"sample_id": [sample_id(url) for url in ids or urls], "url": urls, "shard": [shard] * len(urls)}
    columns = {name: rows.get(name, [None] * len(urls)) for name in SCHEMAS["source_manifest"]}
    store.write_table("source_manifest", pl.DataFrame(columns, dict(SCHEMAS["source_manifest"])), shard)


def test_released_pictures_load_as_pictures(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    store = Store(str(tmp_path / "store"))
    pixels = crops(URLS).with_columns(image=pl.Series([{"bytes": PICTURE, "path": "f.jpg"}] * len(URLS)))
    frame, _ = release_table(pixels, captions(URLS), {}, RemovalList(), 0.1, 0.1)
    fill(store, "shard-00000", URLS, hashes_of(URLS))
    store.write_table("facecaption_dataset", frame, "shard-00000")
    write_release(store, ["shard-00000"], card)
    folder = tmp_path / "store" / "release"
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    streamed = datasets.load_dataset(str(folder), split="train", streaming=True, cache_dir=str(tmp_path / "cache"))
    for row in (loaded["train"][0], next(iter(streamed))):
        assert row["image"].size == (31, 17)
        assert row["caption"] == "He is smiling."
    assert loaded["train"].features["image"] == datasets.Image()
    (file,) = (folder / "data").glob("train-*.parquet")
    assert pl.read_parquet(file)["image"][0]["bytes"] == PICTURE


def test_shards_with_and_without_pixels_are_not_mixed(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    fill(store, "shard-00000", URLS[:5], hashes_of(URLS[:5]))
    require_one_form(store, ["shard-00000"], wanted=False)
    with pytest.raises(ReleaseError, match=r"shard-00000 was made without pixels: rebuild facecaption_dataset of it"):
        require_one_form(store, ["shard-00000"], wanted=True)


def test_a_shard_of_an_earlier_version_is_named_with_what_it_lacks(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    fill(store, "shard-00000", URLS[:5], hashes_of(URLS[:5]))
    path = Path(store.uri("facecaption_dataset/shard-00000.parquet"))
    pl.read_parquet(path).drop("caption_source").write_parquet(path)
    with (
        naming("FACECAPTION_RELEASE_IMAGES"),
        pytest.raises(ReleaseError, match=r"^shard-00000 was made without the column 'caption_source': rebuild"),
    ):
        require_one_form(store, ["shard-00000"], wanted=False)


def test_the_card_of_an_empty_release_promises_nothing() -> None:
    text = data_card(
        ReleaseSummary(), {"URLs": 3, "released pairs": 0}, {}, pixels=False, label_rule="p > 0.85"
    ).decode()
    assert "data_files" not in text
    assert "No pair was made" in text
