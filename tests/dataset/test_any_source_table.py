"""Properties of tables of text, whatever is in them: rows come back equal, none is lost, blocks do not matter."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facecaption_ml.dataset.sources import (
    SourceError,
    text_files,
)
from source_tables import read

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_words = st.one_of(_text, st.text(st.sampled_from('a,"\n\r\t é'), max_size=8))
_quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


_addresses = st.one_of(_words, _words.map("http://a.test/{}".format))


@given(
    st.lists(st.tuples(_words, _addresses, _words), max_size=30), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
)
@_quick
def test_what_pythons_csv_module_writes_comes_back_equal(
    tmp_path: Path, rows: Sequence[tuple[str, str, str]], quoting: int
) -> None:
    path = tmp_path / "list.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=quoting).writerows([("TEXT", "URL", "other"), *rows])
    found, counts = read(path)
    assert found == [(url or None, text or None) for text, url, _ in rows]
    assert not counts.repaired


@given(st.lists(st.tuples(_words, _words), max_size=20))
@_quick
def test_what_is_written_as_json_lines_comes_back_equal(tmp_path: Path, rows: Sequence[tuple[str, str]]) -> None:
    path = tmp_path / "list.jsonl"
    path.write_text(
        "".join(json.dumps({"URL": f"u{url}", "TEXT": text}) + "\n" for url, text in rows), encoding="utf-8"
    )
    assert read(path)[0] == [(f"u{url}", text or None) for url, text in rows]


_bytes = st.one_of(
    st.binary(max_size=200),
    st.text(st.sampled_from('ab,"\n\r\t{}:é\x00'), max_size=120).map(str.encode),
    st.lists(
        st.sampled_from([b"URL,TEXT\n", b'"', b"\n", b",", b"\r", b"http://a/", b"\xff", b'{"URL": "x"}\n']),
        max_size=60,
    ).map(b"".join),
)


@given(_bytes, st.sampled_from(["csv", "tsv", "jsonl", "txt", "parquet", "csv.gz", "jsonl.zst"]), st.booleans())
@_quick
def test_any_bytes_are_rows_and_dropped_rows_or_one_error(
    tmp_path: Path, data: bytes, suffix: str, header: bool
) -> None:
    path = tmp_path / f"list.{suffix}"
    data = b"URL,TEXT\n" + data if header and suffix == "csv" else data
    path.write_bytes(gzip.compress(data) if header and suffix == "csv.gz" else data)
    said = ""
    try:
        read(path)  # which holds the counts together
    except SourceError as error:
        said = str(error)
    assert "\n" not in said


_pieces = st.lists(st.sampled_from([*'ab," é\r', "http://a/", "http://b/,x\r"]), max_size=10).map("".join)


@pytest.mark.slow
@given(st.lists(_pieces, min_size=1, max_size=30), st.sampled_from("\n\r"), st.integers(32, 200))
@_quick
def test_rows_do_not_depend_on_where_blocks_end(tmp_path: Path, lines: Sequence[str], end: str, size: int) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(end.join(["URL,TEXT", *lines]).encode())
    whole = read(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_files, "BLOCK_BYTES", size)
        parts = read(path)
    assert parts[0] == whole[0]
    assert parts[1].repaired == whole[1].repaired
    if not {'"', "\r"} & set("".join(lines)):
        plain = [row for row in csv.reader(io.StringIO("\n".join(lines))) if row]
        assert [url or "" for url, _ in whole[0]] == [row[0] for row in plain]
