from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecaption_ml.dataset.ingest import ingest
from facecaption_ml.dataset.options import ShardRules
from facecaption_ml.dataset.removals import RemovalList, RemovalListError
from facecaption_ml.dataset.sources import read_source, sample_id
from facecaption_ml.storage.store import Store

SHA256 = "ab" * 32


def test_each_kind_of_line_removes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "removals.txt"
    lines = [
        "# asked for in May",
        "",
        "http://a.test/1.jpg",
        "host:b.test",
        SHA256.upper(),
        "0123456789abcdef",
        "f" * 16 + "_2",
    ]
    path.write_text("\n".join(lines))
    removed = RemovalList.read(str(path))
    other = "00" * 8
    assert removed.reason("http://a.test/1.jpg", f"{other}_0", None) == "removed_url"
    assert removed.reason("http://b.test/2.jpg", f"{other}_0", None) == "removed_host"
    assert removed.reason("http://www.b.test/2.jpg", f"{other}_0", None) == "removed_host"
    assert removed.reason("http://c.test/", f"{other}_0", SHA256) == "removed_hash"
    assert removed.reason("http://c.test/", "0123456789abcdef_1", None) == "removed_sample"
    assert removed.reason("http://c.test/", "f" * 16 + "_2", None) == "removed_face"
    assert removed.reason("http://c.test/", "f" * 16 + "_1", None) is None
    assert removed.reason("http://notb.test/", f"{other}_0", None) is None


def test_a_host_is_named_with_its_subdomains_however_it_is_written() -> None:
    removed = RemovalList(urls=frozenset({"http://c.test/1"}), hosts=frozenset({"B.test."}))
    assert removed.names_url("http://c.test/1")
    assert removed.names_url("https://WWW.b.test.:8443/2")
    assert not removed.names_url("http://notb.test/")
    assert not removed.names_url("http://[broken")
    assert removed.reason("http://[broken", "0_0", None) is None


def test_a_line_that_is_none_of_them_stops_the_build(tmp_path: Path) -> None:
    path = tmp_path / "removals.txt"
    path.write_text("http://a.test/\nplease remove my photo\n")
    with pytest.raises(RemovalListError, match=r"removals\.txt, line 2: 'please remove my photo'"):
        RemovalList.read(str(path))
    with pytest.raises(RemovalListError, match=r"absent\.txt"):
        RemovalList.read(str(tmp_path / "absent.txt"))


def test_no_list_removes_nothing() -> None:
    assert len(RemovalList.read("")) == 0


SPELLINGS = [
    "  http://b.test/a%20b.jpg", "http://B.TEST/a b.jpg", "http://b.test:80/a%20b.jpg#top", "http://b.test./x/../a%20b.jpg",
    "http://me:secret@b.test/%61%20b.jpg", "HTTP://b.test/a%20b.jpg\n",
]  # fmt: skip


@pytest.mark.parametrize("listed", SPELLINGS)
@pytest.mark.parametrize("written", SPELLINGS)
def test_a_url_is_removed_in_whatever_spelling_it_stands_in_either_list(listed: str, written: str) -> None:
    removed = RemovalList.parse([listed], "the test")
    assert removed.reason(written, "0_0", None) == "removed_url"
    assert removed == RemovalList(urls=frozenset({written}))
    for other in (
        "http://b.test/A%20b.jpg",
        "http://b.test/a%20b.jpg?x",
        "https://b.test/a%20b.jpg",
        "http://b.test/a%2520b.jpg",
    ):
        assert removed.reason(other, "0_0", None) is None


