"""The order in which rows are fetched: hosts take turns, none has more than its share of connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from yarl import URL


class Job(NamedTuple):
    """A row to fetch. ``url`` is None for file:// and s3:// rows."""

    row: int  # its place in the manifest
    url: URL | None
    known: bool = False  # an earlier run read the file, which is read again only if it has changed


class HostQueue:
    """Hands jobs to workers. Never waits: where no host may take a further connection, ``next`` gives None.

    Each host has as many turns in the ring as it may have connections; a turn is taken out with its job and put back
    when the job is done. So a worker that finds the ring empty may stop: as many workers are busy as may be.
    """

    def __init__(self, jobs: Iterable[Job], per_host: int) -> None:
        self._jobs: dict[str, deque[Job]] = {}
        for job in jobs:
            self._jobs.setdefault(_host(job), deque()).append(job)
        most = max(map(len, self._jobs.values()), default=0)
        self._turns = deque(
            host for turn in range(min(per_host, most)) for host, waiting in self._jobs.items() if turn < len(waiting)
        )

    def next(self) -> Job | None:
        while self._turns:
            waiting = self._jobs[self._turns.popleft()]
            if waiting:  # another turn of this host may have taken its last job
                return waiting.popleft()
        return None

    def __len__(self) -> int:
        """Jobs that were not handed out yet."""
        return sum(map(len, self._jobs.values()))

    def has_turns(self) -> bool:
        """Whether ``next`` may have a job, so that some row only waits for a worker."""
        return bool(self._turns)

    def done(self, job: Job) -> None:
        """The job's connection is free again for its host."""
        host = _host(job)
        if self._jobs[host]:
            self._turns.append(host)

    def has_more(self, job: Job) -> bool:
        """Whether further rows of the job's host wait, so that its connection is worth keeping."""
        return bool(self._jobs[_host(job)])


def _host(job: Job) -> str:
    return "" if job.url is None else job.url.raw_host or ""
