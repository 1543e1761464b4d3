from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecaption_ml.dataset.sources import (
    ManifestCounts,
    SourceColumns,
    SourceError,
    build_shards,
    read_source,
    sample_id,
)
from facecaption_ml.storage.store import Store
from servers import s3_options

ROWS = {
    "URL": ["http://a.test/1.jpg", "http://a.test/2.jpg", None, "http://a.test/1.jpg", "http://a.test/3.jpg"],
    "TEXT": ["one", "two", "three", "four", None],
    "WIDTH": [10, 20, 30, 40, None],
    "HEIGHT": [11, 21, 31, 41, 51],
    "NSFW": ["UNLIKELY", "NSFW", "UNLIKELY", "UNSURE", None],
}


def write(path: Path, rows: dict[str, list[object]]) -> str:
    frame = pl.DataFrame(rows)
    match path.suffix:
        case ".parquet":
            frame.write_parquet(path)
        case ".csv":
            frame.write_csv(path)
        case ".tsv":
            frame.write_csv(path, separator="\t")
        case ".jsonl":
            frame.write_ndjson(path)
    return str(path)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv", ".jsonl"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    frame = pl.concat(read_source(write(tmp_path / f"list{suffix}", ROWS)))
    assert frame["url"].to_list() == ROWS["URL"]
    assert frame["alt_text"].to_list() == ROWS["TEXT"]
    assert frame["width"].to_list() == ROWS["WIDTH"]
    assert frame["nsfw"].to_list() == ROWS["NSFW"]


def test_columns_have_other_names_when_told(tmp_path: Path) -> None:
    path = write(tmp_path / "list.csv", {"link": ["http://a.test/x"], "words": ["hello"]})
    frame = pl.concat(read_source(path, SourceColumns(url="link", text="words")))
    assert frame.row(0)[:5] == ("http://a.test/x", "hello", None, None, None)


def test_odd_values_become_null_and_broken_lines_do_not_stop_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    lines = [{"URL": "http://a.test/1", "WIDTH": 5}, "{broken", {"URL": "http://a.test/2", "WIDTH": None}]
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    counts = ManifestCounts()
    shards = list(build_shards(read_source(str(path), counts=counts), 10, counts))
    assert shards[0]["url"].to_list() == ["http://a.test/1", "http://a.test/2"]
    assert counts.by_outcome == Counter(kept=2, malformed_json=1)
    csv = tmp_path / "list.csv"
    csv.write_text("URL,WIDTH\nhttp://a.test/1,wide\nhttp://a.test/2,7,superfluous\n")
    assert pl.concat(read_source(str(csv)))["width"].to_list() == [None, 7]


def test_nsfw_rows_stay_out_unless_allowed(tmp_path: Path) -> None:
    path = write(tmp_path / "list.parquet", ROWS)
    counts = ManifestCounts()
    shards = pl.concat(build_shards(read_source(path), 10, counts))
    assert shards["url"].to_list() == ["http://a.test/1.jpg", "http://a.test/1.jpg", "http://a.test/3.jpg"]
    assert shards["duplicate_url"].to_list() == [False, True, False]
    assert counts.by_outcome == Counter(kept=3, nsfw=1, no_url=1)
    assert counts.duplicates == 1
    assert len(pl.concat(build_shards(read_source(path), 10, ManifestCounts(), allow_nsfw=True))) == 4


@pytest.mark.parametrize(("flag", "stays"), [(True, False), (0.9, False), (0.1, True), (False, True)])
def test_nsfw_may_be_a_flag_or_a_probability(tmp_path: Path, flag: object, stays: bool) -> None:
    path = write(tmp_path / "list.parquet", {"URL": ["http://a.test/1"], "NSFW": [flag]})
    assert len(list(build_shards(read_source(path), 10, ManifestCounts()))) == stays


def test_a_folder_of_pictures_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.JPG", "a.png", "deep/c.webp", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    frame = pl.concat(read_source(str(tmp_path)))
    assert [Path(url).name for url in frame["url"]] == ["a.png", "b.JPG", "c.webp"]
    assert frame["url"][0].startswith("file:///")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: str(p / "absent.parquet"), "no such file"),
        (lambda p: write(p / "x.csv", {"link": ["a"]}), r"x\.csv: no column 'URL'.*link"),
        (lambda p: str(p), "no picture"),
        (lambda p: (p / "x.parquet").write_text("no parquet") and str(p / "x.parquet"), r"x\.parquet.*cannot be read"),
        (lambda p: (p / "x.doc").write_text("no table") and str(p / "x.doc"), r"x\.doc"),
        (lambda p: (p / "x.csv").write_text("") * 0 or str(p / "x.csv"), r"x\.csv"),
    ],
)
def test_an_unusable_source_is_named_in_one_line(tmp_path: Path, make, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SourceError, match=words) as caught:
        list(read_source(make(tmp_path)))
    assert "\n" not in str(caught.value)


def test_a_manifest_and_pictures_on_s3(tmp_path: Path, s3_server: dict[str, str]) -> None:
    options = s3_options(s3_server)
    bucket = Store("s3://data/source", options)
    bucket.write_bytes("lists/one.parquet", Path(write(tmp_path / "list.parquet", ROWS)).read_bytes())
    bucket.write_bytes("pictures/a.jpg", b"x")
    for location in ("s3://data/source/lists/one.parquet", "s3://data/source/lists"):
        assert pl.concat(read_source(location, None, options))["url"].to_list() == ROWS["URL"]
    assert pl.concat(read_source("s3://data/source/pictures", None, options))["url"].to_list() == [
        "s3://data/source/pictures/a.jpg"
    ]
    with pytest.raises(SourceError, match="no such object"):
        list(read_source("s3://data/nothing-here", None, options))


urls = st.lists(
    st.one_of(st.none(), st.just(""), st.sampled_from([f"http://h{i}.test/" for i in range(9)])), max_size=40
)


@given(urls, st.integers(1, 7), st.integers(1, 9))
def test_rows_in_are_rows_out_whatever_the_batches(rows: list[str | None], shard_size: int, batch: int) -> None:
    frame = pl.DataFrame(
        {
            "url": pl.Series(rows, dtype=pl.String),
            "alt_text": pl.Series([str(i) for i in range(len(rows))], dtype=pl.String),
            "width": pl.Series([1] * len(rows), dtype=pl.Int32),
            "height": pl.Series([1] * len(rows), dtype=pl.Int32),
            "nsfw": pl.Series([None] * len(rows), dtype=pl.String),
        }
    )
    counts = ManifestCounts()
    batches = (frame.slice(start, batch) for start in range(0, len(rows), batch))
    shards = list(build_shards(batches, shard_size, counts))
    good = [url for url in rows if url]
    assert [url for shard in shards for url in shard["url"]] == good
    assert counts.rows == len(rows)
    assert [len(shard) for shard in shards[:-1]] == [shard_size] * (len(shards) - 1)
    assert [shard["shard"][0] for shard in shards] == [f"shard-{i:05d}" for i in range(len(shards))]
    seen: set[str] = set()
    expected = [url in seen or seen.add(url) is not None for url in good]
    assert [flag for shard in shards for flag in shard["duplicate_url"]] == expected
    assert all(i == sample_id(url) for shard in shards for i, url in shard.select("sample_id", "url").iter_rows())
