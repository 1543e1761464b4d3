"""From a list of images to a manifest in shards: LAION-Face style tables, folders of pictures, or any frames.

The source is read in batches; apart from the rows of one shard, only an 8-byte id per row is kept, which is what it takes to
mark the URLs that occur more than once in the whole source (400 MB for 50M rows).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from facecaption_ml.dataset.options import SourceColumns
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.schemas import SCHEMAS, conform
from facecaption_ml.storage.base import S3, StoreError
from facecaption_ml.storage.objects import list_address
from facecaption_ml.storage.s3_objects import reading_options

TABLE_SUFFIXES: Final = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")
PICTURE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".gif")
_BATCH_ROWS: Final = 100_000


class SourceError(FaceCaptionError):
    """The source cannot be used; the message names the file, folder or column."""


class SourceColumnError(SourceError):
    """The source has no column of that name for its URLs."""


class SourceOutcome(StrEnum):
    """What became of a row of the source."""

    KEPT = "kept"
    NSFW = "nsfw"
    NO_URL = "no_url"


@dataclass
class ManifestCounts:
    """Rows of the source by outcome; ``duplicates`` are kept rows whose URL had occurred before."""

    by_outcome: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0

    @property
    def rows(self) -> int:
        return sum(self.by_outcome.values())


def sample_id(url: str) -> str:
    """The first 16 hex digits of the SHA-256 of a URL or path."""
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def read_source(
    location: str, columns: SourceColumns | None = None, storage_options: Mapping[str, str] | None = None
) -> Iterator[pl.DataFrame]:
    """Batches of ``url, alt_text, width, height, nsfw`` from a table file, a folder of tables, or a folder of pictures.

    ``location`` is local or ``s3://…``. Raises SourceError where it is missing, unreadable, empty of anything usable, or
    has no URL column.
    """
    columns = columns or SourceColumns()
    names = _addresses(location, storage_options)
    tables = [name for name in names if name.lower().endswith(TABLE_SUFFIXES)]
    if tables:
        for name in tables:
            yield from _read_table(name, columns, storage_options)
        return
    pictures = [name for name in names if name.lower().endswith(PICTURE_SUFFIXES)]
    if not pictures:
        raise SourceError(
            f"source {location}: no table ({', '.join(TABLE_SUFFIXES)}) and no picture "
            f"({', '.join(PICTURE_SUFFIXES)}) in it"
        )
    for start in range(0, len(pictures), _BATCH_ROWS):
        part = pictures[start : start + _BATCH_ROWS]
        urls = [name if name.startswith(S3) else Path(name).as_uri() for name in part]
        yield normalise(pl.DataFrame({columns.url: urls}), columns)


def build_shards(
    batches: Iterable[pl.DataFrame],
    shard_size: int,
    counts: ManifestCounts,
    *,
    allow_nsfw: bool = False,
    nsfw_values: Iterable[str] = ("NSFW",),
) -> Iterator[pl.DataFrame]:
    """Yield one ``source_manifest`` frame per shard, in source order, and fill ``counts``.

    Rows without a URL are dropped, and rows flagged NSFW (a listed word, true, or a probability above 0.5) unless allowed.
    """
    if shard_size < 1:
        raise SourceError(f"shard_size is {shard_size}: it must be at least 1")
    seen = np.empty(0, np.uint64)
    waiting: list[pl.DataFrame] = []
    number = 0
    for batch in batches:
        kept = _filtered(batch, counts, allow_nsfw, list(nsfw_values))
        ids = [sample_id(url) for url in kept["url"]]
        duplicate, seen = mark_duplicates(np.array([int(i, 16) for i in ids], np.uint64), seen)
        counts.duplicates += int(duplicate.sum())
        waiting.append(
            kept.with_columns(
                sample_id=pl.Series(ids, dtype=pl.String), duplicate_url=pl.Series(duplicate, dtype=pl.Boolean)
            )
        )
        while sum(map(len, waiting)) >= shard_size:
            rows = pl.concat(waiting)
            yield _shard(rows.head(shard_size), number)
            number += 1
            waiting = [rows.slice(shard_size)]
    rest = pl.concat(waiting) if waiting else pl.DataFrame()
    if len(rest):
        yield _shard(rest, number)


def shard_name(number: int) -> str:
    """Zero-padded and without commas: the form the Dagster UI sorts and back-fills."""
    return f"shard-{number:05d}"


def _shard(rows: pl.DataFrame, number: int) -> pl.DataFrame:
    return conform(
        rows.with_columns(shard=pl.lit(shard_name(number))).select(list(SCHEMAS["source_manifest"])), "source_manifest"
    )


def mark_duplicates(ids: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which ids (uint64 [N]) occurred before, in ``seen`` (sorted uint64) or earlier in ``ids``; and the new ``seen``."""
    repeated = np.ones(len(ids), bool)
    unique, first = np.unique(ids, return_index=True)
    repeated[first] = occurs_in(unique, seen)
    return repeated, np.union1d(seen, unique)


