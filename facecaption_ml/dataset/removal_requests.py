"""Requests to take something out: written to a removal list, what they touch in the tables, and the rows they empty at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final

import polars as pl

from facecaption_ml.dataset.provenance import over, over_shards
from facecaption_ml.dataset.removals import (
    REMOVED,
    RemovalList,
    RemovalListError,
    lines_of,
    list_text,
    text_of,
    without_addresses,
)
from facecaption_ml.schemas import SCHEMAS, SHARD_TABLES, SOURCE, empty
from facecaption_ml.storage.base import StoreError
from facecaption_ml.storage.objects import open_parent
from facecaption_ml.storage.store import Store

_BY_FACE: Final = tuple(table for table in SHARD_TABLES if "face_id" in SCHEMAS[table])
_TEXTS: Final = ("url", "alt_text", "caption", "template_caption")
_SAMPLE: Final = pl.col("face_id").str.slice(0, 16)


@dataclass(frozen=True)
class Holding:
    """What a shard has of what is to be removed.

    ``rows``: table → rows that still say something. ``pictures``: table → rows with pixels; for a face, the picture that it
    was cut from counts as well. ``sha256``: of its image files. ``samples``: ids of the rows that go. ``registered``: whether
    the source has the shard; of those that left it, nothing is rebuilt.
    """

    shard: str
    rows: dict[str, int]
    pictures: dict[str, int] = field(default_factory=dict)
    sha256: frozenset[str] = frozenset()
    samples: frozenset[str] = frozenset()
    registered: bool = True


def parse_request(line: str) -> RemovalList:
    """One line of a removal list. Raises RemovalListError for one that is none of the five kinds, or several lines."""
    if len(line.split()) != 1 or line.startswith("#"):
        blanks = " (write a blank in a URL as %20)" if "://" in line else ""
        raise RemovalListError(f"{line[:80]!r} is no URL, host:NAME, SHA-256, sample id or face id{blanks}")
    return RemovalList.parse([line], "the request")


def record_requests(
    path: str, lines: Sequence[str], reason: str, today: date, options: Mapping[str, str] | None = None
) -> tuple[list[str], list[str]]:
    """Append lines to the list at ``path``, each under a comment with date and reason: ``(written, there already)``.

    ``path`` is a file or ``s3://bucket/key``, which ``options`` reach. The list is replaced whole, so that a reader never sees
    half of it; what it had stays as it was, also where another process appends at the same moment. Raises RemovalListError for
    a line that is none of the five kinds or a list that cannot be read or written.
    """
    written: list[str] = []
    known: list[str] = []

    def append(data: bytes | None) -> bytes | None:
        written.clear()
        known.clear()
        before = text_of(data or b"", path)
        present = RemovalList.parse(lines_of(before), f"list {path}")
        for line in lines:
            wider = present | parse_request(line)
            (known if len(wider) == len(present) else written).append(line)
            present = wider
        comment = " ".join(f"# {today.isoformat()} {reason}".split())
        added = "".join(f"{comment}\n{line}\n" for line in written)
        return (before + ("\n" if before and not before.endswith("\n") else "") + added).encode() if written else None

    with contextlib.suppress(FileNotFoundError):  # nobody has asked for anything yet
        list_text(path, options)  # raises where the place of the list cannot be reached, which is no empty list
    objects, key = open_parent(path, options)
    try:
        objects.update(key, append)
    except StoreError as error:
        raise RemovalListError(f"list {path}: {error}") from error
    return written, known


@dataclass(frozen=True)
class Survey:
    """``held``: the shards that hold something of what is to be removed, in order. ``samples``: the ids of all rows that go,
    of those too whose tables are clean already. ``released``: rows of the packed release that must go. ``pictured``: shards
    that have nothing else than pictures with a face that is to go, which stay for the others in them. ``emptied``: the names of
    shards of which rows have been taken out already."""

    held: list[Holding]
    samples: frozenset[str]
    released: int = 0
    pictured: list[Holding] = field(default_factory=list)
    emptied: list[str] = field(default_factory=list)


def survey(store: Store, removed: RemovalList) -> Survey:
    """Where what ``removed`` names is. Ids, URLs and hashes are read, no pixels.

    Shards that left the source are among the holdings, and so is what earlier requests emptied in the manifest but no rebuild
    has taken out of the later tables yet.
    """
    tables: dict[str, list[tuple[str, bool]]] = {}
    for table in SHARD_TABLES:
        for key in store.keys(f"{table}/"):
            *_, folder, name = key.split("/")
            if name.endswith(".parquet"):
                tables.setdefault(name.removesuffix(".parquet"), []).append((table, folder == "incomplete"))
    registered = frozenset(store.shards(SOURCE))
    looked = over(
        sorted(tables), lambda shard: _holding(store, shard, sorted(tables[shard], key=_order), removed, registered)
    )
    everywhere = [holding for _, holding in looked]
    samples = frozenset[str]().union(*(holding.samples for holding in everywhere))
    held = [holding for holding in everywhere if any(holding.rows.values())]
    pictured = [holding for holding in everywhere if holding.pictures and not any(holding.rows.values())]
    emptied = [holding.shard for holding in everywhere if holding.samples and not any(holding.rows.values())]
    return Survey(held, samples, _released(store, removed, samples), pictured, emptied)


def holdings(store: Store, removed: RemovalList) -> list[Holding]:
    """The shards that hold something of ``removed``, in order: see ``survey``."""
    return survey(store, removed).held


def _released(store: Store, removed: RemovalList, samples: frozenset[str]) -> int:
    """Rows of the packed release that must go."""
    number = 0
    for key in store.keys("release/data/"):
        with store.reading_file(key) as path:
            rows = pl.read_parquet(path, columns=["face_id", "url"])
        named = _named(rows.select(_SAMPLE.alias("sample_id"), "url"), removed)
        named |= rows.select(_SAMPLE.is_in(list(samples)) | pl.col("face_id").is_in(list(removed.face_ids))).to_series()
        number += int(named.sum())
    return number


def copies(store: Store, removed: RemovalList, held: Sequence[Holding]) -> dict[str, str]:
    """URL → SHA-256 of pictures that equal removed ones byte for byte, but that ``removed`` does not name."""
    hashes = sorted(frozenset().union(*(holding.sha256 for holding in held)))
    same: dict[str, str] = {}
    if not hashes:
        return same
    for _, raw in over_shards(store, SOURCE, lambda shard: pl.concat(_raw_images(store, shard).values())):
        others = raw.filter(pl.col("sha256").is_in(hashes))
        others = others.filter(~_named(others, removed))
        same.update(others.select("url", "sha256").iter_rows())
    return same


def remove_addresses(store: Store, held: Sequence[Holding]) -> None:
    """Empty the rows of ``source_manifest`` that are to go: ``removed`` for the URL, no text.

    Places and sample ids stay, so that nothing else moves. What is made from the manifest next has neither URL nor text.
    """
    for holding in held:
        if not holding.registered or not holding.samples:
            continue
        manifest = store.read_table(SOURCE, holding.shard)
        rows = manifest["sample_id"].is_in(list(holding.samples)) & (manifest["url"].fill_null("") != REMOVED)
        if rows.any():
            store.write_table(SOURCE, without_addresses(manifest, rows), holding.shard)


def words_of(store: Store, held: Sequence[Holding], removed: RemovalList) -> Iterator[tuple[str, frozenset[str]]]:
    """The URLs and texts of what goes, as they stand in the tables: ``("url" or "text", values)`` of a column each."""
    for holding in held:
        for table in SHARD_TABLES:
            for incomplete in (False, True):
                if not store.has_table(table, holding.shard, incomplete=incomplete):
                    continue
                present = store.stored_schema(table, holding.shard, incomplete=incomplete)[0]
                key = "face_id" if "face_id" in present else "sample_id"
                columns = [key, *(column for column in _TEXTS if column in present)]
                frame = store.read_table(table, holding.shard, columns=columns, incomplete=incomplete)
                sample = _SAMPLE if key == "face_id" else pl.col(key)
                whole = sample.is_in(list(holding.samples))
                for column in columns[1:]:
                    # The URL and text of a picture are not those of one face in it.
                    of_face = key == "face_id" and column not in ("url", "alt_text")
                    rows = whole | pl.col("face_id").is_in(list(removed.face_ids)) if of_face else whole
                    values = frozenset(frame.filter(rows)[column].drop_nulls()) - {REMOVED, ""}
                    yield "url" if column == "url" else "text", values


def has_removals(store: Store, shard: str, removed: RemovalList) -> bool:
    """Whether something of a shard was removed, or is to be: then what was kept beside its tables may hold it too."""
    if not store.has_table(SOURCE, shard):
        return False
    manifest = store.read_table(SOURCE, shard, columns=["sample_id", "url"])
    return bool((_named(manifest, removed) | manifest["sample_id"].is_in(list(removed.samples_of_faces))).any())


def _named(source: pl.DataFrame, removed: RemovalList) -> pl.Series:
    """Which rows of ``sample_id, url`` and perhaps ``sha256`` a list names or were emptied before, faces apart."""
    named = (source["url"] == REMOVED).fill_null(False) | source["sample_id"].is_in(list(removed.sample_ids))
    if "sha256" in source.columns:
        named |= source["sha256"].is_in(list(removed.sha256)).fill_null(False)
    if removed.urls or removed.hosts:
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


def _order(place: tuple[str, bool]) -> tuple[bool, int]:
    return place[1], SHARD_TABLES.index(place[0])


def _addresses(store: Store, shard: str, table: str, incomplete: bool) -> pl.DataFrame:
    """The ids of a shard's rows, and what tells whether they are listed."""
    wanted = ("face_id",) if table in _BY_FACE else ("sample_id", "sha256", "status")
    columns = [name for name in SCHEMAS[table] if name in (*wanted, "url")]
    return store.read_table(table, shard, columns=columns, incomplete=incomplete)


