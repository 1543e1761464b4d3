"""A folder that one process at a time works in. The lock goes with its process, however that ends."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.storage.local_files import NO_LOCKS


class LockedError(FaceCaptionError):
    """Another process is at work there; the message says which and since when."""


@contextlib.contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Within the block this process alone holds the lock file ``path``, whose folder is made.

    Raises LockedError where another has it: ``what`` with the process's number and start. On a file system without locks
    nothing is locked. The file stays; only the lock on it counts.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                if not isinstance(error, BlockingIOError):
                    raise
                raise LockedError(f"{what} {_holder(path)}: wait for its end, or stop it") from None
        since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        holder = json.dumps({"pid": os.getpid(), "since": since, "host": socket.gethostname()})
        # The lock holds without its holder's name, for which a full disk has no room.
        with contextlib.suppress(OSError):
            file.truncate(0)
            os.write(file.fileno(), holder.encode())
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock file ``path``."""
    try:
        with path.open("r", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is no such file, or there are no locks
        return False
    return False


def _holder(path: Path) -> str:
    """``is at work already: process 12 since …``, as far as the holder has said."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        elsewhere = f" on {said['host']}" if said["host"] != socket.gethostname() else ""
        return f"is at work already (process {said['pid']}{elsewhere}, since {said['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # it has just taken the lock
        return "is at work already"
