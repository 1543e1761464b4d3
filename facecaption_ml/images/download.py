"""URLs of one shard to the bytes behind them, concurrently: source_manifest → raw_images.

One event loop in a thread of its own does all network work. Each row ends with a status; no row is lost, and none
can take longer than the policy's total timeout and the lookups of its host before.

Memory: the bytes of rows that finished before an earlier, slower row wait for it, so at most the shard's own pictures.
Beyond them: a body per connection (max_image_bytes at most), 256 MiB of bodies whose check is due, and per processor one
picture being decoded (about 4 bytes a pixel, max_image_pixels at most).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

import polars as pl

from facecaption_ml.images.host_queue import Job
from facecaption_ml.images.policy import DownloadContext
from facecaption_ml.images.raw_images import (
    Row,
    deny_by_hash,
    mark_repeated,
    settle_without_request,
    settled_earlier,
    to_table,
)
from facecaption_ml.images.request_urls import parse_url
from facecaption_ml.images.shard_download import Finished, ShardDownload
from facecaption_ml.images.status import FetchFailure, FetchStatus
from facecaption_ml.images.stored_objects import STORED_SCHEMES, scheme_of
from facecaption_ml.schemas import conform, empty

if TYPE_CHECKING:
    from facecaption_ml.dataset.removals import RemovalList
    from facecaption_ml.images.policy import DownloadPolicy

logger = logging.getLogger(__name__)

_CHUNK_ROWS: Final = 256


def fetch_raw_images(
    manifest: pl.DataFrame,
    policy: DownloadPolicy,
    context: DownloadContext | None = None,
    previous: pl.DataFrame | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """The raw_images table of one shard: a row for each row of ``manifest`` (a source_manifest), in its order.

    ``previous`` is the shard's earlier raw_images: pictures and lasting failures are taken over, ``context.denied`` is
    applied anew, and only rows whose failure may pass are fetched. ``on_progress(done, total)`` is called in this thread.
    """
    chunks = list(iter_fetched(manifest, policy, context, previous, on_progress))
    return pl.concat(chunks, rechunk=False) if chunks else empty("raw_images")


def iter_fetched(
    manifest: pl.DataFrame,
    policy: DownloadPolicy,
    context: DownloadContext | None = None,
    previous: pl.DataFrame | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    chunk_rows: int = _CHUNK_ROWS,
) -> Iterator[pl.DataFrame]:
    """As fetch_raw_images, in tables of ``chunk_rows`` rows, each as soon as its rows and all before are done."""
    context = context or DownloadContext()
    rows, jobs = _plan(conform(manifest, "source_manifest"), context.denied, previous)
    waiting = {job.row for job in jobs}
    firsts: dict[str, str] = {}
    start = end = 0  # rows[start:end] are done, in order and not yet handed out
    for finished in _run_in_thread(rows, jobs, policy, context):
        for index, row in finished:
            rows[index] = row
            waiting.discard(index)
        while end < len(rows) and end not in waiting:
            rows[end] = mark_repeated(deny_by_hash(rows[end], context.denied), firsts)
            end += 1
        if on_progress is not None:
            on_progress(len(rows) - len(waiting), len(rows))
        while end - start >= chunk_rows or (start < end == len(rows)):
            stop = min(start + chunk_rows, end)
            table = to_table(rows[start:stop])
            rows[start:stop] = [replace(row, picture=None) for row in rows[start:stop]]  # their bytes are free
            start = stop
            yield table


def _plan(manifest: pl.DataFrame, denied: RemovalList, previous: pl.DataFrame | None) -> tuple[list[Row], list[Job]]:
    """Every row of the manifest, settled where no request is needed, and the jobs for those that are not."""
    earlier = settled_earlier(previous, denied)
    # A row that only repeats a URL has the same id and no attempts of its own.
    tries = () if previous is None else previous.sort("attempts").select("sample_id", "attempts").iter_rows()
    attempts: dict[str, int] = dict(tries)
    rows: list[Row] = []
    jobs: list[Job] = []
    columns = ("sample_id", "url", "alt_text", "duplicate_url")
    for index, (sample_id, url, alt_text, duplicate) in enumerate(manifest.select(columns).iter_rows()):
        known = None if duplicate else earlier.get((sample_id, url))
        tried = 0 if duplicate else attempts.get(sample_id, 0)
        row = known or Row(sample_id, url, alt_text, FetchStatus.ok, attempts=tried)
        row = replace(row, alt_text=alt_text)
        try:
            settled = settle_without_request(row, bool(duplicate), denied)
            if settled is None and known is None:
                jobs.append(Job(index, None if scheme_of(url) in STORED_SCHEMES else parse_url(url)))
        except FetchFailure as failure:
            settled = row.failed(failure.status, failure.message)
        except Exception as error:  # one odd URL must not cost the other rows of the shard
            logger.exception("row %s: %a", sample_id, url)
            settled = row.failed(FetchStatus.invalid_url, f"unexpected {type(error).__name__}")
        rows.append(settled or row)
    return rows, jobs


def _run_in_thread(
    rows: list[Row], jobs: list[Job], policy: DownloadPolicy, context: DownloadContext
) -> Iterator[Finished]:
    """Fetches the jobs in an event loop of its own thread, so callers may have a running loop themselves.

    Yields batches of finished rows, an empty one first. Leaving the iterator early (Ctrl-C, close) stops the thread.
    """
    yield []
    if not jobs:
        return
    messages: SimpleQueue[Finished | BaseException | None] = SimpleQueue()
    shard = ShardDownload(rows, jobs, policy, context, messages.put)
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
