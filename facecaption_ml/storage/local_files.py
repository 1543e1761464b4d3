"""Files on this machine that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

_STALE_AFTER_S: Final = 3600.0


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``target`` when the block ends well, and leaves no trace when it does not.

    Its folder is made where there is none. Raises OSError where it cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep_stale(target.parent)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _sweep_stale(folder: Path) -> None:
    """Remove what killed writers left behind; younger files may belong to a writer that is still at work."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _STALE_AFTER_S:
                path.unlink()
