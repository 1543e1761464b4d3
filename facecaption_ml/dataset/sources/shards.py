"""Rows of a source become shards: which are kept, their ids, and which URLs occurred before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import polars as pl

from facecaption_ml.dataset.sources.columns import PLACES
from facecaption_ml.dataset.sources.counts import EXAMPLES, ManifestCounts, SourceError, SourceOutcome
from facecaption_ml.dataset.sources.names import table_name
from facecaption_ml.schemas import SCHEMAS, conform

_TALLIED: Final = (SourceOutcome.NO_URL, SourceOutcome.NSFW, SourceOutcome.KEPT)


def sample_id(url: str) -> str:
    """The first 16 hex digits of the SHA-256 of a URL or path."""
    return _digest(url).hex()


def _digest(url: str) -> bytes:
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).digest()[:8]


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
    seen = SeenIds()
    waiting: list[pl.DataFrame] = []
    waiting_rows = number = 0
    for batch in batches:
        kept = _filtered(batch, counts, allow_nsfw, list(nsfw_values))
        digests = [_digest(url) for url in kept["url"].to_list()]
        ids = [digest.hex() for digest in digests]
        duplicate = seen.mark(np.frombuffer(b"".join(digests), ">u8").astype(np.uint64))
        counts.duplicates += int(duplicate.sum())
        waiting.append(
            kept.with_columns(
                sample_id=pl.Series(ids, dtype=pl.String), duplicate_url=pl.Series(duplicate, dtype=pl.Boolean)
            )
        )
        waiting_rows += len(kept)
        if waiting_rows < shard_size:
            continue
        rows = pl.concat(waiting)
        whole = len(rows) // shard_size * shard_size
        for start in range(0, whole, shard_size):
            yield _shard(rows.slice(start, shard_size), number)
            number += 1
        waiting, waiting_rows = [rows.slice(whole)], len(rows) - whole
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


class SeenIds:
    """Ids (uint64) that occurred before, 8 bytes each: sorted arrays, each more than twice as long as the next."""

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []

    def mark(self, ids: np.ndarray) -> np.ndarray:
        """Which ids [N] occurred before, earlier in ``ids`` too; from now on all of them did."""
        repeated = np.ones(len(ids), bool)
        unique, first = np.unique(ids, return_index=True)
        known = np.zeros(len(unique), bool)
        for run in self._runs:
            known |= occurs_in(unique, run)
        repeated[first] = known
        new = unique[~known]
        while self._runs and len(self._runs[-1]) <= 2 * len(new):
            new = np.sort(np.concatenate([self._runs.pop(), new]), kind="stable")  # of two sorted runs: a merge
        if len(new):
            self._runs.append(new)
        return repeated


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
    for value in _TALLIED:
        rows = marked.filter(pl.col("outcome") == value.value)
        if value is SourceOutcome.KEPT:
            kept = rows
        elif len(rows) and set(PLACES) <= set(batch.columns):
            _name_dropped(rows, value.value, counts)
        if len(rows):
            counts.by_outcome[value.value] += len(rows)
    return kept.drop("outcome", *(place for place in PLACES if place in batch.columns))


def _name_dropped(rows: pl.DataFrame, outcome: str, counts: ManifestCounts) -> None:
    """Name the first rows of each reason."""
    missing = max(0, EXAMPLES - counts.by_outcome[outcome])
    for file, place, text in rows.select(*PLACES, "alt_text").head(missing).iter_rows():
        found = table_name(file)
        unit = "row" if found and found.kind == "parquet" else "line" if found else "picture"
        counts.name_dropped(outcome, file, f"{unit} {place}", text or "")
