"""Which column of a table is which: as they are named, then without regard to case and blanks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

from facecaption_ml.dataset.options import SourceColumns
from facecaption_ml.dataset.sources.counts import (
    ManifestCounts,
    Repair,
    SourceColumnError,
    SourceOutcome,
    shown,
)

MAX_URL_BYTES: Final = 32_768
"""A longer URL is dropped: no server takes one."""
MAX_TEXT_CHARACTERS: Final = 65_536
"""A longer alt text is cut."""
_MAX_WORD_CHARACTERS: Final = 1_000
PLACES: Final = ("source_file", "source_place")
"""Columns of a batch that say where a row comes from; ``source_place`` is a line or a row, counted from 1."""


def find_columns(
    name: str,
    present: Sequence[str],
    columns: SourceColumns,
    counts: ManifestCounts,
    *,
    pictures: bool = False,
    prefer: bool = False,
) -> dict[str, int]:
    """The place of each column of ``SourceColumns`` that the table has.

    It has ``url`` or, with ``pictures``, ``file``; not both, and ``file`` is taken first with ``prefer``. Raises
    SourceColumnError where it has neither.
    """
    exact = {column: place for place, column in reversed(list(enumerate(present)))}
    folded = {column.strip().casefold(): place for place, column in reversed(list(enumerate(present)))}
    found = {}
    for field, wanted in columns.model_dump().items():
        place = exact.get(wanted, folded.get(wanted.strip().casefold()))
        if place is not None:
            found[field] = place
    if "file" in found and pictures and (prefer or "url" not in found):
        found.pop("url", None)
    else:
        found.pop("file", None)
    listed = ", ".join(shown(column) for column in present[:12]) or "none"
    if not {"url", "file"} & found.keys():
        hint = "; its first line must name its columns" if any("://" in column for column in present) else ""
        if any(mark in column for column in present for mark in ";|\t") or (len(present) == 1 and "," in present[0]):
            hint = "; columns are separated by commas in a .csv, by tabs in a .tsv"
        if any("\0" in column for column in present):
            hint = "; it is no text of UTF-8, nor of UTF-16 with a byte order mark: convert it"
        raise SourceColumnError(f"source {shown(name)}: no column {columns.url!r} for the URLs (it has {listed}){hint}")
    if "text" not in found and len(present) > len(found):
        counts.notes.append(
            f"{shown(name)}: no column {columns.text!r} for the alt texts (it has {listed}); they are empty"
        )
    return found


def normalise(frame: pl.DataFrame, columns: SourceColumns | None = None) -> pl.DataFrame:
    """A frame with source columns as ``url, alt_text, width, height, nsfw``; values of odd types become null.

    Raises SourceColumnError where the column of URLs is missing.
    """
    columns = columns or SourceColumns()
    if columns.url not in frame.columns:
        raise SourceColumnError(f"no column {columns.url!r} for the URLs")
    names = {field: name for field, name in columns.model_dump().items() if name in frame.columns}
    return typed(frame.select(**{field: pl.col(name) for field, name in names.items()}))


def typed(frame: pl.DataFrame) -> pl.DataFrame:
    """A frame of ``url`` or ``file`` and any of ``text, width, height, nsfw`` as ``url, alt_text, width, height, nsfw``, PLACES
    kept."""

    def column(name: str, dtype: type[pl.DataType]) -> pl.Expr:
        if name not in frame.columns:
            return pl.lit(None, dtype=dtype)
        if frame.schema[name] == pl.Binary:
            return pl.col(name).cast(pl.String, strict=False)
        if dtype == pl.String and frame.schema[name].is_float():  # NaN: as pandas has it for what is missing
            return pl.col(name).fill_nan(None).cast(pl.String)
        if dtype == pl.Int32:
            return pl.col(name).cast(pl.Float64, strict=False).round().cast(pl.Int32, strict=False)
        return pl.col(name).cast(dtype, strict=False)

    return frame.select(
        url=column("url" if "url" in frame.columns else "file", pl.String),
        alt_text=column("text", pl.String),
        width=column("width", pl.Int32),
        height=column("height", pl.Int32),
        nsfw=column("nsfw", pl.String),
        **{place: pl.col(place) for place in PLACES if place in frame.columns},
    )


def bounded(name: str, unit: str, frame: pl.DataFrame, counts: ManifestCounts) -> pl.DataFrame:
    """A typed batch without URLs that are too long, and with texts cut; both are counted, ``unit`` being line or row."""
    long = frame.filter(pl.col("url").str.len_bytes() > MAX_URL_BYTES)
    if len(long):
        for place, url in long.select("source_place", "url").iter_rows():
            counts.drop(SourceOutcome.URL_TOO_LONG, name, f"{unit} {place}", url[:200])
        frame = frame.filter((pl.col("url").str.len_bytes() <= MAX_URL_BYTES).fill_null(True))
    cut = frame.filter(pl.col("alt_text").str.len_bytes() > MAX_TEXT_CHARACTERS)
    cut = cut.filter(pl.col("alt_text").str.len_chars() > MAX_TEXT_CHARACTERS)
    for place, text in cut.select("source_place", "alt_text").iter_rows():
        counts.note_repair(Repair.TEXT_CUT, name, f"{unit} {place}", text[:200])
    if len(cut):
        frame = frame.with_columns(pl.col("alt_text").str.slice(0, MAX_TEXT_CHARACTERS))
    return frame.with_columns(pl.col("nsfw").str.slice(0, _MAX_WORD_CHARACTERS), source_file=pl.lit(name))


def as_frame(values: Mapping[str, Sequence[str | None]], places: Sequence[int]) -> pl.DataFrame:
    """A typed batch from texts by field, empty ones as none."""
    columns = {field: pl.Series(field, cells, dtype=pl.String) for field, cells in values.items()}
    frame = pl.DataFrame({**columns, "source_place": pl.Series(places, dtype=pl.Int64)})
    return typed(without_empty(frame))


def without_empty(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with empty texts as none: a table of text cannot tell them apart."""
    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    return frame.with_columns(pl.when(pl.col(name) != "").then(pl.col(name)).alias(name) for name in texts)
