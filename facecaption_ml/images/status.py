"""How fetching one URL can end, the exception that ends it, and what a shard's statuses add up to."""

from __future__ import annotations

import difflib
from enum import StrEnum
from typing import Final

import polars as pl

from facecaption_ml.errors import FaceCaptionError


class FetchStatus(StrEnum):
    """The end of one row of raw_images. Exactly ``ok`` rows carry an image."""

    ok = "ok"
    invalid_url = "invalid_url"  # no URL, or not one that this downloader may open
    denied = "denied"  # on a deny list: sample, URL, host or SHA-256
    duplicate_url = "duplicate_url"  # an earlier row of the source has the same URL
    duplicate_image = "duplicate_image"  # an earlier row of the shard has the same bytes
    opted_out = "opted_out"  # X-Robots-Tag, TDM reservation or robots.txt
    refused_address = "refused_address"  # the host's address is not public, or the file is outside the allowed folder
    dns_error = "dns_error"
    connect_error = "connect_error"  # refused, unreachable, reset, or closed without an answer
    tls_error = "tls_error"
    timeout = "timeout"
    protocol_error = "protocol_error"  # the answer is not valid HTTP
    http_client_error = "http_client_error"  # 4xx, and codes that bring no picture
    rate_limited = "rate_limited"  # 429
    http_server_error = "http_server_error"  # 5xx
    too_many_redirects = "too_many_redirects"
    too_large = "too_large"
    truncated = "truncated"  # the connection ended before the announced length
    not_an_image = "not_an_image"
    undecodable = "undecodable"
    too_many_pixels = "too_many_pixels"
    missing_file = "missing_file"  # file:// or s3:// without such an object
    read_error = "read_error"  # file:// or s3:// that could not be read

    @property
    def may_pass(self) -> bool:
        """Whether a later run may succeed, so that the row is worth fetching again."""
        return self in _MAY_PASS


_MAY_PASS: Final = frozenset(
    {
        FetchStatus.dns_error,
        FetchStatus.connect_error,
        FetchStatus.timeout,
        FetchStatus.rate_limited,
        FetchStatus.http_server_error,
        FetchStatus.truncated,
        FetchStatus.read_error,
    }
)
_FETCHED: Final = (FetchStatus.ok, FetchStatus.duplicate_image)
_ON_REQUEST: Final = (FetchStatus.denied, FetchStatus.opted_out)
_NOT_ASKED_FOR: Final = (*_ON_REQUEST, FetchStatus.duplicate_url)


class FetchFailure(Exception):  # noqa: N818
    """Why a URL brought no picture.

    ``transient`` failures are tried again within the run, after ``retry_after_s`` seconds where the server named a
    time. (``status.may_pass`` is about the next run.)
    """

    def __init__(
        self, status: FetchStatus, message: str, transient: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.transient = transient
        self.retry_after_s = retry_after_s
        self.redirected = False  # whether it is another address's failure than the one asked for


def fetch_status(name: str, setting: str) -> FetchStatus:
    """The status of that name. Raises FaceCaptionError naming the ``setting`` that gave it and the statuses there are."""
    try:
        return FetchStatus(name)
    except ValueError:
        close = difflib.get_close_matches(name, FetchStatus, n=1)
        meant = f"did you mean {close[0]}?" if close else f"choose among {', '.join(FetchStatus)}"
        raise FaceCaptionError(f"{setting}: {name!r} is no status of a row: {meant}") from None


def count_by_status(raw: pl.DataFrame) -> dict[str, int]:
    """Rows of raw_images per status, for the statuses that occur, in the enum's order. The counts sum to the rows."""
    counts = dict(raw["status"].value_counts().iter_rows())
    return {status.value: counts[status.value] for status in FetchStatus if status.value in counts}


def success_rate(raw: pl.DataFrame) -> float:
    """Share, 0 to 1, of pictures received (repeated ones too) among the rows that were to be fetched.

    Rows that are denied, a repeated URL or opted out say nothing about the network and are left out; 1 where nothing
    was to be fetched.
    """
    wanted = raw.filter(~pl.col("status").is_in([status.value for status in _NOT_ASKED_FOR]))
    if wanted.is_empty():
        return 1.0
    return int(wanted["status"].is_in([status.value for status in _FETCHED]).sum()) / wanted.height


def keeps_its_pictures(raw: pl.DataFrame, earlier: pl.DataFrame) -> bool:
    """Whether these are the rows of the ``earlier`` table, and each that had its picture has it still or lost it on request.

    On request: by a deny list, a removal list or an opt-out. Both have ``sample_id`` and ``status`` of raw_images.
    """
    if raw["sample_id"].to_list() != earlier["sample_id"].to_list():
        return False
    had = earlier["status"].is_in([status.value for status in _FETCHED])
    fine = raw["status"].is_in([status.value for status in (*_FETCHED, *_ON_REQUEST)])
    return bool((fine | ~had).all())
