"""Work that one process at a time does on a store: a lock file beside a folder's files, on S3 an object that its holder renews.

The lock of a folder goes with its process. On S3 nothing tells that a process has ended, so the holder says again and again
that it is at work; whoever waits takes the lease when that has not been said for ``lease_s``, by its own clock. All writes of
the lease object are conditional (If-None-Match, If-Match), so that one of several takers has it.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from facecaption_ml.storage.base import StoreError
from facecaption_ml.storage.lock import LockedError, exclusive
from facecaption_ml.storage.objects import Objects

LEASE_S: Final = 60.0
WAIT_S: Final = 3600.0
_POLL_S: Final = 1.0
_BEATS: Final = 6  # times that a lease is renewed before it would end

Check = Callable[[], None]


@contextlib.contextmanager
def working_alone(
    objects: Objects,
    name: str,
    what: str,
    *,
    wait_s: float = WAIT_S,
    lease_s: float = LEASE_S,
    on_wait: Callable[[str], None] = lambda line: None,
) -> Iterator[Check]:
    """Within the block no other process does the work ``name`` under the same root.

    It waits up to ``wait_s`` for another's end, and gives ``on_wait`` a line that says who that is. The block gets a function
    that raises LockedError where the lease was lost, as by a machine that slept: call it before each write. Raises LockedError
    where the other is still at work after that time, StoreError where the root cannot be written.
    """
    until = time.monotonic() + wait_s
    folder = objects.local_path("")
    with contextlib.ExitStack() as stack:
        if folder is not None:
            stack.enter_context(_locked(folder / f".{name}.lock", what, until, on_wait))
            yield lambda: None
            return
        lease = _Lease(objects, f".{name}.lock", what, lease_s)
        lease.take(until, on_wait)
        stack.callback(lease.give_back)
        yield lease.check


@contextlib.contextmanager
def _locked(path: Path, what: str, until: float, on_wait: Callable[[str], None]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        told = False
        while True:
            try:
                stack.enter_context(exclusive(path, what))
                break
            except LockedError as error:
                if time.monotonic() >= until:
                    raise
                if not told:
                    on_wait(f"waiting: {str(error).partition(':')[0]}")
                told = True
                time.sleep(_POLL_S / 5)
        yield


class _Lease:
    """An object that says who is at work; ``beat`` counts how often that was said."""

    def __init__(self, objects: Objects, key: str, what: str, lease_s: float) -> None:
        self._objects, self._key, self._what, self._lease_s = objects, key, what, lease_s
        since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        self._own = {"holder": uuid.uuid4().hex, "pid": os.getpid(), "host": socket.gethostname(), "since": since}
        self._beat = 0
        self._said_at = 0.0
        self._lost = False
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._renew, name="lease", daemon=True)

    def take(self, until: float, on_wait: Callable[[str], None]) -> None:
        """Wait for it, and begin to renew it."""
        seen: dict[str, Any] = {}
        seen_at = time.monotonic()
        told = False
        while True:
            found = self._say(functools.partial(self._is_free, seen=seen, seen_at=seen_at))
            if found is None:
                break
            if found != seen:
                seen, seen_at = found, time.monotonic()
            if time.monotonic() >= until:
                raise LockedError(f"{self._what} {_holder(found)}: wait for its end, or stop it")
            if not told:
                on_wait(f"waiting: {self._what} {_holder(found)}")
            told = True
            time.sleep(min(_POLL_S, self._lease_s / _BEATS))
        self._heart.start()

    def check(self) -> None:
        """Raises LockedError where it may be another's by now."""
        if self._lost or time.monotonic() - self._said_at > self._lease_s:
            raise LockedError(
                f"{self._what}: this process was held up for so long that another may be at work; run this again"
            )

    def give_back(self) -> None:
        self._ended.set()
        self._heart.join()
        with contextlib.suppress(StoreError):  # it ends by itself
            self._objects.update(
                self._key, lambda data: b"{}" if _read(data).get("holder") == self._own["holder"] else None
            )

    def _is_free(self, state: dict[str, Any], seen: dict[str, Any], seen_at: float) -> bool:
        silent = state == seen and time.monotonic() - seen_at > self._lease_s
        return "holder" not in state or state["holder"] == self._own["holder"] or silent

    def _say(self, may: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
        """Write that this process is at work where it may; else what another has said."""
        others: list[dict[str, Any]] = []
        at = time.monotonic()

        def change(data: bytes | None) -> bytes | None:
            others.clear()
            state = _read(data)
            if not may(state):
                others.append(state)
                return None
            return json.dumps({**self._own, "beat": self._beat + 1}).encode()

        self._objects.update(self._key, change)
        if others:
            return others[0]
        self._beat += 1
        self._said_at = at
        return None

    def _renew(self) -> None:
        while not self._ended.wait(self._lease_s / _BEATS):
            # A server that is out of reach for a moment is asked again; ``check`` knows how long it has been.
            with contextlib.suppress(StoreError):
                if self._say(lambda state: state.get("holder") == self._own["holder"]) is not None:
                    self._lost = True
                    return


def _read(data: bytes | None) -> dict[str, Any]:
    """What an object says; nothing where it is none of these."""
    try:
        found = json.loads(data or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _holder(state: dict[str, Any]) -> str:
    return f"is at work already (process {state.get('pid')} on {state.get('host')}, since {state.get('since')})"
