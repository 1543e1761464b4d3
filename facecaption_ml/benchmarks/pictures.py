"""Pictures of a folder or an S3 prefix, by row; and several of them as one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from facecaption_ml.benchmarks.data import Pictures, Rgb
from facecaption_ml.decoding import UndecodableImage, decode_image
from facecaption_ml.store import Store, StoreError

_READERS: Final = 4  # decoding leaves the interpreter lock; on S3 the requests overlap


class StoredPictures:
    """The objects ``keys`` of a store: ``names`` are the keys, sizes in bytes stand for contents in ``version``."""

    def __init__(self, store: Store, keys: Sequence[str], sizes: Sequence[int]) -> None:
        self.names: Sequence[str] = list(keys)
        self.version = content_version(f"{key}:{size}" for key, size in zip(keys, sizes, strict=True))
        self._store = store

    def read(self, rows: Sequence[int]) -> list[Rgb | None]:
        """RGB uint8 [H, W, 3] for each of the rows, None where an object is gone or does not decode."""
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(self._read, rows))

    def _read(self, row: int) -> Rgb | None:
        try:
            return decode_image(self._store.read_bytes(self.names[row]))
        except (UndecodableImage, StoreError, OSError):
            return None


class JoinedPictures:
    """The rows of several ``Pictures``, one after the other."""

    def __init__(self, parts: Sequence[Pictures]) -> None:
        self.names: Sequence[str] = [name for part in parts for name in part.names]
        self.version = content_version(part.version for part in parts)
        self._parts = [(part, row) for part in parts for row in range(len(part.names))]

    def read(self, rows: Sequence[int]) -> list[Rgb | None]:
        """As each row's own part reads it; a part is asked once for all of its rows."""
        found: dict[int, Rgb | None] = {}
        parts = {id(part): part for part, _ in (self._parts[row] for row in rows)}
        for key, part in parts.items():
            own = [row for row in rows if id(self._parts[row][0]) == key]
            found.update(zip(own, part.read([self._parts[row][1] for row in own]), strict=True))
        return [found[row] for row in rows]


def content_version(parts: Iterable[str]) -> str:
    """16 hex digits of the parts in order: differs where one of them does."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]
