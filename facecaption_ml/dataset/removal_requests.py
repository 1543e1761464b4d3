"""Requests to take something out: written to a removal list, and what they touch in the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final

import polars as pl

from facecaption_ml.dataset.provenance import over_shards
from facecaption_ml.dataset.removals import RemovalList, RemovalListError, list_text
from facecaption_ml.schemas import SCHEMAS, SHARD_TABLES, empty
from facecaption_ml.storage.base import StoreError
from facecaption_ml.storage.objects import open_parent
from facecaption_ml.storage.store import Store

_BY_FACE: Final = tuple(table for table in SHARD_TABLES if "face_id" in SCHEMAS[table])


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
    looked = over_shards(store, "source_manifest", lambda shard: _holding(store, shard, removed))
    return [held for _, held in looked if held is not None]


def copies(store: Store, removed: RemovalList, held: Sequence[Holding]) -> dict[str, str]:
    """URL → SHA-256 of pictures that equal removed ones byte for byte, but that ``removed`` does not name."""
    hashes = sorted(frozenset().union(*(holding.sha256 for holding in held)))
    same: dict[str, str] = {}
    if not hashes:
        return same
    for _, raw in over_shards(store, "source_manifest", lambda shard: pl.concat(_raw_images(store, shard).values())):
        others = raw.filter(pl.col("sha256").is_in(hashes) & ~_named(raw, removed))
        same.update(others.select("url", "sha256").iter_rows())
    return same


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


def _raw_images(store: Store, shard: str) -> dict[str, pl.DataFrame]:
    """``raw_images`` and, of an unfinished shard, ``raw_images/incomplete``; without rows where there is none."""
    columns = ["sample_id", "url", "sha256", "status"]
    return {
        table: store.read_table("raw_images", shard, columns=columns, incomplete=incomplete)
        if store.has_table("raw_images", shard, incomplete=incomplete)
        else empty("raw_images").select(columns)
        for table, incomplete in (("raw_images", False), ("raw_images/incomplete", True))
    }


def _holding(store: Store, shard: str, removed: RemovalList) -> Holding | None:
    manifest = store.read_table("source_manifest", shard, columns=["sample_id", "url"])
    raw = _raw_images(store, shard)
    source = pl.concat([manifest, *raw.values()], how="diagonal")
    named = source.filter(_named(source, removed))
    samples = named["sample_id"].unique().to_list()
    of_faces = {face_id.rpartition("_")[0] for face_id in removed.face_ids}
    shown = [*samples, *(of_faces & set(source["sample_id"]))]
    if not shown:
        return None
    rows = {"source_manifest": int(manifest["sample_id"].is_in(samples).sum())}
    if store.has_table("raw_images", shard):
        rows["raw_images"] = int(raw["raw_images"]["sample_id"].is_in(samples).sum())
    fetched = (pl.col("sample_id").is_in(shown) & (pl.col("status") == "ok")).sum()
    pictures = {table: int(frame.select(fetched).item()) for table, frame in raw.items()}
    for table in _BY_FACE:
        if store.has_table(table, shard):
            ids = store.read_table(table, shard, columns=["face_id"])["face_id"]
            held = ids.str.slice(0, 16).is_in(samples) | ids.is_in(list(removed.face_ids))
            rows[table] = int(held.sum())
            if table == "face_crops" or "image" in store.stored_schema(table, shard)[0]:
                pictures[table] = rows[table]
    pictures["raw_images/incomplete"] = pictures.pop("raw_images/incomplete")  # the last to be shown
    hashes = source.filter(pl.col("sample_id").is_in(samples))["sha256"].drop_nulls()
    return Holding(shard, rows, {table: count for table, count in pictures.items() if count}, frozenset(hashes))