def occurs_in(ids: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Which ids are in ``seen``, which is sorted."""
    return np.searchsorted(seen, ids, side="right") > np.searchsorted(seen, ids)


def _filtered(batch: pl.DataFrame, counts: ManifestCounts, allow_nsfw: bool, nsfw_values: list[str]) -> pl.DataFrame:
    no_url = pl.col("url").is_null() | (pl.col("url").str.strip_chars() == "")
    word = pl.col("nsfw").str.to_uppercase()
    flagged = (
        word.is_in([*(v.upper() for v in nsfw_values), "TRUE"]) | (word.cast(pl.Float64, strict=False) > 0.5)
    ).fill_null(False)
    outcome = (
        pl.when(no_url)
        .then(pl.lit(SourceOutcome.NO_URL.value))
        .when(flagged & pl.lit(not allow_nsfw))
        .then(pl.lit(SourceOutcome.NSFW.value))
        .otherwise(pl.lit(SourceOutcome.KEPT.value))
    )
    marked = batch.with_columns(outcome=outcome)
    counts.by_outcome.update(marked["outcome"].to_list())
    return marked.filter(pl.col("outcome") == SourceOutcome.KEPT.value).drop("outcome")


def _addresses(location: str, options: Mapping[str, str] | None) -> list[str]:
    """The file at ``location``, or every file below it, sorted."""
    try:
        addresses = sorted(address for address, _ in list_address(location, options))
    except StoreError as error:
        raise SourceError(f"source {location}: {error}") from error
    if not addresses and not Path(location).expanduser().is_dir():
        raise SourceError(
            f"source {location}: no such {'object or prefix' if location.startswith(S3) else 'file or folder'}"
        )
    return addresses


def _read_table(name: str, columns: SourceColumns, storage_options: Mapping[str, str] | None) -> Iterator[pl.DataFrame]:
    options = reading_options(storage_options or {}) if name.startswith(S3) else None
    scan_text = partial(
        pl.scan_csv,
        name,
        infer_schema=False,
        truncate_ragged_lines=True,
        encoding="utf8-lossy",
        storage_options=options,
        glob=False,
    )
    kind = name.lower().rpartition(".")[2]
    try:
        if kind in ("jsonl", "ndjson"):
            # The separator occurs in no JSON text, so that a line stays whole.
            lines = scan_text(has_header=False, new_columns=["line"], separator="\x01", quote_char=None)
            yield from _read_json_lines(name, columns, lines)
            return
        if kind == "parquet":
            scan = pl.scan_parquet(name, storage_options=options, glob=False)
        else:
            scan = scan_text(separator="\t" if kind == "tsv" else ",")
        present = scan.collect_schema().names()
        _require_url(name, present, columns)
        wanted = [column for column in columns.model_dump().values() if column in present]
        for batch in scan.select(wanted).collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True):
            yield normalise(batch, columns)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise SourceError(f"source {name}: cannot be read as {kind}: {str(error).splitlines()[0]}") from error


def _read_json_lines(name: str, columns: SourceColumns, lines: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """One object a line; a line that is none becomes a row without a URL (Polars' own reader stops at the first)."""
    first = True
    for batch in lines.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True):
        rows = [_json_object(line) for line in batch["line"] if line is not None]
        if first:
            _require_url(name, list({key: None for row in rows for key in row}), columns)
            first = False
        values = {
            column: pl.Series([None if (v := row.get(column)) is None else str(v) for row in rows], dtype=pl.String)
            for column in columns.model_dump().values()
        }
        yield normalise(pl.DataFrame(values), columns)


def _json_object(line: str) -> dict[str, object]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _require_url(name: str, present: list[str], columns: SourceColumns) -> None:
    if columns.url not in present:
        columns_there = ", ".join(present[:12]) or "none"
        raise SourceColumnError(f"source {name}: no column {columns.url!r} for the URLs (it has {columns_there})")


def normalise(frame: pl.DataFrame, columns: SourceColumns | None = None) -> pl.DataFrame:
    """A frame with source columns as ``url, alt_text, width, height, nsfw``; values of odd types become null.

    Raises SourceColumnError where the column of URLs is missing.
    """
    columns = columns or SourceColumns()

    def column(name: str, dtype: type[pl.DataType]) -> pl.Expr:
        if name not in frame.columns:
            return pl.lit(None, dtype=dtype)
        if frame.schema[name] == pl.Binary:
            return pl.col(name).cast(pl.String, strict=False)
        if dtype == pl.Int32:
            return pl.col(name).cast(pl.Float64, strict=False).round().cast(pl.Int32, strict=False)
        return pl.col(name).cast(dtype, strict=False)

    if columns.url not in frame.columns:
        raise SourceColumnError(f"no column {columns.url!r} for the URLs")
    return frame.select(
        url=column(columns.url, pl.String),
        alt_text=column(columns.text, pl.String),
        width=column(columns.width, pl.Int32),
        height=column(columns.height, pl.Int32),
        nsfw=column(columns.nsfw, pl.String),
    )
