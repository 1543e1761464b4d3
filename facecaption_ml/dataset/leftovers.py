"""What lies in a store and takes part in nothing: shards that left the source, unfinished tries of finished shards."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from facecaption_ml.captions.rewrite.answer_cache import FOLDER as ANSWERS
from facecaption_ml.flip.use.face_features import FOLDER as FEATURES
from facecaption_ml.schemas import SHARD_TABLES, SOURCE
from facecaption_ml.storage.store import Store, StoreError

_STALE_AFTER_S: Final = 3600.0  # a younger file may belong to a writer that is still at work


@dataclass
class Leftovers:
    """Objects of one kind, with their sizes in bytes."""

    what: str
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(self.sizes.values())


def leftovers(store: Store) -> list[Leftovers]:
    """What can be deleted without a change to anything that is read, by kind; keys of the store.

    Raises StoreError where the store has no ``source_manifest``: without it every shard would be one that left the source.
    """
    registered = frozenset(store.shards(SOURCE))
    if not registered:
        raise StoreError(
            f"no shards under {store.uri(SOURCE)}: materialize source_manifest first, it says which shards are in use"
        )
    gone = Leftovers("tables of shards that left the source")
    tries = Leftovers("unfinished tries of shards that are finished")
    for table in SHARD_TABLES[1:]:
        sizes = store.sizes(f"{table}/")
        for key, size in sizes.items():
            *folders, name = key.split("/")
            shard = name.removesuffix(".parquet")
            unfinished = folders == [table, "incomplete"]
            if not name.endswith(".parquet") or not (unfinished or folders == [table]):
                continue
            if shard not in registered:
                gone.sizes[key] = size
            elif unfinished and f"{table}/{name}" in sizes:
                tries.sizes[key] = size
    beside = Leftovers("answers and features kept for shards that left the source")
    for folder, suffixes in ((ANSWERS, (".parquet",)), (FEATURES, (".npy", ".json"))):
        for key, size in store.sizes(f"{folder}/").items():
            name = key.rpartition("/")[2]
            if name.endswith(suffixes) and name.rpartition(".")[0] not in registered:
                beside.sizes[key] = size
    return [gone, beside, tries]


def stale_writes(folder: Path) -> Iterator[tuple[Path, int]]:
    """Files that killed writers left under a folder, with their sizes: hidden, ending in .tmp, older than an hour."""
    for path in sorted(folder.rglob(".*.tmp")):
        try:
            state = path.stat()
        except OSError:  # it has just gone
            continue
        if path.is_file() and time.time() - state.st_mtime > _STALE_AFTER_S:
            yield path, state.st_size