def _holding(
    store: Store, shard: str, places: Iterable[tuple[str, bool]], removed: RemovalList, registered: frozenset[str]
) -> Holding:
    """``places``: the tables that have the shard, each with whether those are its unfinished rows."""
    faces = list(removed.face_ids)
    of_faces = removed.samples_of_faces
    by_sample = {place: _addresses(store, shard, *place) for place in places if place[0] not in _BY_FACE}
    by_face: dict[tuple[str, bool], pl.DataFrame] = {}
    source = pl.concat([empty("raw_images").select("sample_id", "url", "sha256"), *by_sample.values()], how="diagonal")
    named = _named(source, removed)
    # Of most shards nothing is listed, and then their later tables are not opened; only a shard that left the source may
    # have lost the rows that say where its faces came from.
    if named.any() or shard not in registered or source["sample_id"].is_in(list(of_faces)).any():
        by_face = {place: _addresses(store, shard, *place) for place in places if place[0] in _BY_FACE}
        known = [frame.select(sample_id=_SAMPLE, url="url") for frame in by_face.values() if "url" in frame.columns]
        source = pl.concat([source, *known], how="diagonal")
        named = _named(source, removed)
    samples = frozenset(source.filter(named)["sample_id"])
    shown = [*samples, *of_faces]
    rows: dict[str, int] = {}
    pictures: dict[str, int] = {}
    for (table, incomplete), frame in by_sample.items():
        place = f"{table}/incomplete" if incomplete else table
        has_pixels = (
            frame["status"] == "ok" if "status" in frame.columns else pl.Series([False] * len(frame), dtype=pl.Boolean)
        )
        says = (frame["url"].fill_null("") != REMOVED) | has_pixels
        rows[place] = int((frame["sample_id"].is_in(list(samples)) & says).sum())
        pictures[place] = int((frame["sample_id"].is_in(shown) & has_pixels).sum())
    for (table, incomplete), frame in by_face.items():
        place = f"{table}/incomplete" if incomplete else table
        held = frame.select(_SAMPLE.is_in(list(samples)) | pl.col("face_id").is_in(faces)).to_series()
        rows[place] = int(held.sum())
        if "image" in store.stored_schema(table, shard, incomplete=incomplete)[0]:
            pictures[place] = rows[place]
    hashes = frozenset(source.filter(pl.col("sample_id").is_in(list(samples)))["sha256"].drop_nulls())
    pictures = {place: count for place, count in pictures.items() if count}
    return Holding(shard, rows, pictures, hashes, samples, shard in registered)
