"""Folders: pictures, tables, both, and what lies between them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import unquote_to_bytes

import polars as pl
import pytest
from PIL import Image

from facecaption_ml.dataset.manifests import list_manifests, stat_manifest
from facecaption_ml.dataset.sources import (
    PICTURE_SUFFIXES,
    ManifestCounts,
    SourceError,
    SourceKindError,
    SourceRules,
    names_pictures,
    read_source,
)
from facecaption_ml.images import DownloadContext, DownloadPolicy, fetch_raw_images
from facecaption_ml.storage.store import Store
from servers import s3_options


def put(path: Path, text: str | bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(path: Path, **more: object) -> tuple[list[tuple[str, str | None]], ManifestCounts]:
    """Path from ``path`` and alt text of every picture, and the counts, which add up."""
    counts = ManifestCounts()
    frames = list(read_source(str(path), counts=counts, **more))  # type: ignore[arg-type]
    rows = [row for frame in frames for row in frame.select("url", "alt_text").iter_rows()]
    assert counts.records == len(rows) + sum(counts.dropped.values())
    prefix = f"{path.resolve() if path.is_dir() else path.parent.resolve()}/"
    return [(url.removeprefix("file://").removeprefix(prefix), text) for url, text in rows], counts


def test_a_list_in_the_hub_cache_is_judged_by_the_name_that_leads_to_it(tmp_path: Path) -> None:
    blob = put(tmp_path / "blobs" / "9f86d081", "URL,TEXT\nhttp://a.test/1,one\n")
    link = tmp_path / "snapshots" / "0abc" / "part-00000.csv"
    link.parent.mkdir(parents=True)
    link.symlink_to(os.path.relpath(blob, link.parent))
    for source in (link, link.parent, tmp_path / "snapshots"):
        assert read(source)[0] == [("http://a.test/1", "one")]
    assert stat_manifest(str(link)).location == str(link)
    assert [manifest.location for manifest in list_manifests(str(link.parent))] == [str(link)]


def test_links_of_the_folder_are_followed_and_circles_end(tmp_path: Path) -> None:
    album = tmp_path / "album"
    put(tmp_path / "blobs" / "aa11")
    put(tmp_path / "outside" / "deep" / "far.png")
    put(album / "a.jpg")
    (album / "annexed.jpg").symlink_to(tmp_path / "blobs" / "aa11")
    (album / "more").symlink_to(tmp_path / "outside")
    (album / "again").symlink_to(tmp_path / "outside" / "deep")
    (album / "self").symlink_to(album)
    (tmp_path / "outside" / "back").symlink_to(album)
    (album / "circle.jpg").symlink_to("circle.jpg")
    (album / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(album / "pipe.jpg")
    rows, counts = read(album)
    assert rows == [("a.jpg", None), ("again/far.png", None), ("annexed.jpg", None)]
    assert counts.passed_over == {"link that leads nowhere": 2, "pipe, socket or device": 1}


def test_what_is_hidden_unfinished_or_of_another_kind_is_passed_over_and_counted(tmp_path: Path) -> None:
    for name in (
        *("a.jpg", "_MG_1.JPG", "._a.jpg", ".thumbs/t.jpg", "__MACOSX/b.jpg", "_temporary/0/c.jpg"),
        *("notes.txt", "Thumbs.db", "clip.mp4", "README", "d.jpg.part", "_SUCCESS"),
        *("@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "$RECYCLE.BIN/e.jpg", "deep/lost+found/f.jpg"),
    ):
        put(tmp_path / name)
    rows, counts = read(tmp_path)
    assert rows == [("_MG_1.JPG", None), ("a.jpg", None)]
    assert counts.passed_over == {
        "hidden": 2,
        "unfinished": 3,
        "system folder": 3,
        ".txt": 1,
        ".db": 1,
        ".mp4": 1,
        "no suffix": 1,
        "marker": 1,
    }
    assert counts.passed_over_examples["hidden"] == ["._a.jpg", ".thumbs/t.jpg"]
    assert "files passed over: 3 system folder, 3 unfinished, 2 hidden" in counts.lines()[-1]


def test_a_folder_that_may_not_be_read_is_named_or_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.jpg", "lost+found/b.jpg", ".Trash-0/c.jpg", "private/d.jpg"):
        put(tmp_path / name)
    closed = {"lost+found", ".Trash-0"}
    scandir = os.scandir

    def guarded(folder: str) -> object:
        if Path(folder).name in closed:
            raise PermissionError(13, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    rows, counts = read(tmp_path)
    assert [name for name, _ in rows] == ["a.jpg", "private/d.jpg"]
    assert counts.passed_over == {"folder without permission": 2}
    closed.add("private")
    with pytest.raises(SourceError, match="/private: Permission denied"):
        read(tmp_path)


def test_a_folder_that_spark_wrote(tmp_path: Path) -> None:
    put(tmp_path / "part-0.csv", "URL\nhttp://a.test/0\n")
    put(tmp_path / "part-1.csv", "")
    put(tmp_path / ".part-0.csv.crc")
    put(tmp_path / "_SUCCESS", "")
    put(tmp_path / "_temporary" / "part-2.csv", "URL\nhttp://a.test/2\n")
    rows, counts = read(tmp_path)
    assert [url for url, _ in rows] == ["http://a.test/0"]
    assert counts.passed_over == {"empty table": 1, "hidden": 1, "marker": 1, "unfinished": 1}


@pytest.mark.parametrize("suffix", PICTURE_SUFFIXES)
def test_every_name_of_the_formats_that_are_decoded_is_a_picture(tmp_path: Path, suffix: str) -> None:
    kinds = {".png": "PNG", ".apng": "PNG", ".webp": "WEBP", ".gif": "GIF", ".mpo": "MPO"}
    Image.new("RGB", (8, 6), "red").save(tmp_path / f"p{suffix}", kinds.get(suffix, "JPEG"))
    rows, _ = fetched(tmp_path, tmp_path)
    assert rows == ["ok"]


def fetched(source: Path, allowed: Path) -> tuple[list[str], pl.DataFrame]:
    """The statuses of the source's rows, and the table."""
    from facecaption_ml.dataset.sources import build_shards

    counts = ManifestCounts()
    (manifest,) = build_shards(read_source(str(source), counts=counts), 1000, counts)
    raw = fetch_raw_images(manifest, DownloadPolicy(), DownloadContext(allow_files_under=allowed.resolve()))
    return raw["status"].to_list(), raw


