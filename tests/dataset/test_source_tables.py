"""Tables of text: every record of the file is a row or is dropped by name, whatever one line holds."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from facecaption_ml.dataset.sources import (
    ManifestCounts,
    SourceColumnError,
    SourceError,
    SourceRules,
    build_shards,
    delimited,
    read_source,
    records,
    text_files,
)
from source_tables import places, read, urls


def test_quotes_within_unquoted_fields_are_text_in_columns_that_are_read_and_in_those_that_are_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "list.csv"
    titles = {500: 'a 19" screen', 700: 'a 21" set'}
    lines = [f'{url},"Quoted" words {number},{titles.get(number, "x")}' for number, url in enumerate(urls(1000))]
    path.write_text("\n".join(["URL,TEXT,title", *lines, ""]))
    rows, counts = read(path)
    assert rows == [(url, f"Quoted words {number}") for number, url in enumerate(urls(1000))]
    assert not counts.repaired
    with path.open(newline="") as file:
        assert [(row["URL"], row["TEXT"]) for row in csv.DictReader(file)] == rows


@pytest.mark.parametrize("first", ['"never closed', '"never closed, and a comma', '"', '"""'])
@pytest.mark.parametrize("count", [3, 2_000])
def test_a_quote_that_nothing_closes_costs_no_other_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, count: int
) -> None:
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 4096)
    path = tmp_path / "list.csv"
    lines = [f"{url},words {number}" for number, url in enumerate(urls(count))]
    lines[1] = f"http://a.test/1.jpg,{first}"
    path.write_text("\n".join(["URL,TEXT", *lines]))
    rows, counts = read(path)
    assert [url for url, _ in rows] == urls(count)
    assert [text for _, text in rows[2:]] == [f"words {number}" for number in range(2, count)]
    assert rows[1][1] == first
    assert ("line 3", "stray_quote") in places(counts)


def test_stray_quotes_that_begin_one_field_and_end_another_do_not_join_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(
        'URL,TEXT\nhttp://a.test/0.jpg,"hello\nhttp://a.test/1.jpg,x\nhttp://a.test/2.jpg,bye"\nhttp://a.test/3.jpg,"y"\n'
    )
    rows, _ = read(path)
    assert rows == [(urls(4)[0], '"hello'), (urls(4)[1], "x"), (urls(4)[2], 'bye"'), (urls(4)[3], "y")]


def test_quoted_fields_hold_newlines_doubled_quotes_and_commas(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    texts = ["two\nlines", 'he said "hi", twice', "cr\r\nlf", "cr\ralone", ",", '"', '""', 'a,"b"\n"c"', " blank "]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["URL", "TEXT"], *zip(urls(9), texts, strict=True)])
    rows, counts = read(path)
    assert rows == list(zip(urls(9), texts, strict=True))
    assert counts.continued_lines == 3
    assert not counts.repaired


@pytest.mark.parametrize("header", ["TEXT,URL,title", "TEXT,URL", "title,URL,TEXT", "URL,title,TEXT"])
def test_quoted_fields_of_several_lines_stand_in_any_column(tmp_path: Path, header: str) -> None:
    path = tmp_path / "list.csv"
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, header.split(","), extrasaction="ignore")
        table.writeheader()
        for url in urls(5):
            table.writerow({"URL": url, "TEXT": "two\nlines, see http://b.test/\nx", "title": "a\nb"})
    rows, counts = read(path)
    assert rows == [(url, "two\nlines, see http://b.test/\nx") for url in urls(5)]
    assert not counts.repaired


def test_a_field_that_runs_over_the_end_of_a_block_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 64)
    path = tmp_path / "list.csv"
    texts = [f"line\n{'x' * number}\nline" if number % 3 else f'{number}" wide' for number in range(200)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["URL", "TEXT"], *zip(urls(200), texts, strict=True)])
    assert read(path)[0] == list(zip(urls(200), texts, strict=True))


