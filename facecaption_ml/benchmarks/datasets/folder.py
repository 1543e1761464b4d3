"""A data set's folder as its reader sees it: one listing, list files under the names that releases give them, and errors.

Nothing but that listing decides what is there; no picture is opened.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from facecaption_ml.benchmarks.datasets.data import BenchmarkDataError
from facecaption_ml.benchmarks.datasets.pictures import StoredPictures
from facecaption_ml.storage.store import Store, StoreError

_PICTURE_ENDINGS: Final = (".jpg", ".jpeg", ".png")
_READERS: Final = 8  # files that are fetched at once


class DataFolder:
    """The files of ``store``, which is the folder ``name`` of ``registry.FOLDERS``; every error begins with that name.

    Raises BenchmarkDataError for a folder that cannot be reached or holds no file.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        try:
            self._sizes = store.sizes()
        except (StoreError, OSError) as error:
            raise self.error(error) from error
        if not self._sizes:
            raise self.error(f"{store.root} holds no files: give the folder of the data set")

    def error(self, message: object) -> BenchmarkDataError:
        """The error to raise, in one line."""
        line = " ".join(str(message).splitlines()).removeprefix(f"{self._name}: ")  # of the data set of that name
        return BenchmarkDataError(line, self._name)

    def address(self, key: str) -> str:
        """Where ``key`` lies, in full."""
        return self._store.uri(key)

    def find(self, *keys: str) -> str | None:
        """The first of the keys that is there."""
        return next((key for key in keys if key in self._sizes), None)

    def require(self, what: str, *keys: str) -> str:
        """``find``; raises BenchmarkDataError where none is there. ``what`` says what the file holds."""
        key = self.find(*keys)
        if key is None:
            elsewhere = "".join(f" or in {key}" for key in keys[1:])
            raise self.error(f"{self.address(keys[0])} is missing: {what} lie there{elsewhere}")
        return key

    def files(self, folder: str) -> dict[str, str]:
        """Keys of all files under ``folder`` by their path within it, sorted."""
        start = f"{folder}/"
        return {key.removeprefix(start): key for key in self._sizes if key.startswith(start)}

    def pictures(self, *folders: str) -> dict[str, str]:
        """Keys of the JPEG and PNG files in the first of the folders that has any, by their path within it, sorted.

        Raises BenchmarkDataError where none of the folders has a picture.
        """
        for folder in folders:
            files = self.files(folder)
            pictures = {name: key for name, key in files.items() if name.lower().endswith(_PICTURE_ENDINGS)}
            if pictures:
                return pictures
        elsewhere = "".join(f" or in {folder}/" for folder in folders[1:])
        raise self.error(f"{self.address(folders[0])}/ has no pictures: .jpg or .png files lie there{elsewhere}")

    def read(self, key: str) -> bytes:
        """Raises BenchmarkDataError where the file cannot be read."""
        try:
            return self._store.read_bytes(key)
        except (StoreError, OSError) as error:
            raise self.error(error) from error

    def read_all(self, keys: Sequence[str]) -> list[bytes]:
        """``read`` for many small files at once, in their order."""
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(self.read, keys))

    def text(self, key: str) -> str:
        """Raises BenchmarkDataError where the file cannot be read or is not UTF-8."""
        try:
            return self.read(key).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise self.error(f"{self.address(key)} is no UTF-8 text (byte {error.start}): fetch it again") from error

    def json(self, key: str) -> Any:
        """Raises BenchmarkDataError where the file cannot be read or is no JSON, with the line."""
        try:
            return json.loads(self.text(key))
        except (json.JSONDecodeError, RecursionError) as error:
            raise self.error(f"{self.address(key)} is no JSON ({error}): fetch it again") from error

    def stored_pictures(self, keys: Sequence[str]) -> StoredPictures:
        """The files ``keys`` as pictures, by row."""
        return StoredPictures(self._store, keys, [self._sizes[key] for key in keys])
