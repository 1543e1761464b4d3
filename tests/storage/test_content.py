"""The version of a table's content: of its rows alone, in their order, whatever batches and files they lie in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from facecaption_ml.schemas import IMAGE, SCHEMAS, empty
from facecaption_ml.storage.content import content_version, table_version
from facecaption_ml.storage.store import Store

FRAME = pl.DataFrame(
    {
        "text": ["x", None, "yz", ""],
        "labels": [["a"], [], None, ["b", None]],
        "image": [{"bytes": b"1", "path": None}, None, {"bytes": b"22", "path": "p"}, {"bytes": b"", "path": ""}],
        "box": [[1.0, 2.0], [3.0, 4.0], None, [0.0, -0.0]],
        "flag": [True, None, False, True],
        "number": [1, 2, None, -4],
    },
    schema={"text": pl.String, "labels": pl.List(pl.String), "image": IMAGE, "box": pl.Array(pl.Float32, 2),
            "flag": pl.Boolean, "number": pl.Int32},
)  # fmt: skip


def test_batches_and_files_change_nothing(tmp_path: Path) -> None:
    whole = content_version([FRAME])
    assert whole == content_version([FRAME[:1], FRAME[1:3], FRAME[3:]]) == content_version(FRAME.iter_slices(1))
    for number, options in enumerate(({"compression": "zstd"}, {"row_group_size": 2, "compression": "uncompressed"})):
        FRAME.write_parquet(tmp_path / f"{number}.parquet", **options)  # type: ignore[arg-type]
        assert content_version([pl.read_parquet(tmp_path / f"{number}.parquet")]) == whole
    assert content_version([FRAME.select(reversed(FRAME.columns))]) == whole


def test_every_value_counts() -> None:
    other = {
        "text": ["x", None, "yz", None],
        "labels": [["a"], None, None, ["b", None]],
        "image": [{"bytes": b"1", "path": None}, None, {"bytes": b"2", "path": "2p"}, {"bytes": b"", "path": ""}],
        "box": [[1.0, 2.0], [3.0, 4.5], None, [0.0, -0.0]],
        "flag": [True, False, False, True],
        "number": [1, None, 2, -4],
    }
    versions = {content_version([FRAME.with_columns(pl.Series(n, v, FRAME.schema[n]))]) for n, v in other.items()}
    more = [
        FRAME.reverse(),
        FRAME[:3],
        FRAME.clear(),
        FRAME.rename({"text": "words"}),
        FRAME.cast({"number": pl.Int64}),
    ]
    versions |= {content_version([frame]) for frame in more} | {content_version([FRAME])}
    assert len(versions) == len(other) + len(more) + 1


def test_the_boundary_between_two_texts_counts() -> None:
    assert content_version([pl.DataFrame({"a": ["ab", "c"]})]) != content_version([pl.DataFrame({"a": ["a", "bc"]})])
    assert content_version([pl.DataFrame({"a": [["x"], ["y"]]})]) != content_version(
        [pl.DataFrame({"a": [["x", "y"], []]})]
    )


@pytest.mark.parametrize("table", SCHEMAS)
def test_every_table_has_a_version_without_rows(table: str) -> None:
    assert content_version([empty(table)]) == content_version([empty(table), empty(table)])


def test_how_a_download_went_is_no_content(tmp_path: Path) -> None:
    store, versions = Store(str(tmp_path)), []
    for attempts, error, status in ((1, None, "ok"), (4, "slow", "ok"), (1, None, "timeout")):
        row = {**dict.fromkeys(SCHEMAS["raw_images"]), "sample_id": "a", "status": status, "attempts": attempts,
               "error": error, "fetched_at": datetime(2026, 1, attempts, tzinfo=UTC)}  # fmt: skip
        store.write_table("raw_images", pl.DataFrame([row], dict(SCHEMAS["raw_images"])), "shard-00000")
        versions.append(table_version(store, "raw_images", "shard-00000", columns=SCHEMAS["raw_images"]))
    assert versions[0] == versions[1] != versions[2]