@pytest.mark.parametrize(
    ("line", "url"),
    [
        ("host:bücher.example", "http://xn--bcher-kva.example/1.jpg"),
        ("host:xn--bcher-kva.example", "http://www.BÜCHER.example:8080/1.jpg"),
        ("HOST:Evil.example.", "http://evil.example/1.jpg"),
        ("host:evil.example", "http://a.evil\uff0eexample./1.jpg"),
        ("host:127.0.0.1", "http://0x7f.1/1.jpg"),
        ("host:[2001:DB8::0:1]", "http://[2001:db8::1]:8080/1.jpg"),
        ("host:bucket", "s3://bucket/1.jpg"),
        ("  host:evil.example \t", "http://user@evil.example/1.jpg"),
    ],
)
def test_a_host_is_removed_however_both_are_spelt(line: str, url: str) -> None:
    assert RemovalList.parse([line], "the test").reason(url, "0_0", None) == "removed_host"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("host:*.example.org", "write host:example.org, which takes its subdomains too"),
        ("host:https://example.org/", "write host:example.org"),
        ("host:example.org:8080", "write host:example.org"),
        ("host: example.org", "write host:example.org"),
        ("host:example.org/path", "write host:example.org"),
        ("host:a..b", "write host:a.b"),
        ("host:.example.org", "write host:example.org"),
        ("host:", "is no host"),
        ("host:two words", "is no host"),
        ("host:" + "a" * 64 + ".org", "is no host"),
        ("host:1.2.3.4.5", "is no host"),
        ("example.org", "write host:example.org"),
        ("*.example.org", "write host:example.org"),
        ("http:/example.org", "write host:example.org"),
        ("sha256:" + SHA256, f"write {SHA256}"),
        ("http://a.test/1.jpg # by letter", "a line of its own"),
        ("http://a.test/1.jpg http://a.test/2.jpg", "one URL a line"),
        ("http://*.a.test/1.jpg", "write host:a.test"),
        ("http://a.test:99999/", "no URL"),
        ("http://[broken/", "no URL"),
        ("ftp://a.test/1.jpg", "starts with http://"),
        ("http://a.test/1.jpg 2024-01-01", "text behind the URL"),
        ("http://a.test/1.jpg (mail of 3 May.)", "text behind the URL"),
        ("http://a.test/photo please remove", "text behind the URL"),
        ("http://a.test/1.jpg\tbob@mail.org", "one URL a line"),
        ("http://a.test/1.jpg,http://a.test/2.jpg", "one URL a line"),
        ("http://a.test/1.jpg;HTTPS://a.test/2.jpg", "one URL a line"),
        ("http://a.test/album/*", "or host:a.test"),
        ("0123456789abcdef_01", "no URL"),
        ("0123456789abcdef_\u0661", "no URL"),
    ],
)
def test_a_line_that_would_match_nothing_says_what_to_write_instead(line: str, words: str) -> None:
    with pytest.raises(RemovalListError, match=r"^list x, line 2: ") as refused:
        RemovalList.parse(["# a comment", line], "list x")
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("line", "urls"),
    [
        ("http://a.test/1.jpg,", ["http://a.test/1.jpg", "http://a.test/1.jpg,"]),
        ("http://a.test/1.jpg\u200b", ["http://a.test/1.jpg", "http://a.test/1.jpg%E2%80%8B"]),
        ("http://a.test/?a=1&amp;b=2", ["http://a.test/?a=1&b=2", "http://a.test/?a=1&amp;b=2"]),
        ("http://a.test/my photo.jpg", ["http://a.test/my%20photo.jpg"]),
        ("s3://a/my photo of 2024", ["s3://a/my photo of 2024"]),
        ("https://a.test/w_100,h_100/http://b.test/1.jpg", ["https://a.test/w_100,h_100/http://b.test/1.jpg"]),
        ("https://a.test/*/1.jpg", ["https://a.test/*/1.jpg"]),
    ],
)
def test_a_line_that_can_be_read_in_two_ways_takes_both(line: str, urls: list[str]) -> None:
    removed = RemovalList.parse([line], "the test")
    assert [removed.names_url(url) for url in urls] == [True] * len(urls)
    assert not removed.names_url("http://a.test/2.jpg")


def test_a_list_from_another_system_is_read(tmp_path: Path) -> None:
    path = tmp_path / "removals.txt"
    path.write_bytes(
        b"\xef\xbb\xbfhttp://a.test/1.jpg\r\n\r\n  host:b.test  \r\n# by letter\r\n"
        + SHA256.upper().encode()
        + b" \r\n"
    )
    assert RemovalList.read(str(path)) == RemovalList(
        urls=frozenset({"http://a.test/1.jpg"}), hosts=frozenset({"b.test"}), sha256=frozenset({SHA256})
    )


def test_a_constructor_refuses_what_a_list_would() -> None:
    for wrong in ({"hosts": frozenset({"*.a.test"})}, {"urls": frozenset({"a.test/1.jpg"})}):
        with pytest.raises(RemovalListError, match=r"write host:a\.test"):
            RemovalList(**wrong)


@given(st.text())
def test_no_url_of_a_list_of_images_stops_a_removal(url: str) -> None:
    removed = RemovalList(urls=frozenset({"http://a.test/"}), hosts=frozenset({"b.test"}))
    for text in (url, f"http://{url}", f"http://b.test{url}"):
        assert removed.reason(text, "0_0", None) in (None, "removed_url", "removed_host")


def test_rows_that_were_removed_keep_their_place_and_id_and_nothing_else(tmp_path: Path) -> None:
    urls = [f"http://host{number % 3}.test/{number}.jpg" for number in range(9)]
    source = tmp_path / "list.csv"
    source.write_text("URL,TEXT\n" + "".join(f"{url},text {number}\n" for number, url in enumerate(urls)))
    removed = RemovalList(urls=frozenset({"http://HOST1.test:80/4.jpg#x"}), hosts=frozenset({"host2.test."}))
    store = Store(str(tmp_path / "store"))
    ingested = ingest(read_source(str(source)), store, ShardRules(shard_size=4), lambda *_: None, removed=removed)
    assert (ingested.rows, ingested.removed_rows) == (9, 4)
    manifest = pl.concat([store.read_table("source_manifest", name) for name in ingested.names])
    out = {2, 4, 5, 8}
    assert manifest["sample_id"].to_list() == [sample_id(url) for url in urls]
    assert manifest["url"].to_list() == ["removed" if number in out else url for number, url in enumerate(urls)]
    assert manifest["alt_text"].to_list() == [None if number in out else f"text {number}" for number in range(9)]