def test_quotes_that_close_and_open_fields_on_every_line_take_no_time(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(
        f'URL,TEXT\n{urls(1)[0]},"x\n' + 'b","c\n' * 20_000
    )  # minutes for a hundredth of them, if each is tried
    rows, _ = read(path)
    assert len(rows) == 20_001


def test_tsv_has_no_quoting_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "list.tsv"
    path.write_text('URL\tTEXT\nhttp://a.test/0.jpg\t"hello\nhttp://a.test/1.jpg\tbye"\n')
    assert read(path)[0] == [(urls(2)[0], '"hello'), (urls(2)[1], 'bye"')]
    path.write_text('URL\tTEXT\nhttp://a.test/0.jpg\t"a\tb"\n')
    assert read(path, rules=SourceRules(tsv_quoting=True))[0] == [(urls(1)[0], "a\tb")]


def test_commas_that_nobody_quoted_belong_to_the_text_where_the_numbers_agree(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(
        "URL,TEXT,WIDTH\nhttp://a.test/0.jpg,a man, smiling, in a hat,7\nhttp://a.test/1.jpg,short\n"
        "http://a.test/2.jpg,cut,8,superfluous\n"
    )
    rows, counts = read(path)
    assert rows == [(urls(3)[0], "a man, smiling, in a hat"), (urls(3)[1], "short"), (urls(3)[2], "cut")]
    assert sorted(places(counts)) == [
        ("line 2", "surplus_fields"),
        ("line 3", "missing_fields"),
        ("line 4", "surplus_fields"),
    ]


@pytest.mark.parametrize(
    "header", [" URL , TEXT", "url,text", "Url,Text", '"URL","TEXT"', "\ufeffURL,TEXT", "TEXT ,URL\t"]
)
def test_headers_match_in_any_case_and_with_blanks(tmp_path: Path, header: str) -> None:
    path = tmp_path / "list.csv"
    order = (0, 1) if "TEXT ," not in header else (1, 0)
    cells = [urls(1)[0], "words"]
    path.write_text(f"{header}\n{cells[order[0]]},{cells[order[1]]}\n")
    assert read(path)[0] == [(urls(1)[0], "words")]


def test_a_table_without_alt_texts_says_so(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("url,caption\nhttp://a.test/0.jpg,words\n")
    _, counts = read(path)
    assert any("no column 'TEXT' for the alt texts (it has url, caption)" in line for line in counts.lines())


def test_a_list_whose_first_line_is_a_url_is_told_that_it_needs_names(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("http://a.test/0.jpg,words\n")
    with pytest.raises(SourceColumnError, match="first line must name its columns"):
        read(path)


@pytest.mark.parametrize(("name", "mark"), [("list.csv", ";"), ("list.csv", "\t"), ("list.tsv", ",")])
def test_another_separator_is_named(tmp_path: Path, name: str, mark: str) -> None:
    (tmp_path / name).write_text(f"URL{mark}TEXT\nhttp://a.test/0.jpg{mark}words\n")
    with pytest.raises(SourceColumnError, match=r"separated by commas in a \.csv, by tabs in a \.tsv"):
        read(tmp_path / name)


def test_blank_lines_before_the_header_and_between_rows(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("\n\r\n" * 2000 + "URL,TEXT\n\n" + f"{urls(2)[0]},a\n\n\n{urls(2)[1]},b\n\n")
    assert read(path)[0] == [(urls(2)[0], "a"), (urls(2)[1], "b")]


@pytest.mark.parametrize(
    ("suffix", "packed"),
    [
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
        (".zst", lambda data: pa.compress(data, "zstd", asbytes=True)),
        (".gz", lambda data: gzip.compress(data[:30]) + gzip.compress(data[30:])),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "txt"])
def test_compressed_tables(tmp_path: Path, suffix: str, packed, kind: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / f"list.{kind}{suffix}"
    text = {
        "csv": "URL,TEXT\nhttp://a.test/0.jpg,words\n",
        "tsv": "URL\tTEXT\nhttp://a.test/0.jpg\twords\n",
        "jsonl": '{"URL": "http://a.test/0.jpg", "TEXT": "words"}\n',
        "txt": "http://a.test/0.jpg\n\n",
    }[kind]
    path.write_bytes(packed(text.encode()))
    assert read(path)[0] == [(urls(1)[0], None if kind == "txt" else "words")]


def test_a_compressed_table_that_is_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "list.csv.gz"
    path.write_bytes(gzip.compress(b"URL\n" + b"http://a.test/\n" * 1000)[:-30])
    with pytest.raises(SourceError, match=r"list\.csv\.gz: cannot be read as csv\.gzip"):
        read(path)


@pytest.mark.parametrize(
    ("encoding", "end"),
    [("utf-16", "\n"), ("utf-16", "\r\n"), ("utf-8-sig", "\n"), ("utf-8-sig", "\r\n"), ("utf-8-sig", "\r")],
)
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, end: str) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(end.join(["URL,TEXT", f"{urls(2)[0]},grüße", "", f'{urls(2)[1]},"日本, 語"', ""]).encode(encoding))
    assert read(path)[0] == [(urls(2)[0], "grüße"), (urls(2)[1], "日本, 語")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mac.csv", "URL,TEXT\r{0},0\r{1},1\r{2},2\r\n"),
        ("mac_then_unix.csv", "URL,TEXT\r{0},0\r{1},1\n{2},2\n"),
        ("windows_twice.csv", "URL,TEXT\r\r\n{0},0\r\r\n{1},1\r\r\n{2},2\r\r\n"),
        ("unix_then_mac.csv", 'URL,TEXT\n{0},0\r{1},"1"\r\r{2},2\n'),
        ("windows_then_mac.tsv", "URL\tTEXT\r\n{0}\t0\r\n{1}\t1\r{2}\t2"),
        ("objects.jsonl", '{{"URL":"{0}","TEXT":"0"}}\n{{"URL":"{1}","TEXT":"1"}}\r{{"URL":"{2}","TEXT":"2"}}'),
        ("addresses.txt", "{0}\n{1}\r{2}\r\n"),
    ],
)
def test_line_ends_of_several_kinds_end_rows(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(text.format(*urls(3)).encode())
    rows, counts = read(path)
    assert rows == [(url, None if name.endswith("txt") else str(number)) for number, url in enumerate(urls(3))]
    assert not counts.repaired


def test_a_carriage_return_within_a_text_ends_no_row(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(f'URL,TEXT\n{urls(2)[0]},"one\r{urls(2)[1]},two"\n{urls(2)[1]},a\rb\n'.encode())
    assert read(path)[0] == [(urls(2)[0], f"one\r{urls(2)[1]},two"), (urls(2)[1], "a\rb")]


def test_utf_16_that_is_damaged_is_named(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    whole = f"URL,TEXT\n{urls(2)[0]},a\ud83d\n{urls(2)[1]},bc".encode("utf-16", "surrogatepass")
    path.write_bytes(whole[:-1])
    rows, counts = read(path)
    assert rows == [(urls(2)[0], "a\ufffd\ufffd\ufffd"), (urls(2)[1], "b\ufffd")]
    assert places(counts) == [("line 2", "invalid_utf8"), ("line 3", "invalid_utf8")]
    path.write_bytes(whole[2:])
    with pytest.raises(SourceColumnError, match="nor of UTF-16 with a byte order mark"):
        read(path)


@pytest.mark.parametrize(("name", "line"), [("list.jsonl", '{{"URL": "{}"}}'), ("list.txt", "{}")])
def test_lists_that_were_put_together_from_files_with_marks(tmp_path: Path, name: str, line: str) -> None:
    path = tmp_path / name
    path.write_text("".join(f"\ufeff{line.format(url)}\n" for url in urls(3)))
    assert [url for url, _ in read(path)[0]] == urls(3)


def test_stray_quotes_and_commas_in_a_list_of_addresses_alone(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(
        'URL\n"http://a.test/0.jpg\nhttp://a.test/1.jpg"\nhttp://a.test/w_1,h_2/2.jpg\nhttp://a.test/3.jpg,\n'
    )
    rows, counts = read(path)
    assert [url for url, _ in rows] == [
        '"http://a.test/0.jpg',
        'http://a.test/1.jpg"',
        "http://a.test/w_1,h_2/2.jpg",
        "http://a.test/3.jpg",
    ]
    assert counts.repaired == {"stray_quote": 1, "surplus_fields": 2}
    path.write_text("URL,WIDTH\nhttp://a.test/w_1,h_2/2.jpg,7\n")
    assert read(path)[0] == [("http://a.test/w_1,h_2/2.jpg", None)]
    path.write_text("URL,license\nhttp://a.test/0.jpg,by, 4.0\n")
    assert read(path)[0] == [("http://a.test/0.jpg", None)]


def test_bytes_that_are_no_text_cost_a_character_and_are_named(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(b"URL,TEXT\nhttp://a.test/0.jpg,caf\xe9\nhttp://a.test/1.jpg,nul \x00 here\n")
    rows, counts = read(path)
    assert rows == [(urls(2)[0], "caf\ufffd"), (urls(2)[1], "nul \x00 here")]
    assert places(counts) == [("line 2", "invalid_utf8")]


def test_a_url_or_a_line_that_is_too_long_costs_itself_only(tmp_path: Path) -> None:
    long = "http://a.test/" + "x" * 5_000_000
    for name, line in (
        ("a.csv", long),
        ("b.txt", long),
        ("c.csv", f'"{long}"'),
        ("d.jsonl", json.dumps({"URL": long})),
    ):
        path = tmp_path / name
        good = [json.dumps({"URL": url}) if name == "d.jsonl" else url for url in urls(2)]
        header = [] if name in ("b.txt", "d.jsonl") else ["URL"]
        path.write_text("\n".join([*header, good[0], line, good[1]]))
        rows, counts = read(path)
        assert [url for url, _ in rows] == urls(2)
        assert places(counts) == [(f"line {len(header) + 2}", "url_too_long")]
        assert max(len(example.excerpt) for example in counts.dropped_examples) < 200
    endless = tmp_path / "e.csv"
    endless.write_text(f"URL\n{urls(2)[0]}\n{'x' * 40_000_000}\n{urls(2)[1]}\n")
    rows, counts = read(endless)
    assert [url for url, _ in rows] == urls(2)
    assert places(counts) == [("line 3", "line_too_long")]


def test_an_alt_text_of_ten_thousand_characters_is_whole_and_one_of_a_million_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text(
        "\n".join(json.dumps({"URL": u, "TEXT": "é" * n}) for u, n in zip(urls(2), (10_000, 10**6), strict=True))
    )
    rows, counts = read(path)
    assert [len(text or "") for _, text in rows] == [10_000, 65_536]
    assert places(counts) == [("line 2", "text_cut")]


def test_json_lines_of_every_kind_cost_themselves_only(tmp_path: Path) -> None:
    path = tmp_path / "list.jsonl"
    lines = [
        '{"URL": "http://a.test/0.jpg", "TEXT": "tweet \\ud83d"}',
        '{"URL": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "[1, 2]",
        '{"URL": ["http://a.test/x"]}',
        '{"URL": "http://a.test/1.jpg", "TEXT": ["a", "b"]}',
        "",
        '{"url": "http://a.test/2.jpg", " Text ": "other names", "WIDTH": ' + "9" * 400 + "}",
        '{"URL": "http://a.test/3.jpg", "TEXT": "\\ud83d\\ude00", "WIDTH": NaN}',
        '{"URL": 7e999999, "TEXT": {"a": 1}}',
        "{" + "9" * 5000 + ":1}",
        '{"URL": null}',
        '{"TEXT": "no address"}',
        '{"URL": "http://a.test/4.jpg", "TEXT": true, "NSFW": 0.9}',
        '{"URL": "http://\\udcff.test/"}',
        '{"URL": "http://a.test/5.jpg", "TEXT": NaN}',
        '{"URL": NaN}',
    ]
    path.write_text("\n".join(lines))
    rows, counts = read(path)
    assert [row for row in rows if row[0] and "a.test" in row[0]] == [
        (urls(5)[0], "tweet \ufffd"),
        (urls(5)[1], None),
        (urls(5)[2], "other names"),
        (urls(5)[3], "😀"),
        (urls(5)[4], "True"),
        ("http://a.test/5.jpg", None),
    ]
    assert {reason: place for place, reason in reversed(places(counts))} == {
        "malformed_json": "line 2",
        "not_an_object": "line 3",
        "url_not_text": "line 4",
        "lone_surrogate": "line 1",
        "text_not_text": "line 5",
    }
    assert counts.by_outcome == Counter(malformed_json=2, not_an_object=1, url_not_text=1)


def test_keys_that_few_objects_have_count_wherever_they_come_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "BLOCK_BYTES", 200)
    path = tmp_path / "list.jsonl"
    plain = [json.dumps({"URL": url}) for url in urls(50)]
    late = [
        json.dumps({"URL": "http://b.test/0", "TEXT": "late"}),
        json.dumps({"URL": "http://b.test/1", "nsfw": "NSFW"}),
        json.dumps({"URL": "http://b.test/2", "NSFW": ["NSFW"]}),
    ]
    path.write_text("\n".join([*plain, *late]))
    counts = ManifestCounts()
    rows = pl.concat(build_shards(read_source(str(path), counts=counts), 100, counts))
    assert rows.select("url", "alt_text").rows()[50:] == [("http://b.test/0", "late"), ("http://b.test/2", None)]
    assert (counts.by_outcome, counts.repaired) == ({"kept": 52, "nsfw": 1}, {"nsfw_not_text": 1})
    assert not counts.notes


def test_dropped_rows_are_named_with_file_and_line_after_the_shards_are_built(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("URL,TEXT,NSFW\nhttp://a.test/0.jpg,a,UNLIKELY\n\n ,b,UNLIKELY\nhttp://a.test/1.jpg,c,NSFW\n")
    counts = ManifestCounts()
    assert sum(map(len, build_shards(read_source(str(path), counts=counts), 10, counts))) == 1
    assert counts.records == counts.rows == 3
    assert [(example.place, example.reason) for example in counts.dropped_examples] == [
        ("line 4", "no_url"),
        ("line 5", "nsfw"),
    ]
    assert "rows dropped: 1 no_url, 1 nsfw; first: " in counts.lines()[-1]


def _first_rows(read: Callable[..., pl.DataFrame]) -> Callable[..., pl.DataFrame]:
    return lambda *given: read(*given).head(10)


def _without_the_third(read: Callable[..., tuple[list[records.Record], int, int]]) -> Callable[..., object]:
    def losing(*given: object, **more: object) -> object:
        found, *rest = read(*given, **more)
        return [record for place, record in enumerate(found) if place != 2], *rest

    return losing


@pytest.mark.parametrize(
    ("owner", "name", "losing", "last", "lost"),
    [
        (delimited.DelimitedTable, "_by_arrow", _first_rows, "quoted", 41),
        (records.RecordReader, "read", _without_the_third, '"odd" one', 1),
    ],
)
def test_the_count_of_records_does_not_follow_a_reader_that_loses_rows(  # type: ignore[no-untyped-def]
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner, name: str, losing, last: str, lost: int
) -> None:
    path = tmp_path / "list.csv"
    path.write_text("\n".join(["URL,TEXT", *(f"{url},x" for url in urls(50)), f"{urls(1)[0]},{last}", ""]))
    monkeypatch.setattr(owner, name, losing(getattr(owner, name)))
    counts = ManifestCounts()
    rows = sum(map(len, build_shards(read_source(str(path), counts=counts), 10, counts)))
    assert (counts.records, counts.rows, rows) == (51, 51 - lost, 51 - lost)
