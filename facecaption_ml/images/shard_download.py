"""The event loop that fetches a shard's rows: workers over a queue of hosts, deadlines, retries, the decode check."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from facecaption_ml.decoding import UndecodableImage, image_size, verify_image
from facecaption_ml.images.host_queue import HostQueue, Job
from facecaption_ml.images.http_fetch import HttpFetcher
from facecaption_ml.images.raw_images import Picture, Row
from facecaption_ml.images.status import FetchFailure, FetchStatus
from facecaption_ml.images.stored_objects import read_stored

if TYPE_CHECKING:
    from facecaption_ml.images.policy import DownloadContext, DownloadPolicy

logger = logging.getLogger(__name__)

Finished = list[tuple[int, Row]]

_REPORT_S: Final = 0.2
_STORED_READS_IN_FLIGHT: Final = 16
_LOOKUPS_IN_FLIGHT: Final = 512  # beside the connections, so that silent name servers hold up nobody else
_MOST_DECODERS: Final = 8
# Pillow's decoders hold the interpreter lock, so a thread gains nothing for a picture that takes a millisecond, and the
# loop then waits for the lock after every system call (measured: half the time of a run). Larger ones go to a thread,
# where the lock changes hands between blocks, so that no picture can stall the network.
_INLINE_BYTES: Final = 512 * 1024
_INLINE_PIXELS: Final = 2_000_000
_REQUESTS_FIRST_S: Final = 0.02
_MOST_UNCHECKED_BYTES: Final = 256 * 1024 * 1024


class ShardDownload:
    """The work of the download thread; reports batches of finished rows, then None, or the exception that ended it."""

    def __init__(
        self,
        rows: list[Row],
        jobs: list[Job],
        policy: DownloadPolicy,
        context: DownloadContext,
        report: Callable[[Finished | BaseException | None], None],
    ) -> None:
        self._rows = rows
        self._policy, self._context = policy, context
        self._queue = HostQueue((job for job in jobs if job.url is not None), policy.connections_per_host)
        self._stored = HostQueue((job for job in jobs if job.url is None), _STORED_READS_IN_FLIGHT)
        self._report = report
        self._finished: Finished = []
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._stop_wanted = False
        self._received: asyncio.Queue[tuple[Job, Row, bytes]]
        self._unchecked_bytes = 0
        self._connections: asyncio.Semaphore
        self._ready = 0  # rows that wait for nothing but a connection
        self._room: asyncio.Event  # set while further bodies may be fetched
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._decoder_count = min(_MOST_DECODERS, processors)
        self._decoders = ThreadPoolExecutor(self._decoder_count, thread_name_prefix="decode")
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
        self._received = asyncio.Queue()
        self._connections = asyncio.Semaphore(self._policy.connections)
        self._room = asyncio.Event()
        self._room.set()
        async with HttpFetcher(self._policy, self._context) as http:
            background = [asyncio.create_task(self._check_received()) for _ in range(self._decoder_count)]
            background.append(asyncio.create_task(self._report_at_intervals()))
            try:
                async with asyncio.TaskGroup() as workers:
                    for _ in range(min(self._policy.connections + _LOOKUPS_IN_FLIGHT, len(self._queue))):
                        workers.create_task(self._work(self._queue, http))
                    for _ in range(_STORED_READS_IN_FLIGHT):
                        workers.create_task(self._work(self._stored, http))
                await self._received.join()
            finally:
                for task in background:
                    task.cancel()
        self._report(self._finished)

    async def _report_at_intervals(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_S)
            if self._finished:
                batch, self._finished = self._finished, []
                self._report(batch)

    async def _work(self, queue: HostQueue, http: HttpFetcher) -> None:
        while (job := queue.next()) is not None:
            if job.url is None:
                fetched = await self._fetch_row(job, http)
            else:
                await self._settle_name(job, http)
                self._ready += 1
                async with self._connections:
                    self._ready -= 1
                    await self._room.wait()
                    fetched = await self._fetch_row(job, http, keep_alive=queue.has_more(job))
            queue.done(job)
            if isinstance(fetched, Row):
                self._finished.append((job.row, fetched))
            else:
                self._received.put_nowait((job, *fetched))
                self._unchecked_bytes += len(fetched[1])
                if self._unchecked_bytes > _MOST_UNCHECKED_BYTES:
                    self._room.clear()
            await self._room.wait()

    async def _settle_name(self, job: Job, http: HttpFetcher) -> None:
        try:
            if job.url is not None:
                await http.settle_name(job.url)
        except Exception:  # the fetch will meet it too, and end the row
            logger.exception("lookup for %s", job.url)

    async def _fetch_row(self, job: Job, http: HttpFetcher, keep_alive: bool = False) -> Row | tuple[Row, bytes]:
        """The failed row, or the row and its bytes, which nobody has looked at yet."""
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
            return replace(row, attempts=attempts, fetched_at=_now()), data
        except FetchFailure as failure:
            row = row.failed(failure.status, failure.message)
        except TimeoutError:
            row = row.failed(FetchStatus.timeout, f"not done within {self._policy.total_timeout_s:g} s")
        except Exception as error:  # one odd answer must not cost the other rows of the shard
            logger.exception("row %s: %s", row.sample_id, row.url)
            row = row.failed(FetchStatus.protocol_error, f"unexpected {type(error).__name__}")
        return replace(row, attempts=attempts, fetched_at=_now())

    async def _read(self, job: Job, row: Row, http: HttpFetcher, keep_alive: bool) -> bytes:
        if job.url is not None:
            return await http.fetch(job.url, keep_alive)
        limit = self._policy.max_image_bytes
        return await self._loop.run_in_executor(self._readers, read_stored, row.url or "", limit, self._context)

    async def _check_received(self) -> None:
        """Decodes what arrived, a picture at a time. Requests that could go out come first: a shard ends with some
        seconds of waiting for slow servers, which is time enough for what was put off."""
        while True:
            job, row, data = await self._received.get()
            requests_first = (self._ready or self._queue.has_turns()) and self._room.is_set()
            await asyncio.sleep(_REQUESTS_FIRST_S if requests_first else 0)
            if _is_small(data):
                row = _checked_row(row, data, self._policy.max_image_pixels)
            else:
                row = await self._loop.run_in_executor(
                    self._decoders, _checked_row, row, data, self._policy.max_image_pixels
                )
            self._finished.append((job.row, row))
            self._unchecked_bytes -= len(data)
            if self._unchecked_bytes <= _MOST_UNCHECKED_BYTES:
                self._room.set()
            self._received.task_done()

    async def _wait_before_retry(self, retry: int, failure: FetchFailure, deadline: asyncio.Timeout) -> None:
        """Sleeps if another try makes sense and there is time for it, else raises the failure."""
        delay = max(self._policy.backoff_s * 2**retry, failure.retry_after_s or 0.0)
        ends = deadline.when() or 0.0
        if not failure.transient or retry >= self._policy.retries or self._loop.time() + delay >= ends:
            raise failure
        await asyncio.sleep(delay)


def _is_small(data: bytes) -> bool:
    if len(data) > _INLINE_BYTES:
        return False
    try:
        image_size(data, _INLINE_PIXELS)
    except UndecodableImage as error:
        return error.reason != "too_many_pixels"
    return True


def _checked_row(row: Row, data: bytes, max_pixels: int) -> Row:
    """The row with its picture, or its failure: not_an_image, undecodable or too_many_pixels."""
    try:
        width, height = verify_image(data, max_pixels)
    except UndecodableImage as error:
        return row.failed(FetchStatus(error.reason), str(error))
    picture = Picture(data, width, height, hashlib.sha256(data).hexdigest())
    return replace(row, status=FetchStatus.ok, error=None, picture=picture, sha256=picture.sha256)


def _now() -> datetime:
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
