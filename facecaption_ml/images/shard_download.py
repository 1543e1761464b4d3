"""The event loop that fetches a shard's rows: workers over a queue of hosts, deadlines, retries, the decode check."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from facecaption_ml.decoding import UndecodableImage, image_size, verify_image
from facecaption_ml.images.bodies import ArrivingBody, Bodies, ScratchError
from facecaption_ml.images.host_queue import HostQueue, Job
from facecaption_ml.images.http_fetch import HttpFetcher
from facecaption_ml.images.raw_images import LONGEST_ERROR, Picture, Row
from facecaption_ml.images.status import FetchFailure, FetchStatus
from facecaption_ml.images.stored_objects import read_stored, stored_version
from facecaption_ml.texts import shortened

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
_MOST_UNCHECKED_BYTES: Final = 128 * 2**20
_LARGE_PIXELS: Final = 25_000_000  # of a picture that is decoded alone: a progressive JPEG takes 6 bytes a pixel


class ShardDownload:
    """The work of the download thread; reports batches of finished rows, then None, or the exception that ended it."""

    def __init__(
        self,
        rows: list[Row],
        jobs: list[Job],
        policy: DownloadPolicy,
        context: DownloadContext,
        bodies: Bodies,
        report: Callable[[Finished | BaseException | None], None],
    ) -> None:
        self._rows, self._bodies = rows, bodies
        self._policy, self._context = policy, context
        self._queue = HostQueue((job for job in jobs if job.url is not None), policy.connections_per_host)
        self._stored = HostQueue((job for job in jobs if job.url is None), _STORED_READS_IN_FLIGHT)
        self._report = report
        self._finished: Finished = []
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._stop_wanted = False
        self._fault: BaseException | None = None
        self._received: asyncio.Queue[tuple[Job, Row, ArrivingBody]]
        self._unchecked_bytes = 0
        self._connections: asyncio.Semaphore
        self._ready = 0  # rows that wait for nothing but a connection
        self._room: asyncio.Event  # set while further bodies may be fetched
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._decoder_count = min(_MOST_DECODERS, processors)
        self._decoders = ThreadPoolExecutor(self._decoder_count, thread_name_prefix="decode")
        self._large = threading.Lock()
        self._readers = ThreadPoolExecutor(_STORED_READS_IN_FLIGHT, thread_name_prefix="stored")

    def run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
            self._report(None)
        except BaseException as error:
            self._report(_first(self._fault or error))
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
        async with HttpFetcher(self._policy, self._context, self._bodies) as http:
            background = [asyncio.create_task(self._check_received()) for _ in range(self._decoder_count)]
            background.append(asyncio.create_task(self._report_at_intervals()))
            for task in background:
                task.add_done_callback(self._end_with)
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

    def _end_with(self, background: asyncio.Task[None]) -> None:
        """What ends one of the tasks in the background ends them all: the others would wait for it."""
        if not background.cancelled() and background.exception() is not None and self._task is not None:
            self._fault = background.exception()
            self._task.cancel()

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
                self._unchecked_bytes += fetched[1].size
                if self._unchecked_bytes > _MOST_UNCHECKED_BYTES:
                    self._room.clear()
            await self._room.wait()

    async def _settle_name(self, job: Job, http: HttpFetcher) -> None:
        try:
            if job.url is not None:
                await http.settle_name(job.url)
        except Exception:  # the fetch will meet it too, and end the row
            logger.exception("lookup for %s", job.url)

    async def _fetch_row(self, job: Job, http: HttpFetcher, keep_alive: bool = False) -> Row | tuple[Row, ArrivingBody]:
        """The failed row, or the row and its bytes, which nobody has looked at yet; or the row as it is, where it stands."""
        row = self._rows[job.row]
        if job.url is None:
            version = await self._version_of(row)
            gone = version is None and row.picture is not None  # until the source is listed again, what was read stands
            if job.known and (gone or version == row.file_version):
                return row
            row = replace(row, picture=None, sha256=None, error=None, file_version=version)
        attempts = row.attempts
        try:
            async with asyncio.timeout(self._policy.total_timeout_s) as deadline:
                for retry in range(self._policy.retries + 1):
                    attempts += 1
                    try:
                        body = await self._read(job, row, http, keep_alive)
                        break
                    except FetchFailure as failure:
                        await self._wait_before_retry(retry, failure, deadline)
            return replace(row, attempts=attempts, fetched_at=_now()), body
        except FetchFailure as failure:
            row = row.failed(failure.status, failure.message)
        except TimeoutError:
            row = row.failed(FetchStatus.timeout, f"not done within {self._policy.total_timeout_s:g} s")
        except ScratchError:
            raise
        except Exception as error:  # one odd answer must not cost the other rows of the shard
            logger.exception("row %s: %s", row.sample_id, shortened(row.url or "", LONGEST_ERROR))
            row = row.failed(FetchStatus.protocol_error, f"unexpected {type(error).__name__}")
        return replace(row, attempts=attempts, fetched_at=_now()).under(self._policy, self._context)

    async def _version_of(self, row: Row) -> str | None:
        return await self._loop.run_in_executor(self._readers, stored_version, row.url or "", self._context)

    async def _read(self, job: Job, row: Row, http: HttpFetcher, keep_alive: bool) -> ArrivingBody:
        if job.url is not None:
            return await http.fetch(job.url, keep_alive)
        limit, body = self._policy.max_image_bytes, self._bodies.arriving()
        data = await self._loop.run_in_executor(self._readers, read_stored, row.url or "", limit, self._context)
        await body.add(data)
        return body

    async def _check_received(self) -> None:
        """Decodes what arrived, a picture at a time. Requests that could go out come first: a shard ends with some
        seconds of waiting for slow servers, which is time enough for what was put off."""
        while True:
            job, row, body = await self._received.get()
            requests_first = (self._ready or self._queue.has_turns()) and self._room.is_set()
            await asyncio.sleep(_REQUESTS_FIRST_S if requests_first else 0)
            if _is_small(body):
                row = self._checked_row(row, body)
            else:
                row = await self._loop.run_in_executor(self._decoders, self._checked_row, row, body)
            self._finished.append((job.row, row.under(self._policy, self._context)))
            self._unchecked_bytes -= body.size
            if self._unchecked_bytes <= _MOST_UNCHECKED_BYTES:
                self._room.set()
            self._received.task_done()

    def _checked_row(self, row: Row, body: ArrivingBody) -> Row:
        """The row with its picture, or its failure: not_an_image, undecodable or too_many_pixels."""
        data = body.read()
        body.release()
        try:
            width, height = image_size(data, self._policy.max_image_pixels)
            with self._large if width * height > _LARGE_PIXELS else contextlib.nullcontext():
                width, height = verify_image(data, self._policy.max_image_pixels)
        except UndecodableImage as error:
            return row.failed(FetchStatus(error.reason), str(error))
        picture = Picture(self._bodies.keep(data), width, height, hashlib.sha256(data).hexdigest())
        return replace(row, status=FetchStatus.ok, error=None, picture=picture, sha256=picture.sha256)

    async def _wait_before_retry(self, retry: int, failure: FetchFailure, deadline: asyncio.Timeout) -> None:
        """Sleeps if another try makes sense and there is time for it, else raises the failure."""
        delay = max(self._policy.backoff_s * 2**retry, failure.retry_after_s or 0.0)
        ends = deadline.when() or 0.0
        if not failure.transient or retry >= self._policy.retries or self._loop.time() + delay >= ends:
            raise failure
        await asyncio.sleep(delay)


def _is_small(body: ArrivingBody) -> bool:
    if body.size > _INLINE_BYTES:
        return False
    try:
        image_size(body.read(), _INLINE_PIXELS)
    except UndecodableImage as error:
        return error.reason != "too_many_pixels"
    return True


def _first(error: BaseException) -> BaseException:
    """What ended the work, of the group in which a task group wraps it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _now() -> datetime:
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
