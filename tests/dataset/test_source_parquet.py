"""Parquet: a bad cell or row group costs itself, and memory does not follow what a dictionary says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facecaption_ml.dataset.sources import ManifestCounts, SourceError, parquet, read_source

URLS = [f"http://a.test/{number}.jpg" for number in range(6)]


def read(path: Path) -> tuple[list[tuple[str | None, str | None]], ManifestCounts]:
    counts = ManifestCounts()
    frames = list(read_source(str(path), counts=counts))
    rows = [row for frame in frames for row in frame.select("url", "alt_text").iter_rows()]
    assert counts.records == len(rows) + sum(counts.dropped.values())
    return rows, counts


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.binary(),
        pa.large_binary(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
    ],
)
def test_every_type_of_text_and_names_in_another_case(tmp_path: Path, kind: pa.DataType) -> None:
    texts = pa.array([None, "a", "é", "", "b", "a"], pa.string()).cast(kind)
    table = pa.table({"url": pa.array(URLS).cast(kind), " Text": texts, "WIDTH": pa.array([1, 2, 3, 4, 5, None])})
    pq.write_table(table, tmp_path / "list.parquet", row_group_size=4)
    rows, counts = read(tmp_path / "list.parquet")
    assert [(url, text or None) for url, text in rows] == list(zip(URLS, [None, "a", "é", None, "b", "a"], strict=True))
    assert not counts.repaired


def test_lists_structs_and_bytes_that_are_no_text_cost_their_cells_or_rows(tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"URL": URLS[:2], "TEXT": [["a"], ["b", "c"]]}), path)
    rows, counts = read(path)
    assert rows == [(URLS[0], None), (URLS[1], None)]
    assert counts.repaired == {"text_not_text": 2}
    pq.write_table(pa.table({"URL": URLS[:2], "NSFW": [["NSFW"], []]}), path)
    assert read(path)[1].repaired == {"nsfw_not_text": 2}
    pq.write_table(
        pa.table({"URL": pa.array([URLS[0].encode(), b"http://a.test/\xff"]), "TEXT": [b"caf\xe9", b"\xed\xa0\xbd"]}),
        path,
    )
    rows, counts = read(path)
    assert rows == [(URLS[0], "caf\ufffd"), ("http://a.test/\ufffd", "\ufffd\ufffd\ufffd")]
    assert [example.place for example in counts.repaired_examples] == ["row 2", "row 1", "row 2"]
    pq.write_table(pa.table({"URL": [{"a": "x"}, {"a": "y"}]}), path)
    assert read(path)[0] == []
    assert read(path)[1].by_outcome == {"url_not_text": 2}


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pa.array([1, 2], pa.duration("s")), ["1", "2"]),
        (pa.array([1, 2], pa.date32()), ["1970-01-02", "1970-01-03"]),
        (pa.array([True, None]), ["true", None]),
        (pa.array([1.5, 2.0]), ["1.5", "2.0"]),
        (pa.array([float("nan"), None]), [None, None]),
        (pa.nulls(2), [None, None]),
    ],
)
def test_columns_that_are_no_text_are_written_out(tmp_path: Path, values: pa.Array, texts: list[str | None]) -> None:
    path = tmp_path / "list.parquet"
    columns = [pa.array(URLS[:2]), values, values, pa.array(["x", "y"])]
    pq.write_table(pa.table(columns, names=["URL", "TEXT", "WIDTH", "URL"]), path)
    assert read(path)[0] == list(zip(URLS[:2], texts, strict=True))


def test_a_row_group_that_is_damaged_costs_itself(tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"URL": URLS}), path, row_group_size=2, compression="zstd", use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    begin = column.data_page_offset
    data[begin : begin + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(data)
    rows, counts = read(path)
    assert [url for url, _ in rows] == [*URLS[:2], *URLS[4:]]
    assert counts.by_outcome == {"unreadable_row_group": 2}
    assert counts.dropped_examples[0].place == "row group 1, rows 3 to 4"


def test_a_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"URL": URLS}), path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(SourceError, match=r"list\.parquet: cannot be read as parquet"):
        read(path)


@pytest.mark.slow
def test_urls_of_megabytes_in_a_dictionary_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    values = pa.array(["http://a.test/" + "x" * 5_000_000, URLS[0]])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 400 + [1], pa.int32()), values)
    pq.write_table(pa.table({"URL": column}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 20_000
    code = (
        "import sys; from facecaption_ml.dataset.sources import *; import pyarrow.parquet;"
        # ru_maxrss would count the parent's memory before the exec
        "peak = lambda: next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM'));"
        "before = peak(); c = ManifestCounts();"
        "n = sum(map(len, read_source(sys.argv[1], counts=c)));"
        "print(n, c.by_outcome['url_too_long'], c.records, (peak() - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    kept, dropped, records, megabytes = map(int, done.stdout.split())
    assert (kept, dropped, records) == (1, 400, 401)
    assert megabytes < 150


def test_row_groups_and_dictionaries_that_are_too_large_are_dropped_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "list.parquet"
    monkeypatch.setattr(parquet, "_MOST_ROW_GROUP_BYTES", 20_000)
    monkeypatch.setattr(parquet, "_MOST_DICTIONARY_BYTES", 10_000)
    long = ["http://a.test/" + "x" * 30_000 + str(number) for number in range(2)]
    for dictionaries, said in ((False, "bytes"), (True, "a dictionary of ")):
        pq.write_table(pa.table({"URL": [*long, *URLS * 20]}), path, row_group_size=22, use_dictionary=dictionaries)
        monkeypatch.setattr(parquet, "_MOST_ROW_BYTES", 2**20 if dictionaries else 1000)
        rows, counts = read(path)
        assert [url for url, _ in rows] == (URLS * 20)[20:]
        assert counts.by_outcome == {"row_group_too_large": 22}
        assert said in counts.dropped_examples[0].excerpt


def test_the_footer_tells_when_the_reader_loses_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"URL": URLS}), path)
    framed = parquet.ParquetTable._framed
    monkeypatch.setattr(parquet.ParquetTable, "_framed", lambda *given: (frame.head(4) for frame in framed(*given)))
    counts = ManifestCounts()
    assert sum(map(len, read_source(str(path), counts=counts))) == 4
    assert counts.records == 6


_cells = st.lists(
    st.tuples(st.text(max_size=8).map(lambda text: f"u{text}"), st.none() | st.text(max_size=8)), max_size=30
)


@given(_cells, st.integers(1, 10), st.booleans())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_arrow_writes_comes_back_equal(
    tmp_path: Path, rows: Sequence[tuple[str, str | None]], group: int, dictionaries: bool
) -> None:
    path = tmp_path / "list.parquet"
    columns = {"URL": [url for url, _ in rows], "TEXT": pa.array([text for _, text in rows], pa.string())}
    pq.write_table(pa.table(columns), path, row_group_size=group, use_dictionary=dictionaries)
    assert [(url, text or None) for url, text in read(path)[0]] == [(url, text or None) for url, text in rows]
    pl.DataFrame(rows, schema={"URL": pl.String, "TEXT": pl.String}, orient="row").write_parquet(path)
    assert [url for url, _ in read(path)[0]] == [url for url, _ in rows]
