"""Files on this machine that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

from facecaption_ml.storage.base import StoredObject, StoreError, reason, writing

NO_LOCKS: Final = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system without locks says."""
_STALE_AFTER_S: Final = 3600.0


@contextlib.contextmanager
def atomic_write(target: Path, *, sync: bool = True) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``target`` when the block ends well, and leaves no trace when it does not.

    Its folder is made where it is missing. Without ``sync``, a machine that goes down may leave it empty: for caches that
    notice. Raises OSError where it cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep_stale(target.parent)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(target)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # torch raises an error of its own over it
        if isinstance(cause, OSError) and cause.filename is None and cause.errno is not None:
            raise OSError(cause.errno, cause.strerror, str(target)) from error  # a full disk does not say where
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_file(target: Path, data: bytes | str) -> None:
    """Write a file where a user wants it, as it is opened: nothing else in its folder is touched. Text is UTF-8.

    Raises OSError that names the file, on a full disk too.
    """
    try:
        target.write_bytes(data.encode() if isinstance(data, str) else data)
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise


def _lock(file: IO[str]) -> None:
    """Wait for the lock on a file, which goes with the file; nothing happens on a file system without locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


def _sweep_stale(folder: Path) -> None:
    """Remove what killed writers left behind; younger files may belong to a writer that is still at work."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _STALE_AFTER_S:
                path.unlink()


class LocalObjects:
    """Whole objects as files under a folder, which need not be there yet. Hidden files count as unfinished writes.

    S3Objects has the same methods. All of them raise StoreError where the root cannot be reached or written. A reader sees
    one version of an object: where a writer replaces it meanwhile, it reads on in the old one or gets ObjectChangedError.
    """

    def __init__(self, root: str) -> None:
        self.root = str(Path(root).expanduser().resolve())

    def uri(self, key: str) -> str:
        """The full address of ``key``."""
        return f"{self.root}/{key}"

    def local_path(self, key: str) -> Path | None:
        """Where the object, or the folder of that prefix, is on this machine; None on S3."""
        return self._path(key)

    def find(self, key: str) -> StoredObject | None:
        """The object as it is now, None where there is none."""
        path = self._path(key)
        try:
            state = path.stat()
        except OSError:  # there is none, or it has just gone
            return None
        return StoredObject(key, state.st_size, f"{state.st_size}-{state.st_mtime_ns}") if path.is_file() else None

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Every object whose key starts with ``prefix``, in no order."""
        root = Path(self.root)
        for path in (root / prefix.rpartition("/")[0]).rglob("*"):
            key = path.relative_to(root).as_posix()
            if key.startswith(prefix) and not path.name.startswith("."):
                present = self.find(key)
                if present is not None:
                    yield present

    def read(self, key: str) -> bytes:
        """Raises FileNotFoundError where there is no such object, as do the other methods that read."""
        with self._reading(key):
            return self._path(key).read_bytes()

    @contextlib.contextmanager
    def open(self, key: str) -> Iterator[Any]:
        """A seekable file for pyarrow."""
        import pyarrow as pa

        with self._reading(key):
            file = pa.OSFile(self.uri(key), "rb")
        with file:
            yield file

    @contextlib.contextmanager
    def reading_file(self, key: str) -> Iterator[Path]:
        """A path with the object's bytes; on S3 a copy that goes with the block."""
        if self.find(key) is None:
            raise FileNotFoundError(self.uri(key))
        yield self._path(key)

    def write(self, key: str, data: bytes) -> None:
        with writing(self.uri(key)), atomic_write(self._path(key)) as file:
            file.write(data)

    def update(self, key: str, change: Callable[[bytes | None], bytes | None]) -> None:
        """Write what ``change`` makes of an object's bytes, None where there is none; where that is None, nothing.

        No other update comes between: it waits here, and on S3 ``change`` is asked again, about what the other has written. So
        it must bear being asked twice, and find its own change there already.
        """
        path = self._path(key)
        with writing(self.uri(key)):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.with_name(f".{path.name}.lock").open("a") as lock:
                _lock(lock)
                changed = change(path.read_bytes() if path.is_file() else None)
                if changed is not None:
                    self.write(key, changed)

    @contextlib.contextmanager
    def writing_file(self, key: str) -> Iterator[Path]:
        """A path to write to; it becomes ``key`` when the block ends well, else nothing does."""
        with writing(self.uri(key)), atomic_write(self._path(key)) as file:
            yield Path(file.name)

    def delete(self, key: str) -> None:
        """Nothing happens where there is no such object."""
        with writing(self.uri(key)):
            self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return Path(self.root, key)

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(f"cannot read {self.uri(key)}: {reason(error)}") from error