def picture(path: Path, colour: object = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 7), colour).save(path, "PNG")  # type: ignore[arg-type]
    return path


def test_names_are_bytes(tmp_path: Path) -> None:
    names = [
        b"caf\xe9.png",
        b"a#b.png",
        b"a?b.png",
        b"100%.png",
        b"%41.png",
        b"new\nline.png",
        b" blank .png",
        "日本.png".encode(),
    ]
    for number, name in enumerate(names):
        picture(Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)), (number, 0, 0))
    rows, _ = read(tmp_path)
    assert sorted(unquote_to_bytes(url) for url, _ in rows) == sorted(names)
    statuses, _ = fetched(tmp_path, tmp_path)
    assert statuses == ["ok"] * len(names)
    table = Path(os.fsdecode(os.fsencode(tmp_path) + b"/tables/l\xefste.csv"))
    put(table, "URL\n\nhttp://a.test/\n,\n")
    counts = ManifestCounts()
    assert sum(map(len, read_source(str(table), counts=counts))) == 2
    assert "\n".join(counts.lines()).encode().decode() == "\n".join(counts.lines())


def test_pictures_that_a_link_of_the_folder_leads_to_are_read_and_other_files_are_not(tmp_path: Path) -> None:
    album, outside = tmp_path / "album", tmp_path / "outside"
    picture(outside / "far.png")
    picture(outside / "other.png", "blue")
    album.mkdir()
    (album / "link.png").symlink_to(outside / "far.png")
    statuses, raw = fetched(album, album)
    assert statuses == ["ok"]
    row = raw.row(0, named=True)["url"]
    listed = put(
        tmp_path / "list.csv", f"URL\n{row}\n{(outside / 'other.png').as_uri()}\nfile://{album}/../outside/other.png\n"
    )
    assert fetched(listed, album)[0] == ["ok", "refused_address", "refused_address"]


# -- pictures and tables ---------------------------------------------------------------------------------------------------


def album(folder: Path) -> Path:
    for name in ("a.jpg", "b.jpg", "deep/c.jpg"):
        put(folder / name)
    return folder


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet", "captions.tsv"])
def test_a_table_that_names_its_pictures_gives_their_texts(tmp_path: Path, name: str) -> None:
    album(tmp_path)
    columns = {
        "file_name": ["a.jpg", "deep/c.jpg", "gone.jpg", "../x.jpg", "/etc/a.jpg"],
        "text": ["one", "three", "four", "five", "six"],
        "url": ["http://a.test/"] * 5,
    }
    frame = pl.DataFrame(columns)
    {
        "csv": frame.write_csv,
        "tsv": lambda path: frame.write_csv(path, separator="\t"),
        "jsonl": frame.write_ndjson,
        "parquet": frame.write_parquet,
    }[name.rpartition(".")[2]](tmp_path / name)
    rows, counts = read(tmp_path)
    assert rows == [("a.jpg", "one"), ("deep/c.jpg", "three")]
    assert counts.by_outcome == {"missing_file": 1, "file_outside": 2}
    assert counts.passed_over_examples["picture that no table names"] == ["b.jpg"]


