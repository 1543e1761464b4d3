"""Lists of images become shards of ``source_manifest``: the first source from shard 0 on, further manifests after the last.

The ledger (``manifests.py``) tells the two apart: a source may be read again within its own shards, a manifest enters the
ledger once its last shard is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import polars as pl

from facecaption_ml.dataset.manifests import (
    IngestedManifest,
    Ledger,
    Manifest,
    appended,
    content_digest,
    delete_leftovers,
    known_ids,
    stat_manifest,
)
from facecaption_ml.dataset.options import ShardRules
from facecaption_ml.dataset.removals import REMOVED, RemovalList, without_removed
from facecaption_ml.dataset.sources import ManifestCounts, SourceError, build_shards, shard_name
from facecaption_ml.storage.lease import WAIT_S, Check
from facecaption_ml.storage.store import Store


def reading_lists(
    store: Store, *, wait_s: float = WAIT_S, on_wait: Callable[[str], None] = lambda line: None
) -> AbstractContextManager[Check]:
    """Within the block this process alone changes which shards there are and what rows of the source they have.

    Two intakes would number the same shards, and a removal would empty rows that a reading brings back. See
    ``lease.working_alone``.
    """
    return store.working_alone(
        "source_manifest", f"a reading of lists into {store.root}", wait_s=wait_s, on_wait=on_wait
    )


@dataclass(frozen=True)
class Ingested:
    """What became of a list: its shards, the rows in them, its own rows by outcome, and the ledger after it.

    ``removed_rows``: rows that the removal list names.
    ``known``: the entry of the ledger that has the same content already, so that nothing was written.
    """

    ledger: Ledger
    names: list[str] = field(default_factory=list)
    rows: int = 0
    removed_rows: int = 0
    counts: ManifestCounts = field(default_factory=ManifestCounts)
    known: IngestedManifest | None = None


def ingest(
    batches: Iterable[pl.DataFrame],
    store: Store,
    rules: ShardRules,
    on_progress: Callable[[int, int], None],
    manifest: Manifest | None = None,
    *,
    registered: Iterable[str] = (),
    options: Mapping[str, str] | None = None,
    removed: RemovalList | None = None,
    counts: ManifestCounts | None = None,
) -> Ingested:
    """Write the shards of a list whose ``batches`` are those of ``read_source``.

    Without ``manifest`` it is the first source, whose shards take the place of an earlier reading of it. A ``manifest`` comes
    after the last shard and enters the ledger; one that is in it already, or has the content of one that is, is not read.
    ``registered`` are shards known elsewhere, none of which it writes over; ``options`` reach it on S3. ``on_progress`` gets
    the rows written and 0. Rows that ``removed`` names by URL, host or sample id keep their place and id, and nothing else.
    ``counts`` are those that ``read_source`` fills.

    Raises SourceError where the source has no usable row or has grown into the shards of a manifest, or where the manifest
    changes while it is read or another one is ingested meanwhile: call it within ``reading_lists``.
    """
    ledger, counts = Ledger.read(store), counts if counts is not None else ManifestCounts()
    frames = build_shards(batches, counts=counts, **vars(rules))
    if removed:
        frames = (without_removed(frame, removed) for frame in frames)
    if manifest is None:
        ingested = _write(_within(frames, ledger.start), store, ledger, counts, on_progress)
        if not ingested.names:
            said = f"; {'; '.join(counts.lines())}" if counts.rows else ""
            rows = f"no usable row among {counts.rows}" if counts.rows else f"no row in it (files read: {counts.files})"
            raise SourceError(f"{rows}{said}")
        return ingested
    before, ledger = ledger, ledger.begun(store, registered)
    ledger.write(store, before)
    digest = content_digest(manifest)
    known = ledger.find(manifest) or ledger.same_content(digest)
    if known:
        ingested = Ingested(ledger, counts=counts, known=known)
    else:
        delete_leftovers(store, ledger)
        first = ledger.next_number
        ingested = _write(appended(frames, first, known_ids(store, first)), store, ledger, counts, on_progress)
    if ledger.find(manifest):
        return ingested
    if stat_manifest(manifest.location, options) != manifest:
        raise SourceError(f"manifest {manifest.location}: it has changed while it was read; run this again")
    before, ledger = ledger, ledger.with_entry(manifest, digest, shards=len(ingested.names), rows=counts.rows)
    ledger.write(store, before)
    return replace(ingested, ledger=ledger)


def _within(frames: Iterable[pl.DataFrame], end: int | None) -> Iterator[pl.DataFrame]:
    """The source's shards; ``end`` is the number of the first shard that is another manifest's, if there is one."""
    for number, frame in enumerate(frames):
        if end is not None and number >= end:
            last = shard_name(end - 1) if end else "nothing"
            raise SourceError(
                f"it has grown past {last}, and {shard_name(number)} is another manifest's: "
                "give what is new a manifest of its own"
            )
        yield frame


def _write(
    frames: Iterable[pl.DataFrame],
    store: Store,
    ledger: Ledger,
    counts: ManifestCounts,
    on_progress: Callable[[int, int], None],
) -> Ingested:
    names: list[str] = []
    rows = duplicates = removed = 0
    for frame in frames:
        names.append(frame["shard"][0])
        store.write_table("source_manifest", frame, names[-1])
        rows += len(frame)
        duplicates += int(frame["duplicate_url"].sum())
        removed += int((frame["url"] == REMOVED).sum())
        on_progress(rows, 0)
    counts.duplicates = duplicates  # those of earlier shards too
    return Ingested(ledger, names, rows, removed, counts)
