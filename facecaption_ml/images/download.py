"""URLs of one shard to the bytes behind them, concurrently: source_manifest → raw_images.

One event loop in a thread of its own does all network work. Each row ends with a status; no row is lost, and none
can take longer than the policy's total timeout and the lookups of its host before.

Memory, whatever the bodies: 64 MiB of bodies that arrive, 128 MiB of those whose check is due, 64 MiB of pictures that wait for
rows before them, a table of 16 MiB (or of one picture) at a time, and per processor one picture being decoded, but only one of
over 25 megapixels. What does not fit is in files without a name meanwhile (``bodies``).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

import polars as pl

from facecaption_ml.images.bodies import Bodies
from facecaption_ml.images.earlier_rows import EarlierRows
from facecaption_ml.images.host_queue import Job
from facecaption_ml.images.policy import DownloadContext
from facecaption_ml.images.raw_images import (
    LONGEST_ERROR,
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
from facecaption_ml.images.stored_objects import is_stored
from facecaption_ml.schemas import conform, empty
from facecaption_ml.storage.table_file import TableFile
from facecaption_ml.texts import shortened

if TYPE_CHECKING:
    from facecaption_ml.images.policy import DownloadPolicy

logger = logging.getLogger(__name__)

_CHUNK_ROWS: Final = 512
_CHUNK_BYTES: Final = 16 * 2**20


def fetch_raw_images(
    manifest: pl.DataFrame,
    policy: DownloadPolicy,
    context: DownloadContext | None = None,
    previous: pl.DataFrame | EarlierRows | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> pl.DataFrame:
    """The raw_images table of one shard, all of it in memory: a row for each row of ``manifest``, in its order.

    ``previous`` is the shard's earlier raw_images: pictures and lasting failures are taken over, ``context.denied`` is
    applied anew, and only rows are fetched whose failure may pass or was due to a setting that has changed since.
    ``on_progress(done, total)`` is called in this thread. Raises ScratchError where a disk that is needed is full.
    """
    chunks = list(iter_fetched(manifest, policy, context, previous, on_progress))
    return pl.concat(chunks, rechunk=False) if chunks else empty("raw_images")


def fetch_to_file(
    manifest: pl.DataFrame,
    policy: DownloadPolicy,
    context: DownloadContext | None = None,
    previous: pl.DataFrame | EarlierRows | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[TableFile, pl.DataFrame]:
    """As fetch_raw_images, the table in a file, whatever the pictures add up to; and what can be said of it without them:
    raw_images with ``image_bytes``, the size of each picture (UInt32, null where there is none), in place of ``image``.
    """
    table = TableFile("raw_images", context.scratch if context is not None else None)
    size = pl.col("image").struct.field("bytes").bin.size()
    facts = [_facts_of(empty("raw_images"), size)]
    for chunk in iter_fetched(manifest, policy, context, previous, on_progress):
        table.add(chunk)
        facts.append(_facts_of(chunk, size))
    return table.close(), pl.concat(facts)


def _facts_of(raw: pl.DataFrame, size: pl.Expr) -> pl.DataFrame:
    return raw.with_columns(image_bytes=size).drop("image")


def iter_fetched(
    manifest: pl.DataFrame,
    policy: DownloadPolicy,
    context: DownloadContext | None = None,
    previous: pl.DataFrame | EarlierRows | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    chunk_rows: int = _CHUNK_ROWS,
) -> Iterator[pl.DataFrame]:
    """As fetch_raw_images, in tables of at most ``chunk_rows`` rows and some 16 MiB, each as soon as its rows and all before
    are done."""
    context = context or DownloadContext()
    earlier = EarlierRows.of_frame(previous) if isinstance(previous, pl.DataFrame) else previous
    rows, jobs = _plan(conform(manifest, "source_manifest"), policy, context, earlier)
    waiting = {job.row for job in jobs}
    firsts: dict[str, str] = {}
    start = end = size = 0  # rows[start:end] are done, in order and not yet handed out; bytes of their pictures
    with Bodies(policy.connections, context.scratch) as bodies:
        for finished in _run_in_thread(rows, jobs, policy, context, bodies):
            for index, row in finished:
                rows[index] = row
                waiting.discard(index)
            if on_progress is not None:
                on_progress(len(rows) - len(waiting), len(rows))
            while end < len(rows) and end not in waiting:
                rows[end] = row = _settled(rows[end], context, firsts)
                more = row.picture.body.size() if row.picture is not None else 0
                if end > start and size + more > _CHUNK_BYTES:
                    yield _handed_out(rows, start, end)
                    start, size = end, 0
                end, size = end + 1, size + more
                if end == len(rows) or end - start == chunk_rows:
                    yield _handed_out(rows, start, end)
                    start, size = end, 0


def _settled(row: Row, context: DownloadContext, firsts: dict[str, str]) -> Row:
    """The row as it is written; where it turns out to have no picture, its bytes are free."""
    settled = mark_repeated(deny_by_hash(row, context.denied), firsts)
    if row.picture is not None and settled.picture is None:
        row.picture.body.release()
    return settled


def _handed_out(rows: list[Row], start: int, end: int) -> pl.DataFrame:
    """The table of some rows, whose bytes are free then."""
    table = to_table(rows[start:end])
    for index, row in enumerate(rows[start:end], start):
        if row.picture is not None:
            row.picture.body.release()
            rows[index] = replace(row, picture=None)
    return table


def _plan(
    manifest: pl.DataFrame, policy: DownloadPolicy, context: DownloadContext, earlier: EarlierRows | None
) -> tuple[list[Row], list[Job]]:
    """Every row of the manifest, settled where no request is needed, and the jobs for those that are not."""
    known_rows = settled_earlier(earlier, policy, context)
    # A row that only repeats a URL has the same id and no attempts of its own.
    tries = () if earlier is None else earlier.facts.sort("attempts").select("sample_id", "attempts").iter_rows()
    attempts: dict[str, int] = dict(tries)
    rows: list[Row] = []
    jobs: list[Job] = []
    columns = ("sample_id", "url", "alt_text", "duplicate_url")
    for index, (sample_id, url, alt_text, duplicate) in enumerate(manifest.select(columns).iter_rows()):
        known = None if duplicate else known_rows.get((sample_id, url))
        tried = 0 if duplicate else attempts.get(sample_id, 0)
        row = known or Row(sample_id, url, alt_text, FetchStatus.ok, attempts=tried)
        row = replace(row, alt_text=alt_text)
        try:
            settled = settle_without_request(row, bool(duplicate), context.denied)
            if settled is None and is_stored(url):
                # Whether a repeated picture still is one is seen when both have been read.
                stands = known is not None and known.status is not FetchStatus.duplicate_image
                jobs.append(Job(index, None, stands))
            elif settled is None and known is None:
                jobs.append(Job(index, parse_url(url)))
        except FetchFailure as failure:
            settled = row.failed(failure.status, failure.message)
        except Exception as error:  # one odd URL must not cost the other rows of the shard
            logger.exception("row %s: %a", sample_id, shortened(str(url), LONGEST_ERROR))
            settled = row.failed(FetchStatus.invalid_url, f"unexpected {type(error).__name__}")
        rows.append(settled or row)
    return rows, jobs


def _run_in_thread(
    rows: list[Row], jobs: list[Job], policy: DownloadPolicy, context: DownloadContext, bodies: Bodies
) -> Iterator[Finished]:
    """Fetches the jobs in an event loop of its own thread, so callers may have a running loop themselves.

    Yields batches of finished rows, an empty one first. Leaving the iterator early (Ctrl-C, close) stops the thread.
    """
    yield []
    if not jobs:
        return
    messages: SimpleQueue[Finished | BaseException | None] = SimpleQueue()
    shard = ShardDownload(rows, jobs, policy, context, bodies, messages.put)
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
