"""Response headers as servers send them and browsers take them, mended before aiohttp's strict parser sees them.

Also what single headers say: when to come back, whether a partial answer is the whole picture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Final, cast

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

MAX_HEAD_BYTES: Final = 256 * 1024
"""Of all headers of one response, status line included: what browsers take."""
HEAD_TOO_LONG: Final = f"headers are longer than {MAX_HEAD_BYTES:,} bytes"
MAX_HEADERS: Final = 16_384
"""Headers of one response: more than can stand in so many bytes with any sense."""

_START: Final = b"HTTP/"
_END: Final = re.compile(rb"\r?\n\r?\n")
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_STATUS_LINE: Final = re.compile(
    rb"HTTP/(?P<old>0(?:\.\d+)?|1\.0)?[\d.]*[ \t]+(?P<code>\d{3})(?:[ \t]+(?P<reason>.*))?", re.IGNORECASE
)
_SAYS_NOTHING: Final = {(b"content-length", b""), (b"transfer-encoding", b"identity")}
_INTERIM: Final = re.compile(rb"HTTP/1\.\d 1(?!01)\d\d")
_MOST_INTERIM: Final = 100  # a flood of them would keep the event loop from all other rows
_TRAILER_BYTES: Final = 1024 * 1024
_FRAMING: Final = 8  # a chunk of one byte is six bytes long
_SECONDS: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]*)?")
_RANGE: Final = re.compile(r"bytes\s+0-([0-9]{1,18})/([0-9]{1,18})", re.ASCII | re.IGNORECASE)


def mended(head: bytes) -> bytes:
    """A response's status line and headers, up to the empty line, in a form that every parser reads alike.

    Folded lines are joined, blanks before the colon go, lines without a colon or with a name that is none are left out, an
    empty Content-Length too; equal ones become one (RFC 9110 §8.6), and Transfer-Encoding: chunked overrides them (RFC 9112
    §6.3). Lengths that differ stay, so that the parser refuses them.
    """
    status, *lines = re.split(rb"\r?\n", head.rstrip(b"\r\n"))
    if found := _STATUS_LINE.fullmatch(status):
        status = b"HTTP/1.%s %s %s" % (b"0" if found["old"] else b"1", found["code"], found["reason"] or b"")
    fields: list[tuple[bytes, bytes]] = []
    for line in lines:
        if line[:1] in (b" ", b"\t"):
            if fields:
                fields[-1] = (fields[-1][0], fields[-1][1] + b" " + line.strip(b" \t"))
            continue
        name, colon, value = line.partition(b":")
        name = name.rstrip(b" \t")
        value = value.strip(b" \t")
        if colon and _TOKEN.fullmatch(name) and (name.lower(), value.lower()) not in _SAYS_NOTHING:
            fields.append((name, value))
    if any(name.lower() == b"content-length" for name, _ in fields):
        fields = _with_one_length(fields)
    return b"\r\n".join([status, *(b"%s: %s" % field for field in fields), b"", b""])


def _with_one_length(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    others = [(name, value) for name, value in fields if name.lower() != b"content-length"]
    if any(name.lower() == b"transfer-encoding" and b"chunked" in value.lower() for name, value in others):
        return others
    values = [value for name, value in fields if name.lower() == b"content-length"]
    lengths = {length.strip(b" \t").lstrip(b"0") or b"0" for value in values for length in value.split(b",")}
    return [*others, (b"Content-Length", lengths.pop())] if len(lengths) == 1 else fields


class TolerantHandler(ResponseHandler):
    """One connection's protocol: holds each response's head back until it is whole, and hands it on mended."""

    _head: bytearray | None = None
    _body_bytes = _interim = 0

    def set_response_params(self, **params: Any) -> None:
        self._head, self._body_bytes, self._interim = bytearray(), 0, 0
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        if self._head is None:
            if data and self._payload is not None and self._payload.is_eof():
                self._close_idle()  # an answer that nobody asked for would be taken for the next request's
            else:
                self._receive_body(data)
            return
        searched = max(len(self._head) - 3, 0)
        self._head += data if self._head else data.lstrip(b"\r\n")
        if self._head and not self._head[: len(_START)].upper().startswith(_START[: len(self._head)]):
            data, self._head = bytes(self._head), None
            super().data_received(data)  # no HTTP: the parser says so
            return
        while self._head is not None:
            end = _END.search(self._head, searched)
            if (end.end() if end else len(self._head)) > MAX_HEAD_BYTES:
                self._refuse(HEAD_TOO_LONG)
                return
            if end is None:
                self.start_timeout()
                return
            head, rest = mended(bytes(self._head[: end.end()])), self._head[end.end() :]
            searched = 0
            self._head = rest if _INTERIM.match(head) else None
            self._interim += 1
            if self._interim > _MOST_INTERIM:
                self._refuse("interim answers are too many")
                return
            super().data_received(head)
            if self._head is None and rest:
                self._receive_body(bytes(rest))

    def _receive_body(self, data: bytes) -> None:
        """Trailers have no limit in aiohttp that fits such heads, so what is no body is counted."""
        self._body_bytes += len(data)
        payload = self._payload
        super().data_received(data)
        if payload is None or payload.is_eof():
            return
        if self._body_bytes > _TRAILER_BYTES + _FRAMING * payload.total_bytes:
            self._refuse("trailers are too long")
        if self.exception() is not None:  # else whoever reads the body would wait for it
            payload.set_exception(aiohttp.ClientError("invalid body"))

    def _close_idle(self) -> None:
        self.force_close()
        if self.transport is not None:
            self.transport.close()

    def _refuse(self, message: str) -> None:
        self._head = None
        if self.transport is not None:
            self.transport.close()
        self.set_exception(HttpProcessingError(code=400, message=message))


class TolerantConnector(aiohttp.TCPConnector):
    """aiohttp's connector with connections that mend response headers."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = cast("partial[ResponseHandler]", partial(TolerantHandler, loop=self._loop))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a response asks to wait: a number, or a date in any of HTTP's three forms against the response's own."""
    value = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    date = http_date(value)
    if date is None:
        return None
    now = http_date(headers.get("Date", "")) or datetime.now(UTC)
    return max((date - now).total_seconds(), 0.0)


def is_whole(headers: Mapping[str, str]) -> bool:
    """Whether the body of a 206 answer is the whole file: all of its bytes, or no range named."""
    value = headers.get("Content-Range")
    if value is None:
        return not headers.get("Content-Type", "").lower().startswith("multipart/byteranges")
    found = _RANGE.fullmatch(value.strip())
    return found is not None and int(found[1]) + 1 == int(found[2])


def http_date(text: str) -> datetime | None:
    """A date in one of HTTP's three forms (RFC 9110 §5.6.7), None for what is none."""
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
