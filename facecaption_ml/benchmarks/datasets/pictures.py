"""Pictures of a folder or an S3 prefix, by row; several of them as one; and drawn ones, drawn once."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt

from facecaption_ml.benchmarks.datasets.data import Pictures, Rgb
from facecaption_ml.decoding import PICTURE_SUFFIXES, UndecodableImage, decode_image
from facecaption_ml.storage.store import Store, StoreError

DRAWN_TOGETHER: Final = 64
"""Rows of ``KeptPictures`` that are made and kept as one object."""
_PHOTO_ENDINGS: Final = PICTURE_SUFFIXES
_AT_ONCE: Final = 16  # photos held together
_READERS: Final = 4  # decoding leaves the interpreter lock; on S3 the requests overlap


class StoredPictures:
    """The objects ``keys`` of a store: ``names`` are the keys, sizes in bytes stand for contents in ``version``."""

    def __init__(self, store: Store, keys: Sequence[str], sizes: Sequence[int]) -> None:
        self.names: Sequence[str] = list(keys)
        self.version = content_version(f"{key}:{size}" for key, size in zip(keys, sizes, strict=True))
        self._store = store

    def read(self, rows: Sequence[int]) -> list[Rgb | None]:
        """RGB uint8 [H, W, 3] for each of the rows, None where an object is gone or does not decode.

        Raises StoreError where the store cannot be reached: what a network fault hides is not damaged.
        """
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(self._read, rows))

    def _read(self, row: int) -> Rgb | None:
        key = self.names[row]
        try:
            return decode_image(self._store.read_bytes(key))
        except (UndecodableImage, OSError):
            return None
        except StoreError:
            if self._store.exists(key):
                raise
            return None


class JoinedPictures:
    """The rows of several ``Pictures``, one after the other."""

    def __init__(self, parts: Sequence[Pictures]) -> None:
        self.names: Sequence[str] = [name for part in parts for name in part.names]
        self.version = content_version(part.version for part in parts)
        self._parts = [(part, row) for part in parts for row in range(len(part.names))]

    def read(self, rows: Sequence[int]) -> list[Rgb | None]:
        """As each row's own part reads it; a part is asked once for all of its rows."""
        by_row: dict[int, Rgb | None] = {}
        parts = {id(part): part for part, _ in (self._parts[row] for row in rows)}
        for key, part in parts.items():
            own = [row for row in rows if id(self._parts[row][0]) == key]
            by_row.update(zip(own, part.read([self._parts[row][1] for row in own]), strict=True))
        return [by_row[row] for row in rows]


class KeptPictures:
    """Pictures that take long to make, all of one size, kept in ``store`` once they have been asked for.

    They are drawn, so there is none that does not decode; ``read`` raises ValueError naming one that is None all the same.
    """

    def __init__(self, pictures: Pictures, store: Store) -> None:
        self.names: Sequence[str] = pictures.names
        self.version = pictures.version
        self._pictures, self._store = pictures, store
        self._making = threading.Lock()  # of two threads that want the same part, one makes it

    def read(self, rows: Sequence[int]) -> list[Rgb | None]:
        """RGB uint8 [H, W, 3] for each of the rows. Pictures are made ``DRAWN_TOGETHER`` at a time."""
        with self._making:
            parts = {number: self._part(number) for number in {row // DRAWN_TOGETHER for row in rows}}
        return [parts[row // DRAWN_TOGETHER][row % DRAWN_TOGETHER] for row in rows]

    def _part(self, number: int) -> npt.NDArray[np.uint8]:
        key = f"{self.version}/{number:05d}.npy"
        rows = range(number * DRAWN_TOGETHER, min((number + 1) * DRAWN_TOGETHER, len(self.names)))
        kept = self._kept(key)
        if kept is not None and len(kept) == len(rows):
            return kept
        images = []
        for row, image in zip(rows, self._pictures.read(rows), strict=True):
            if image is None:
                raise ValueError(f"{self.names[row]} does not decode, so it cannot be kept with the others")
            images.append(image)
        made = np.stack(images)
        buffer = io.BytesIO()
        np.save(buffer, made)
        self._store.write_bytes(key, buffer.getvalue())
        return made

    def _kept(self, key: str) -> npt.NDArray[np.uint8] | None:
        """None where there is nothing yet, or a damaged file."""
        if not self._store.exists(key):
            return None
        data = self._store.read_bytes(key)
        try:
            kept: npt.NDArray[np.uint8] = np.load(io.BytesIO(data), allow_pickle=False)
        except Exception:  # what damaged files raise is of many types
            return None
        return kept


def is_picture(key: str) -> bool:
    """Whether the name is a picture's, and not that of a hidden file."""
    return key.lower().endswith(_PHOTO_ENDINGS) and not key.rpartition("/")[2].startswith(".")


def each_photo(photos: Pictures) -> Iterator[tuple[str, Rgb | None]]:
    """Every picture with its name, in order, a few in memory at a time."""
    for first in range(0, len(photos.names), _AT_ONCE):
        rows = range(first, min(first + _AT_ONCE, len(photos.names)))
        yield from zip((photos.names[row] for row in rows), photos.read(rows), strict=True)


def content_version(parts: Iterable[str]) -> str:
    """16 hex digits of the parts in order: differs where one of them does."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]