def test_stray_quotes_do_not_join_rows_that_name_pictures(tmp_path: Path) -> None:
    album(tmp_path)
    put(tmp_path / "metadata.csv", 'file_name,text\na.jpg,"hello\nb.jpg,"x, y"\ndeep/c.jpg,bye"\n')
    assert read(tmp_path)[0] == [("a.jpg", '"hello'), ("b.jpg", "x, y"), ("deep/c.jpg", 'bye"')]
    put(tmp_path / "metadata.csv", 'file_name,text\na.jpg,"hello\nb.jpg,x\ndeep/c.jpg,bye"\n')
    assert read(tmp_path)[0] == [("a.jpg", '"hello'), ("b.jpg", "x"), ("deep/c.jpg", 'bye"')]


def test_a_table_that_names_pictures_may_be_the_source_itself_and_lies_beside_them(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "a.png")
    table = put(tmp_path / "train" / "metadata.jsonl", json.dumps({"file_name": "a.png", "text": "one"}) + "\n")
    assert read(table)[0] == [("a.png", "one")]
    assert read(tmp_path)[0] == [("train/a.png", "one")]
    assert names_pictures(str(table))
    assert not names_pictures(str(put(tmp_path / "list.csv", "URL,file_name\nhttp://a.test/,a.png\n")))
    with pytest.raises(SourceError, match="no column 'URL'"):
        list(read_source(str(table), pictures=False))


def test_tables_of_urls_among_pictures_need_a_word_on_which_are_meant(tmp_path: Path) -> None:
    put(album(tmp_path) / "licences.csv", "URL\nhttps://example.org/terms\n")
    with pytest.raises(SourceKindError, match=r"3 pictures and 1 tables lie together, and licences\.csv does not name"):
        read(tmp_path)
    rows, counts = read(tmp_path, rules=SourceRules(kind="pictures"))
    assert [name for name, _ in rows] == ["a.jpg", "b.jpg", "deep/c.jpg"]
    assert counts.passed_over == {"table": 1}
    rows, counts = read(tmp_path, rules=SourceRules(kind="tables"))
    assert [name for name, _ in rows] == ["https://example.org/terms"]
    assert counts.passed_over == {"picture": 3}
    put(tmp_path / "metadata.csv", "file_name,text\na.jpg,one\n")
    with pytest.raises(SourceKindError):
        read(tmp_path)
    rows, counts = read(tmp_path, rules=SourceRules(kind="pictures"))
    assert rows == [("a.jpg", "one")]
    assert counts.passed_over == {"table": 1, "picture that no table names": 2}


def test_lists_of_one_url_a_line(tmp_path: Path) -> None:
    for name in ("1.txt", "2.txt"):
        put(tmp_path / name, f"http://a.test/{name}\r\n\r\nhttp://b.test/{name}")
    rows, _ = read(tmp_path)
    assert [url for url, _ in rows] == [f"http://{host}.test/{name}" for name in ("1.txt", "2.txt") for host in "ab"]
    put(tmp_path / "list.csv", "URL\nhttp://c.test/\n")
    rows, counts = read(tmp_path)
    assert [url for url, _ in rows] == ["http://c.test/"]
    assert counts.passed_over == {".txt": 2}


@pytest.mark.parametrize("location", ["gs://bucket/x", "https://a.test/list.csv", "hf://datasets/x"])
def test_other_schemes_are_named(location: str) -> None:
    with pytest.raises(SourceError, match="is not read; give a file, a folder or s3://"):
        list(read_source(location))


def test_pictures_with_a_table_on_s3(s3_server: dict[str, str]) -> None:
    options = s3_options(s3_server)
    bucket = Store("S3://data/album", options)
    assert bucket.root == "s3://data/album"
    bucket.write_bytes("metadata.csv", b"file_name,text\na#b.jpg,one\ngone.jpg,two\n")
    for name in ("a#b.jpg", "c.jpg", "_temporary/d.jpg"):
        bucket.write_bytes(name, b"x")
    counts = ManifestCounts()
    rows = pl.concat(read_source("S3://data/album/", None, options, counts=counts))
    assert rows.select("url", "alt_text").rows() == [("s3://data/album/a#b.jpg", "one")]
    assert counts.by_outcome == {"missing_file": 1}
    assert counts.passed_over == {"unfinished": 1, "picture that no table names": 1}
    assert counts.records == 2
