"""The rows of raw_images: what an earlier run already settled, and tables made of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from facecaption_ml.dataset.removals import REMOVED
from facecaption_ml.images.decisions import decided_by, may_be_stricter, settings_in
from facecaption_ml.images.status import FetchStatus
from facecaption_ml.schemas import SCHEMAS, conform
from facecaption_ml.texts import shortened

if TYPE_CHECKING:
    from facecaption_ml.dataset.removals import RemovalList
    from facecaption_ml.images.bodies import Body
    from facecaption_ml.images.earlier_rows import EarlierRows
    from facecaption_ml.images.policy import DownloadContext, DownloadPolicy

_MAX_ATTEMPTS: Final = 32_767  # Int16
LONGEST_ERROR: Final = 200  # characters; texts of servers and URLs end up in it
_SUFFIXES: Final = {b"\xff\xd8": "jpg", b"\x89P": "png", b"GI": "gif"}  # by a file's first bytes


@dataclass(frozen=True)
class Picture:
    """Where bytes that decode are, their size after EXIF orientation, and their SHA-256 in hex."""

    body: Body
    width: int
    height: int
    sha256: str


@dataclass(frozen=True)
class Row:
    """One row of raw_images in the making."""

    sample_id: str
    url: str | None
    alt_text: str | None
    status: FetchStatus
    error: str | None = None
    picture: Picture | None = None  # with status ok
    sha256: str | None = None
    attempts: int = 0  # requests in all runs; hops and robots.txt are not counted
    fetched_at: datetime | None = None  # null where nothing was requested
    decided_by: str | None = None  # see decisions
    file_version: str | None = None  # of a file:// or s3:// picture, see stored_objects

    def failed(self, status: FetchStatus, error: str) -> Row:
        """The row ended by ``status``: no picture, but the hash stays, as deny lists and duplicates need it."""
        return replace(self, status=status, error=shortened(error, LONGEST_ERROR), picture=None)

    def under(self, policy: DownloadPolicy, context: DownloadContext) -> Row:
        """The row with a note of the settings that its end depends on."""
        return replace(self, decided_by=decided_by(self.status, self.error, self.url, policy, context))


def settle_without_request(row: Row, duplicate_url: bool, denied: RemovalList) -> Row | None:
    """The row if it ends before any request is made (deny lists, repeated URL), else None."""
    if row.sample_id in denied.sample_ids:
        return row.failed(FetchStatus.denied, "sample_id is on a deny list")
    if row.url == REMOVED:
        return row.failed(FetchStatus.denied, "removed on request")
    if denied.names_url(row.url):
        return row.failed(FetchStatus.denied, "URL or its host is on a deny list")
    if duplicate_url:
        return row.failed(FetchStatus.duplicate_url, "an earlier row has the same URL")
    return None


def settled_earlier(
    earlier: EarlierRows | None, policy: DownloadPolicy, context: DownloadContext
) -> dict[tuple[str, str | None], Row]:
    """Rows of the shard's earlier table that need no request, by sample_id and URL, deny lists applied anew.

    Left out, so fetched again: failures that may pass, failures that depend on a setting which has changed, rows that earlier
    ended without a request, rows no longer denied, those of a status in ``context.refetch``, and repeated images whose first
    copy is not kept and so cannot stand for them. Pictures are held against the limits of today; where opt-outs or private
    addresses count now and did not, they are fetched again.
    """
    if earlier is None:
        return {}
    denied = context.denied
    rows = [deny_by_hash(row, denied) for row in _judged_anew(earlier, policy, context)]
    kept = {
        row.sha256
        for row in rows
        if row.status is FetchStatus.ok
        and settle_without_request(row, False, denied) is None
        and _stands(row, policy, context)
    }
    return {(row.sample_id, row.url): row for row in rows if _is_settled(row, kept, policy, context)}


def _judged_anew(earlier: EarlierRows, policy: DownloadPolicy, context: DownloadContext) -> list[Row]:
    """The rows, with pictures that today's limits do not allow as failures."""
    rows = [_from_table(values, earlier, index) for index, values in enumerate(earlier.facts.iter_rows(named=True))]
    limits = [int(settings_in(row.decided_by).get("max_image_bytes", -1)) for row in rows if row.picture]
    sizes = earlier.sizes() if any(not 0 <= limit <= policy.max_image_bytes for limit in limits) else None
    return [
        _within_limits(row, row.picture, sizes[index] if sizes else None, policy, context) if row.picture else row
        for index, row in enumerate(rows)
    ]


