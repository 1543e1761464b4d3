"""URLs of one shard to the bytes behind them, concurrently: source_manifest → raw_images.

One event loop in a thread of its own does all network work; a few more threads look up names and check that pictures
decode. Each row ends with a status; no row is lost and none can hang longer than the policy's total timeout.

Memory: the bytes of rows that finished before an earlier, slower row wait for it, so at most the shard's own pictures,
plus what is in flight: per connection one body (max_bytes at most) and per processor one picture being decoded.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

import polars as pl

from facecaption_ml.decoding import UndecodableImage, verify_image
from facecaption_ml.images.failure import FetchFailure
from facecaption_ml.images.host_queue import HostQueue, Job
from facecaption_ml.images.http_fetch import HttpFetcher, parse_url
from facecaption_ml.images.raw_images import (
    Picture,
    RepeatedImages,
    Row,
    deny_by_hash,
    settle_without_request,
    settled_earlier,
    to_table,
)
from facecaption_ml.images.status import FetchStatus
from facecaption_ml.images.stored_objects import STORED_SCHEMES, read_stored, scheme_of
from facecaption_ml.schemas import conform, empty

if TYPE_CHECKING:
    from facecaption_ml.images.policy import DownloadPolicy

logger = logging.getLogger(__name__)

Finished = list[tuple[int, Row]]

_CHUNK_ROWS: Final = 256
_REPORT_S: Final = 0.2
_STORED_READS_IN_FLIGHT: Final = 16
_MOST_DECODERS: Final = 8


def fetch_raw_images(
    manifest: pl.DataFrame,
    policy: DownloadPolicy,
    previous: pl.DataFrame | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """The raw_images table of one shard: a row for each row of ``manifest`` (a source_manifest), in its order.

    ``previous`` is the shard's earlier raw_images: pictures and lasting failures are taken over, deny lists applied
    anew, and only rows whose failure may pass are fetched. ``on_progress(done, total)`` is called in this thread.
    """
    chunks = list(iter_fetched(manifest, policy, previous, on_progress))
    return pl.concat(chunks, rechunk=False) if chunks else empty("raw_images")


def iter_fetched(
    manifest: pl.DataFrame,
    policy: DownloadPolicy,
    previous: pl.DataFrame | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    chunk_rows: int = _CHUNK_ROWS,
) -> Iterator[pl.DataFrame]:
    """As fetch_raw_images, in tables of ``chunk_rows`` rows, each as soon as its rows and all before are done."""
    rows, jobs = _plan(conform(manifest, "source_manifest"), policy, previous)
    waiting = {job.row for job in jobs}
    repeated = RepeatedImages()
    start = end = 0  # rows[start:end] are done, in order and not yet handed out
    for finished in _run_in_thread(rows, jobs, policy):
        for index, row in finished:
            rows[index] = row
            waiting.discard(index)
        while end < len(rows) and end not in waiting:
            rows[end] = repeated.mark(deny_by_hash(rows[end], policy))
            end += 1
        if on_progress is not None:
            on_progress(len(rows) - len(waiting), len(rows))
        while end - start >= chunk_rows or (start < end == len(rows)):
            stop = min(start + chunk_rows, end)
            table = to_table(rows[start:stop])
            rows[start:stop] = [_without_bytes(row) for row in rows[start:stop]]
            start = stop
            yield table


def _plan(manifest: pl.DataFrame, policy: DownloadPolicy, previous: pl.DataFrame | None) -> tuple[list[Row], list[Job]]:
    """Every row of the manifest, settled where no request is needed, and the jobs for those that are not."""
    earlier = settled_earlier(previous, policy)
    attempts = _earlier_attempts(previous)
    rows: list[Row] = []
    jobs: list[Job] = []
    columns = ("sample_id", "url", "alt_text", "duplicate_url")
    for index, (sample_id, url, alt_text, duplicate) in enumerate(manifest.select(columns).iter_rows()):
        known = earlier.get((sample_id, url))
        row = known or Row(sample_id, url, alt_text, FetchStatus.ok, attempts=attempts.get(sample_id, 0))
        row = replace(row, alt_text=alt_text)
        settled = settle_without_request(row, bool(duplicate), policy)
        if settled is None and known is None:
            try:
                jobs.append(Job(index, None if scheme_of(url) in STORED_SCHEMES else parse_url(url)))
            except FetchFailure as failure:
                settled = row.failed(failure.status, failure.message)
        rows.append(settled or row)
    return rows, jobs


def _earlier_attempts(previous: pl.DataFrame | None) -> dict[str, int]:
    return {} if previous is None else dict(previous.select("sample_id", "attempts").iter_rows())


def _without_bytes(row: Row) -> Row:
    return replace(row, picture=None) if row.picture else row


def _run_in_thread(rows: list[Row], jobs: list[Job], policy: DownloadPolicy) -> Iterator[Finished]:
    """Fetches the jobs in an event loop of its own thread, so callers may have a running loop themselves.

    Yields batches of finished rows, an empty one first. Leaving the iterator early (Ctrl-C, close) stops the thread.
    """
    yield []
    if not jobs:
        return
    messages: SimpleQueue[Finished | BaseException | None] = SimpleQueue()
    shard = _ShardDownload(rows, jobs, policy, messages.put)
    thread = threading.Thread(target=shard.run, name="download", daemon=True)
    thread.start()
    try:
        while (message := messages.get()) is not None:
            if isinstance(message, BaseException):
                raise message
            yield message
    finally:
        shard.stop()
        thread.join()


class _ShardDownload:
    """The work of the download thread; reports batches of finished rows, then None, or the exception that ended it."""

    def __init__(
        self,
        rows: list[Row],
        jobs: list[Job],
        policy: DownloadPolicy,
        report: Callable[[Finished | BaseException | None], None],
    ) -> None:
        self._rows = rows
        self._policy = policy
        self._queue = HostQueue((job for job in jobs if job.url is not None), policy.connections_per_host)
        self._stored = HostQueue((job for job in jobs if job.url is None), _STORED_READS_IN_FLIGHT)
        self._report = report
        self._finished: Finished = []
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._stop_wanted = False
        self._decoders = ThreadPoolExecutor(min(_MOST_DECODERS, _processors()), thread_name_prefix="decode")
        self._readers = ThreadPoolExecutor(_STORED_READS_IN_FLIGHT, thread_name_prefix="stored")

    def run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
            self._report(None)
        except BaseException as error:
            self._report(error)
        finally:
            self._decoders.shutdown(wait=False, cancel_futures=True)
            self._readers.shutdown(wait=False, cancel_futures=True)

    def stop(self) -> None:
        """Ends the work from another thread; harmless once it is over."""
        self._stop_wanted = True
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())

    async def _main(self) -> None:
        self._task = asyncio.current_task()
        if self._stop_wanted:
            return
        async with HttpFetcher(self._policy) as http:
            workers = [self._work(self._queue, http) for _ in range(self._policy.connections)]
            workers += [self._work(self._stored, http) for _ in range(_STORED_READS_IN_FLIGHT)]
            reporter = asyncio.create_task(self._report_at_intervals())
            try:
                async with asyncio.TaskGroup() as group:
                    for worker in workers:
                        group.create_task(worker)
            finally:
                reporter.cancel()
        self._report(self._finished)

    async def _report_at_intervals(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_S)
            if self._finished:
                batch, self._finished = self._finished, []
                self._report(batch)

    async def _work(self, queue: HostQueue, http: HttpFetcher) -> None:
        while (job := queue.next()) is not None:
            row = await self._fetch_row(job, http, keep_alive=queue.has_more(job))
            self._finished.append((job.row, row))
            queue.done(job)

    async def _fetch_row(self, job: Job, http: HttpFetcher, keep_alive: bool) -> Row:
        row = self._rows[job.row]
        attempts = row.attempts
        try:
            async with asyncio.timeout(self._policy.total_timeout_s) as deadline:
                for retry in range(self._policy.retries + 1):
                    attempts += 1
                    try:
                        data = await self._read(job, row, http, keep_alive)
                        break
                    except FetchFailure as failure:
                        await self._wait_before_retry(retry, failure, deadline)
            picture = await self._loop.run_in_executor(self._decoders, _checked_picture, data, self._policy.max_pixels)
            row = replace(row, status=FetchStatus.ok, error=None, picture=picture, sha256=picture.sha256)
        except FetchFailure as failure:
            row = row.failed(failure.status, failure.message)
        except TimeoutError:
            row = row.failed(FetchStatus.timeout, f"not done within {self._policy.total_timeout_s:g} s")
        except Exception as error:  # one odd answer must not cost the other rows of the shard
            logger.exception("row %s: %s", row.sample_id, row.url)
            row = row.failed(FetchStatus.protocol_error, f"unexpected {type(error).__name__}")
        now = datetime.now(UTC)
        return replace(row, attempts=attempts, fetched_at=now.replace(microsecond=now.microsecond // 1000 * 1000))

    async def _read(self, job: Job, row: Row, http: HttpFetcher, keep_alive: bool) -> bytes:
        if job.url is not None:
            return await http.fetch(job.url, keep_alive)
        return await self._loop.run_in_executor(self._readers, read_stored, row.url or "", self._policy)

    async def _wait_before_retry(self, retry: int, failure: FetchFailure, deadline: asyncio.Timeout) -> None:
        """Sleeps if another try makes sense and there is time for it, else raises the failure."""
        delay = max(self._policy.backoff_s * 2**retry, failure.retry_after_s or 0.0)
        ends = deadline.when() or 0.0
        if not failure.transient or retry >= self._policy.retries or self._loop.time() + delay >= ends:
            raise failure
        await asyncio.sleep(delay)


def _checked_picture(data: bytes, max_pixels: int) -> Picture:
    """Runs in a decoder thread. Raises FetchFailure not_an_image, undecodable or too_many_pixels."""
    try:
        width, height = verify_image(data, max_pixels)
    except UndecodableImage as error:
        raise FetchFailure(FetchStatus(error.reason), str(error)) from None
    return Picture(data, width, height, hashlib.sha256(data).hexdigest())


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
