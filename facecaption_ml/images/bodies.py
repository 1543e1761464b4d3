"""The bodies of a shard: in memory up to a budget, beyond it in files without a name, which go with the process.

A body that arrives is in memory up to a quarter megabyte or less, and goes on in a file of its own. A picture that was checked
waits for the rows before it, in memory where there is room and else in one file of the shard.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Final, Protocol

from facecaption_ml.errors import FaceCaptionError

WAITING_BYTES: Final = 64 * 2**20
"""Of pictures that wait in memory for rows before them."""
_ARRIVING_BYTES: Final = 64 * 2**20  # of all bodies that arrive at one time
_LEAST_HELD, _MOST_HELD = 32 * 1024, 256 * 1024  # of one of them
_HEAD_BYTES: Final = 32
_WRITERS: Final = 2


class ScratchError(FaceCaptionError):
    """The folder for pictures that do not fit into memory cannot be written; the message names it and the reason."""


class Body(Protocol):
    """A picture's bytes, wherever they lie."""

    def size(self) -> int:
        """How many there are."""

    def read(self) -> bytes:
        """All of them; blocks."""

    def release(self) -> None:
        """Nobody needs them any more."""


class ArrivingBody:
    """A body while it arrives; not to be used from several threads at once."""

    def __init__(self, bodies: Bodies, held_bytes: int) -> None:
        self.head = b""
        self.size = 0
        self._bodies, self._held_bytes = bodies, held_bytes
        self._chunks: list[bytes] = []
        self._held = self._written = 0
        self._file: IO[bytes] | None = None

    async def add(self, chunk: bytes) -> None:
        """Raises ScratchError."""
        if len(self.head) < _HEAD_BYTES:
            self.head += chunk[: _HEAD_BYTES - len(self.head)]
        self._chunks.append(chunk)
        self._held += len(chunk)
        self.size += len(chunk)
        if self._held > self._held_bytes:
            await asyncio.get_running_loop().run_in_executor(self._bodies.writers, self._flush)

    def read(self) -> bytes:
        """All that has come; blocks."""
        if self._file is None:
            return b"".join(self._chunks)
        with _writing(self._bodies.folder):
            flushed = os.pread(self._file.fileno(), self._written, 0)
        return b"".join([flushed, *self._chunks]) if self._chunks else flushed

    def release(self) -> None:
        self._chunks.clear()
        if self._file is not None:
            self._file.close()

    def _flush(self) -> None:
        with _writing(self._bodies.folder):
            if self._file is None:
                self._file = self._bodies.new_file()
            data = b"".join(self._chunks)
            _write_at(self._file.fileno(), data, self._written)
        self._written += len(data)
        self._chunks.clear()
        self._held = 0


class _KeptBody:
    """A whole body in memory, or a place in the shard's file."""

    def __init__(self, bodies: Bodies, data: bytes | None, place: int, size: int) -> None:
        self._bodies, self._data, self._place, self._size = bodies, data, place, size

    def size(self) -> int:
        return self._size

    def read(self) -> bytes:
        return self._bodies.kept_bytes(self._place, self._size) if self._data is None else self._data

    def release(self) -> None:
        self._bodies.forget(self._size, in_memory=self._data is not None)
        self._data = None


class Bodies:
    """Where the bodies of a shard are until they are written to its table. Use as a context manager."""

    def __init__(self, connections: int, folder: Path | None = None, waiting_bytes: int = WAITING_BYTES) -> None:
        """``folder``: of the files; by default the system's for temporary ones. ``connections``: bodies that arrive at once."""
        self.folder = folder
        self.writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="bodies")
        self._held_bytes = min(_MOST_HELD, max(_LEAST_HELD, _ARRIVING_BYTES // connections))
        self._waiting_bytes = waiting_bytes
        self._lock = threading.Lock()
        self._in_memory = self._in_file = self._end = 0  # bytes, bodies, bytes
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Bodies:
        return self

    def __exit__(self, *_: object) -> None:
        self.writers.shutdown(wait=False, cancel_futures=True)
        if self._file is not None:
            self._file.close()

    def arriving(self) -> ArrivingBody:
        return ArrivingBody(self, self._held_bytes)

    def keep(self, data: bytes) -> Body:
        """The bytes of a whole picture until ``release``; from any thread. Raises ScratchError."""
        with self._lock:
            if self._in_memory + len(data) <= self._waiting_bytes:
                self._in_memory += len(data)
                return _KeptBody(self, data, 0, len(data))
            with _writing(self.folder):
                self._file = self._file or self.new_file()
            place, self._end = self._end, self._end + len(data)
            self._in_file += 1
        with _writing(self.folder):
            _write_at(self._file.fileno(), data, place)
        return _KeptBody(self, None, place, len(data))

    def kept_bytes(self, place: int, size: int) -> bytes:
        """Of the shard's file."""
        assert self._file is not None
        with _writing(self.folder):
            return os.pread(self._file.fileno(), size, place)

    def forget(self, size: int, *, in_memory: bool) -> None:
        """A kept body is not needed any more; the file is emptied when no other lies in it."""
        with self._lock:
            if in_memory:
                self._in_memory -= size
                return
            self._in_file -= 1
            if not self._in_file and self._file is not None:
                self._file.truncate(0)
                self._end = 0

    def new_file(self) -> IO[bytes]:
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=self.folder, buffering=0)


def _write_at(descriptor: int, data: bytes, place: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, place)
        view, place = view[written:], place + written


@contextlib.contextmanager
def _writing(folder: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = folder or tempfile.gettempdir()
        raise ScratchError(f"cannot keep pictures in {where}: {error.strerror or error}") from error
