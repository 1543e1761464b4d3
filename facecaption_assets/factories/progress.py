"""Progress lines for work that takes longer than a few seconds: to the log, at most one every five seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

logger = logging.getLogger("facecaption")


class Progress:
    """A callback ``(done, total)`` that logs where a piece of work stands.

    A ``total`` of 0 stands for one that is not known. The first line comes after ``interval_s`` seconds, so that short
    work stays silent.
    """

    def __init__(
        self,
        label: str,
        unit: str = "rows",
        interval_s: float = 5.0,
        log: Callable[[str], None] = logger.info,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label, self._unit, self._interval, self._log, self._clock = label, unit, interval_s, log, clock
        self._start = self._last = clock()

    def __call__(self, done: int, total: int) -> None:
        now = self._clock()
        if now - self._last < self._interval:
            return
        self._last = now
        rate = done / max(now - self._start, 1e-9)
        share = f" ({done / total:.0%})" if total else ""
        left = f", about {(total - done) / rate:.0f} s left" if rate > 0 and total > done else ""
        of_total = f" of {total:,}" if total else ""
        self._log(f"{self._label}: {done:,}{of_total} {self._unit}{share}, {rate:,.1f}/s{left}")
