"""Requests to take something out: written to a removal list, and what they touch in the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from typing import Final, TypeVar

import polars as pl

from facecaption_ml.dataset.removals import RemovalList, RemovalListError, list_text
from facecaption_ml.schemas import SCHEMAS, SHARD_TABLES
from facecaption_ml.storage.base import StoreError
from facecaption_ml.storage.objects import open_parent
from facecaption_ml.storage.store import Store

_BY_FACE: Final = tuple(table for table in SHARD_TABLES if "face_id" in SCHEMAS[table])
_AT_ONCE: Final = 16  # shards that are looked into side by side
_T = TypeVar("_T")


@dataclass(frozen=True)
class Holding:
    """What a shard has of what is to be removed.

    ``rows``: table → rows. ``pictures``: table → rows with pixels; for a face, the picture that it was cut from counts as well.
    ``sha256``: of its image files.
    """

    shard: str
    rows: dict[str, int]
    pictures: dict[str, int] = field(default_factory=dict)
    sha256: frozenset[str] = frozenset()


def parse_request(line: str) -> RemovalList:
    """One line of a removal list. Raises RemovalListError for one that is none of the five kinds, or several lines."""
    if len(line.split()) != 1 or line.startswith("#"):
        raise RemovalListError(f"{line[:80]!r} is no URL, host:NAME, SHA-256, sample id or face id")
    return RemovalList.parse([line], "the request")


def record_requests(
    path: str, lines: Sequence[str], reason: str, today: date, options: Mapping[str, str] | None = None
) -> tuple[list[str], list[str]]:
    """Append lines to the list at ``path``, each under a comment with date and reason: ``(written, there already)``.

    ``path`` is a file or ``s3://bucket/key``, which ``options`` reach. The list is replaced whole, so that a reader never sees
    half of it; what it had stays as it was. Raises RemovalListError for a line that is none of the five kinds or a list that
    cannot be read or written.
    """
    try:
        before = list_text(path, options)
    except FileNotFoundError:  # nobody has asked for anything yet
        before = ""
    present = RemovalList.parse(before.splitlines(), f"list {path}")
    written: list[str] = []
    known: list[str] = []
    for line in lines:
        wider = present | parse_request(line)
        (known if len(wider) == len(present) else written).append(line)
        present = wider
    if written:
        comment = " ".join(f"# {today.isoformat()} {reason}".split())
        added = "".join(f"{comment}\n{line}\n" for line in written)
        text = before + ("\n" if before and not before.endswith("\n") else "") + added
        objects, key = open_parent(path, options)
        try:
            objects.write(key, text.encode())
        except StoreError as error:
            raise RemovalListError(f"list {path}: {error}") from error
    return written, known


def holdings(store: Store, removed: RemovalList) -> list[Holding]:
    """The shards that hold something of ``removed``, in order. Ids, URLs and hashes are read, no pixels."""
    return [held for held in _over_shards(store, lambda shard: _holding(store, shard, removed)) if held is not None]


def copies(store: Store, removed: RemovalList, held: Sequence[Holding]) -> dict[str, str]:
    """URL → SHA-256 of pictures that equal removed ones byte for byte, but that ``removed`` does not name."""
    hashes = sorted(frozenset().union(*(holding.sha256 for holding in held)))

    def look(shard: str) -> dict[str, str]:
        pictures = [_raw_images(store, shard, incomplete) for incomplete in (False, True)] if hashes else []
        same = [raw.filter(pl.col("sha256").is_in(hashes)) for raw in pictures if raw is not None]
        other = [raw.filter(~_named(raw, removed)) for raw in same]
        return {url: sha256 for raw in other for url, sha256 in raw.select("url", "sha256").iter_rows()}

    return {url: sha256 for part in _over_shards(store, look) for url, sha256 in part.items()}


def _over_shards(store: Store, look: Callable[[str], _T]) -> Iterator[_T]:
    with ThreadPoolExecutor(_AT_ONCE, "shards") as pool:
        yield from pool.map(look, store.shards("source_manifest"))


def _named(source: pl.DataFrame, removed: RemovalList) -> pl.Series:
    """Which rows of ``sample_id, url, sha256`` a list names, faces apart."""
    named = (
        source["url"].is_in(list(removed.urls))
        | source["sample_id"].is_in(list(removed.sample_ids))
        | source["sha256"].is_in(list(removed.sha256)).fill_null(False)
    )
    if removed.hosts:
        named |= pl.Series([removed.names_url(url) for url in source["url"]], dtype=pl.Boolean)
    return named.fill_null(False)


def _raw_images(store: Store, shard: str, incomplete: bool) -> pl.DataFrame | None:
    if not store.has_table("raw_images", shard, incomplete=incomplete):
        return None
    columns = ["sample_id", "url", "sha256", "status"]
    return store.read_table("raw_images", shard, columns=columns, incomplete=incomplete)


def _holding(store: Store, shard: str, removed: RemovalList) -> Holding | None:
    rows: dict[str, int] = {}
    pictures: dict[str, int] = {}
    manifest = store.read_table("source_manifest", shard, columns=["sample_id", "url"])
    raw, kept = (_raw_images(store, shard, incomplete) for incomplete in (False, True))
    images = [frame.select("sample_id", "url", "sha256") for frame in (raw, kept) if frame is not None]
    source = pl.concat([manifest.with_columns(sha256=pl.lit(None, pl.String)), *images])
    of_faces = {face_id.rpartition("_")[0] for face_id in removed.face_ids}
    samples = set(source.filter(_named(source, removed))["sample_id"])
    rows["source_manifest"] = int(manifest["sample_id"].is_in(list(samples)).sum())
    shown = samples | (of_faces & set(source["sample_id"]))
    if not shown:
        return None
    hashes = frozenset(source.filter(pl.col("sample_id").is_in(list(samples)))["sha256"].drop_nulls())
    if raw is not None:
        rows["raw_images"] = int(raw["sample_id"].is_in(list(samples)).sum())
        fetched = raw.filter(pl.col("sample_id").is_in(list(shown)) & (pl.col("status") == "ok"))
        pictures["raw_images"] = len(fetched)
    for table in _BY_FACE:
        if store.has_table(table, shard):
            ids = store.read_table(table, shard, columns=["face_id"])["face_id"]
            held = ids.str.slice(0, 16).is_in(list(samples)) | ids.is_in(list(removed.face_ids))
            rows[table] = int(held.sum())
            with_pixels = table == "face_crops" or "image" in store.stored_schema(table, shard)[0]
            if with_pixels and rows[table]:
                pictures[table] = rows[table]
    if kept is not None:
        held = kept["sample_id"].is_in(list(shown)) & (kept["status"] == "ok")
        pictures["raw_images/incomplete"] = int(held.sum())
    return Holding(shard, rows, {table: count for table, count in pictures.items() if count}, hashes)