def _within_limits(
    row: Row, picture: Picture, size: int | None, policy: DownloadPolicy, context: DownloadContext
) -> Row:
    if size is not None and size > policy.max_image_bytes:
        error = f"{size} bytes are over max_image_bytes {policy.max_image_bytes}"
        return row.failed(FetchStatus.too_large, error).under(policy, context)
    if picture.width * picture.height > policy.max_image_pixels:
        error = f"{picture.width}x{picture.height} pixels are more than the cap of {policy.max_image_pixels}"
        return row.failed(FetchStatus.too_many_pixels, error).under(policy, context)
    return row


def _is_settled(row: Row, kept_images: set[str | None], policy: DownloadPolicy, context: DownloadContext) -> bool:
    if row.status is FetchStatus.duplicate_image:
        return row.sha256 in kept_images and _stands(row, policy, context)
    if row.status is FetchStatus.denied:
        return row.sha256 in context.denied.sha256
    if row.status is FetchStatus.duplicate_url:
        return False  # it shares its key with the row that was fetched, and must not stand in its place
    return not row.status.may_pass and row.attempts > 0 and _stands(row, policy, context)


def _stands(row: Row, policy: DownloadPolicy, context: DownloadContext) -> bool:
    """Whether a row that does not pass by itself would end so again."""
    if row.status in context.refetch:
        return False
    if row.status in (FetchStatus.ok, FetchStatus.duplicate_image):
        return not may_be_stricter(row.decided_by, policy)
    return row.decided_by == row.under(policy, context).decided_by


def _from_table(values: Mapping[str, Any], earlier: EarlierRows, index: int) -> Row:
    picture = None
    if values["status"] == FetchStatus.ok:
        picture = Picture(earlier.body(index), values["width"], values["height"], values["sha256"])
    kept = ("sample_id", "url", "alt_text", "error", "sha256", "attempts", "fetched_at", "decided_by", "file_version")
    return Row(status=FetchStatus(values["status"]), picture=picture, **{name: values[name] for name in kept})


def to_table(rows: Sequence[Row]) -> pl.DataFrame:
    """raw_images with these rows in this order; reads their pictures."""
    pictures = [row.picture for row in rows]
    data = [None if picture is None else picture.body.read() for picture in pictures]
    paths = [
        None if body is None else f"{row.sample_id}.{_SUFFIXES.get(body[:2], 'webp')}"
        for row, body in zip(rows, data, strict=True)
    ]
    columns = {
        "sample_id": [row.sample_id for row in rows],
        "url": [row.url for row in rows],
        "alt_text": [row.alt_text for row in rows],
        "status": [row.status.value for row in rows],
        "error": [row.error for row in rows],
        "width": [p and p.width for p in pictures],
        "height": [p and p.height for p in pictures],
        "sha256": [row.sha256 for row in rows],
        "attempts": [min(row.attempts, _MAX_ATTEMPTS) for row in rows],
        "fetched_at": [row.fetched_at for row in rows],
        "decided_by": [row.decided_by for row in rows],
        "file_version": [row.file_version for row in rows],
    }
    schema = {name: dtype for name, dtype in SCHEMAS["raw_images"].items() if name != "image"}
    parts = (pl.Series("bytes", data, dtype=pl.Binary), pl.Series("path", paths, dtype=pl.String))
    image = pl.when(parts[0].is_not_null()).then(pl.struct(*parts))
    return conform(pl.DataFrame(columns, schema=schema).with_columns(image=image), "raw_images")


def deny_by_hash(row: Row, denied: RemovalList) -> Row:
    """The row, or its denial where its SHA-256 is on the deny list."""
    if row.sha256 is None or row.sha256 not in denied.sha256:
        return row
    return row.failed(FetchStatus.denied, "SHA-256 is on a deny list")


def mark_repeated(row: Row, firsts: dict[str, str]) -> Row:
    """The row, or its end where an earlier row has the same bytes. Rows must come in manifest order, so the first keeps
    its image; ``firsts`` gathers the samples of first images by SHA-256."""
    if row.sha256 is None or row.status not in (FetchStatus.ok, FetchStatus.duplicate_image):
        return row
    if row.sha256 in firsts:
        return row.failed(FetchStatus.duplicate_image, f"same bytes as sample {firsts[row.sha256]}")
    if row.status is FetchStatus.ok:
        firsts[row.sha256] = row.sample_id
    return row
