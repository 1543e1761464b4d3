"""Further manifests after the first source: which have been ingested, and which shards each of them became.

The ledger ``manifests.json`` in the store is what makes this repeatable. It says from which shard on the shards are those of
further manifests, and lists the manifests in the order in which they came with how many shards each became. A manifest
enters it when its last shard is written: shards after the ledger's last one are what a killed run left behind, and the next
run writes over them. So the numbers of shards never change, and no manifest becomes shards twice.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from facecaption_ml.dataset.sources import TABLE_SUFFIXES, SourceError, is_table, occurs_in, shard_name
from facecaption_ml.dataset.sources.names import passed_over_kind
from facecaption_ml.storage.base import S3, StoreError
from facecaption_ml.storage.objects import find_address, list_address
from facecaption_ml.storage.store import Store

LEDGER: Final = "manifests.json"
_TABLE: Final = "source_manifest"


@dataclass(frozen=True)
class Manifest:
    """A table of URLs as it was seen; ``version`` changes with its content: size and time locally, size and ETag on S3."""

    location: str
    version: str

    @property
    def id(self) -> str:
        """16 hex digits that stand for this file in this state."""
        return hashlib.sha256(f"{self.location}\n{self.version}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class IngestedManifest:
    """A manifest in the ledger. ``first`` and ``shards`` number its shards; ``digest`` stands for its content."""

    id: str
    location: str
    version: str
    digest: str
    first: int
    shards: int
    rows: int

    @property
    def names(self) -> list[str]:
        return [shard_name(number) for number in range(self.first, self.first + self.shards)]


@dataclass(frozen=True)
class Ledger:
    """The manifests ingested, in order. ``start`` is the number of the first shard that is not of the first source."""

    start: int | None = None
    manifests: tuple[IngestedManifest, ...] = field(default=())

    @classmethod
    def read(cls, store: Store) -> Ledger:
        """The store's ledger, or an empty one. Raises StoreError where it is damaged."""
        return cls._parse(store.read_bytes(LEDGER), store) if store.exists(LEDGER) else cls()

    def write(self, store: Store, before: Ledger) -> None:
        """Put it in the place of ``before``. Raises SourceError where another process has written one meanwhile."""

        def change(data: bytes | None) -> bytes:
            present = self._parse(data, store) if data else Ledger()
            if present not in (before, self):
                raise SourceError("another manifest was ingested meanwhile; run this again")
            return json.dumps(dataclasses.asdict(self), indent=1).encode()

        store.update(LEDGER, change)

    @classmethod
    def _parse(cls, data: bytes, store: Store) -> Ledger:
        try:
            ledger = json.loads(data)
            return cls(ledger["start"], tuple(IngestedManifest(**entry) for entry in ledger["manifests"]))
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"cannot read {store.uri(LEDGER)}: {error}; bring back an earlier copy of it") from error

    def find(self, manifest: Manifest) -> IngestedManifest | None:
        return next((entry for entry in self.manifests if entry.id == manifest.id), None)

    def same_content(self, digest: str) -> IngestedManifest | None:
        return next((entry for entry in self.manifests if entry.digest == digest), None)

    def begun(self, store: Store, registered: Iterable[str]) -> Ledger:
        """This ledger, with a ``start`` after every shard that there is."""
        if self.start is not None:
            return self
        numbers = [_number(name) for name in {*store.shards(_TABLE), *registered}]
        return dataclasses.replace(self, start=max(numbers, default=-1) + 1)

    @property
    def next_number(self) -> int:
        """Of the next shard."""
        assert self.start is not None
        return self.start + sum(entry.shards for entry in self.manifests)

    @property
    def names(self) -> list[str]:
        """The shards of all manifests in the ledger, in order."""
        return [name for entry in self.manifests for name in entry.names]

    def with_entry(self, manifest: Manifest, digest: str, shards: int, rows: int) -> Ledger:
        """This ledger, with a manifest whose shards were written from ``next_number`` on."""
        first = self.next_number
        entry = IngestedManifest(manifest.id, manifest.location, manifest.version, digest, first, shards, rows)
        return dataclasses.replace(self, manifests=(*self.manifests, entry))


def list_manifests(inbox: str, options: Mapping[str, str] | None = None) -> list[Manifest]:
    """The tables under a folder or ``s3://bucket/prefix``, sorted by address.

    Hidden and unfinished files are skipped, and markers such as Spark's (``passed_over_kind``).

    Raises SourceError where the inbox is not there or cannot be reached.
    """
    if not inbox.startswith(S3) and not Path(inbox).expanduser().is_dir():
        raise SourceError(f"inbox {inbox}: no such folder")
    try:
        listing = list(list_address(inbox, options))
    except StoreError as error:
        raise SourceError(f"inbox {inbox}: {error}") from error
    manifests = [Manifest(address, stored.version) for address, stored in listing if _is_manifest(stored.key)]
    return sorted(manifests, key=lambda manifest: manifest.location)


def stat_manifest(location: str, options: Mapping[str, str] | None = None) -> Manifest:
    """One manifest as it is now. Raises SourceError where there is none."""
    try:
        present = find_address(location, options)
    except StoreError as error:
        raise SourceError(f"manifest {location}: {error}") from error
    if present is None or not _is_manifest(location.rpartition("/")[2]):
        raise SourceError(f"manifest {location}: no such table ({', '.join(TABLE_SUFFIXES)})")
    return Manifest(present[0], present[1].version)


def content_digest(manifest: Manifest) -> str:
    """Stands for a manifest's content: SHA-256 of a local file, on S3 the size and ETag that are its version."""
    if manifest.location.startswith(S3):
        return manifest.version
    with Path(manifest.location).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_ids(store: Store, before: int) -> np.ndarray:
    """The ids (sorted uint64) of the rows of every shard with a number below ``before``: 8 bytes a row in memory."""
    earlier = [shard for shard in store.shards(_TABLE) if _number(shard) < before]
    parts = [_ids(store.read_table(_TABLE, shard, columns=["sample_id"])) for shard in earlier]
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, np.uint64)


def appended(frames: Iterable[pl.DataFrame], first: int, known: np.ndarray) -> Iterator[pl.DataFrame]:
    """``source_manifest`` frames numbered from ``first`` on, whose URLs with an id in ``known`` are marked as repeated."""
    for number, frame in enumerate(frames, start=first):
        before = pl.Series(occurs_in(_ids(frame), known), dtype=pl.Boolean)
        yield frame.with_columns(duplicate_url=pl.col("duplicate_url") | before, shard=pl.lit(shard_name(number)))


def delete_leftovers(store: Store, ledger: Ledger) -> None:
    """Remove the shards that a killed run wrote after the ledger's last one."""
    kept = ledger.next_number
    for shard in store.shards(_TABLE):
        if _number(shard) >= kept:
            store.delete(store.table_key(_TABLE, shard))


def _number(shard: str) -> int:
    return int(shard.rpartition("-")[2])


def _ids(frame: pl.DataFrame) -> np.ndarray:
    return frame["sample_id"].str.to_integer(base=16, dtype=pl.UInt64).to_numpy()


def _is_manifest(name: str) -> bool:
    return is_table(name) and passed_over_kind(name) is None
