"""How fast an endpoint is asked, and when it is left alone: a concurrency limit, pauses, and a circuit breaker."""

from __future__ import annotations

import asyncio
import time

from facecaption_ml.captions.backends.chat import Answer, Failure


class Pacing:
    """State shared by all requests to one endpoint; it outlives a run, so that a dead endpoint stays known.

    Rate limits: the number of requests in flight starts at ``concurrency``, halves with each rate limit and grows by one per
    round of good answers (additive increase, multiplicative decrease: Chiu and Jain 1989), and nothing at all is sent before a
    requested pause is over. Requests sent before the last halving do not halve again.

    Breaker: opens after ``failures_to_open`` failures in a row, nothing good between them, that span ``patience_s`` seconds or
    more, so that a restart of the server is outlived by retries. While open, requests are answered at once. Every
    ``probe_after_s`` (doubling up to 16 times that) one request is let through to see.
    """

    def __init__(self, concurrency: int, failures_to_open: int, patience_s: float, probe_after_s: float) -> None:
        self.concurrency = concurrency
        self.failures_to_open = failures_to_open
        self.patience_s = patience_s
        self.probe_after_s = probe_after_s
        self.limit = float(concurrency)
        self._resume_at = 0.0
        self._halved_at = 0.0
        self._failures = 0
        self._first_failure = 0.0
        self._last_failure = Answer(failure=Failure.UNREACHABLE)
        self._probe_at: float | None = None  # None: closed
        self._probe_wait = probe_after_s
        self.begin()

    def begin(self) -> None:
        """Start a run in a new event loop: nothing is in flight."""
        self._in_flight = 0
        self._probe: asyncio.Task[object] | None = None  # the task whose request sees whether the endpoint is back
        self._changed = asyncio.Condition()

    async def enter(self) -> Answer | None:
        """Wait for a place, then take it and return None; or return at once why the request is not sent."""
        async with self._changed:
            while True:
                refused = self._refused()
                if refused:
                    return refused
                wait = self._resume_at - time.monotonic()
                if wait <= 0 and self._in_flight < int(self.limit):
                    break
                try:
                    await asyncio.wait_for(self._changed.wait(), wait if wait > 0 else None)
                except TimeoutError:
                    continue  # the pause is over
            if self._probe_at is not None:
                self._probe = asyncio.current_task()
            self._in_flight += 1
            return None

    async def leave(self) -> None:
        """Give the place back, whatever came of the request."""
        self._in_flight -= 1
        if self._probe is asyncio.current_task():
            self._probe = None
        async with self._changed:
            self._changed.notify_all()

    def succeeded(self) -> None:
        """The endpoint answered the question, with whatever text."""
        self._failures = 0
        self._probe_at, self._probe_wait = None, self.probe_after_s
        self.limit = min(float(self.concurrency), self.limit + 1 / self.limit)

    def failed(self, why: Answer) -> None:
        """The endpoint gave no usable answer."""
        now = time.monotonic()
        if self._failures == 0:
            self._first_failure = now
        self._failures += 1
        self._last_failure = why
        if self._probe_at is not None:
            if self._probe is asyncio.current_task():
                self._probe_wait = min(2 * self._probe_wait, 16 * self.probe_after_s)
                self._probe_at = now + self._probe_wait
        elif self._failures >= self.failures_to_open and now - self._first_failure >= self.patience_s:
            self._probe_at = now + self._probe_wait

    def rate_limited(self, sent_at: float, pause_s: float) -> None:
        """A request sent at ``sent_at`` (time.monotonic) met a rate limit: everybody pauses, then goes slower."""
        now = time.monotonic()
        self._resume_at = max(self._resume_at, now + pause_s)
        if sent_at >= self._halved_at:
            self._halved_at = now
            self.limit = max(1.0, self.limit / 2)

    def _refused(self) -> Answer | None:
        if self._probe_at is None or (self._probe is None and time.monotonic() >= self._probe_at):
            return None
        detail = f"not asked after {self._failures} failures in a row; the last: {self._last_failure.detail}"
        return Answer(failure=self._last_failure.failure, detail=detail)
