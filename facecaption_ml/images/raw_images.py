"""The rows of raw_images: what an earlier run already settled, and tables made of results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

import polars as pl

from facecaption_ml.dataset.removals import REMOVED
from facecaption_ml.images.status import FetchStatus
from facecaption_ml.schemas import SCHEMAS, conform

if TYPE_CHECKING:
    from facecaption_ml.dataset.removals import RemovalList

_MAX_ATTEMPTS: Final = 32_767  # Int16
_SUFFIXES: Final = {b"\xff\xd8": "jpg", b"\x89P": "png", b"GI": "gif"}  # by a file's first bytes


@dataclass(frozen=True)
class Picture:
    """Bytes that decode, their size after EXIF orientation, and their SHA-256 in hex."""

    data: bytes
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

    def failed(self, status: FetchStatus, error: str) -> Row:
        """The row ended by ``status``: no picture, but the hash stays, as deny lists and duplicates need it."""
        return replace(self, status=status, error=error, picture=None)


def settle_without_request(row: Row, duplicate_url: bool, denied: RemovalList) -> Row | None:
    """The row if it ends before any request is made (deny lists, repeated URL), else None."""
    if row.sample_id in denied.sample_ids:
        return row.failed(FetchStatus.denied, "sample_id is on a deny list")
    if row.url == REMOVED:
        return row.failed(FetchStatus.denied, "taken out on request")
    if denied.names_url(row.url):
        return row.failed(FetchStatus.denied, "URL or its host is on a deny list")
    if duplicate_url:
        return row.failed(FetchStatus.duplicate_url, "an earlier row has the same URL")
    return None


def settled_earlier(previous: pl.DataFrame | None, denied: RemovalList) -> dict[tuple[str, str | None], Row]:
    """Rows of the shard's earlier table that need no request, by sample_id and URL, deny lists applied anew.

    Left out, so fetched again: failures that may pass, rows that earlier ended without a request, rows no longer
    denied, and repeated images whose first copy is now denied and so cannot stand for them.
    """
    if previous is None:
        return {}
    rows = [deny_by_hash(_from_table(row), denied) for row in conform(previous, "raw_images").iter_rows(named=True)]
    kept = {
        row.sha256
        for row in rows
        if row.status is FetchStatus.ok and settle_without_request(row, False, denied) is None
    }
    return {(row.sample_id, row.url): row for row in rows if _is_settled(row, kept, denied)}


def _is_settled(row: Row, kept_images: set[str | None], denied: RemovalList) -> bool:
    if row.status is FetchStatus.duplicate_image:
        return row.sha256 in kept_images
    if row.status is FetchStatus.denied:
        return row.sha256 in denied.sha256
    if row.status is FetchStatus.duplicate_url:
        return False  # it shares its key with the row that was fetched, and must not stand in its place
    return not row.status.may_pass and row.attempts > 0


def _from_table(values: dict) -> Row:
    image = values["image"]
    picture = None
    if values["status"] == FetchStatus.ok:
        picture = Picture(image["bytes"], values["width"], values["height"], values["sha256"])
    kept = ("sample_id", "url", "alt_text", "error", "sha256", "attempts", "fetched_at")
    return Row(status=FetchStatus(values["status"]), picture=picture, **{name: values[name] for name in kept})


def to_table(rows: Sequence[Row]) -> pl.DataFrame:
    """raw_images with these rows in this order."""
    pictures = [row.picture for row in rows]
    images = [
        p and {"bytes": p.data, "path": f"{row.sample_id}.{_SUFFIXES.get(p.data[:2], 'webp')}"}
        for row, p in zip(rows, pictures, strict=True)
    ]
    columns = {
        "sample_id": [row.sample_id for row in rows],
        "url": [row.url for row in rows],
        "alt_text": [row.alt_text for row in rows],
        "status": [row.status.value for row in rows],
        "error": [row.error for row in rows],
        "image": images,
        "width": [p and p.width for p in pictures],
        "height": [p and p.height for p in pictures],
        "sha256": [row.sha256 for row in rows],
        "attempts": [min(row.attempts, _MAX_ATTEMPTS) for row in rows],
        "fetched_at": [row.fetched_at for row in rows],
    }
    return conform(pl.DataFrame(columns, schema=dict(SCHEMAS["raw_images"])), "raw_images")


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
