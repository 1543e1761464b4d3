"""One http(s) URL to the bytes behind it: hop by hop, every hop checked, nothing read beyond the limits."""

from __future__ import annotations

import asyncio
import os
import re
import zlib
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import aiohttp
from yarl import URL

from facecaption_ml.decoding import has_image_signature
from facecaption_ml.images.addresses import CheckedResolver, checked_socket, is_allowed, literal_address
from facecaption_ml.images.opt_out import RobotsCache, decoded_robots, opt_out_in_headers
from facecaption_ml.images.policy import AGENT_TOKEN
from facecaption_ml.images.robots_rules import MOST_BYTES as ROBOTS_BYTES
from facecaption_ml.images.status import FetchFailure, FetchStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from facecaption_ml.images.policy import DownloadContext, DownloadPolicy

_MAX_URL_LENGTH: Final = 8_000
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_KEEP_ALIVE_S: Final = 5.0
_SIGNATURE_BYTES: Final = 16


def parse_url(text: str | None) -> URL:
    """The http(s) URL in ``text``, its host in ASCII, numeric hosts as addresses. Raises FetchFailure invalid_url."""
    if not text or not text.strip():
        raise FetchFailure(FetchStatus.invalid_url, "no URL")
    text = text.strip()
    if len(text) > _MAX_URL_LENGTH:
        raise FetchFailure(FetchStatus.invalid_url, f"longer than {_MAX_URL_LENGTH} characters")
    try:
        if not text.isprintable():
            raise ValueError("control characters")
        url = URL(text)
        if url.scheme not in ("http", "https"):
            raise ValueError(f"scheme {url.scheme!r} is not http or https" if url.scheme else "no scheme")
        if not url.raw_host or not (url.port or 0) > 0:
            raise ValueError("no host or no valid port")
        if ":" not in url.raw_host and not _HOST_NAME.fullmatch(url.raw_host):
            raise ValueError("characters in the host that no name has")
        address = literal_address(url.raw_host)
        url = url.with_user(None).with_fragment(None)
        return url if address is None else url.with_host(str(address))
    except (ValueError, UnicodeError) as error:
        raise FetchFailure(FetchStatus.invalid_url, str(error).splitlines()[0]) from None


class HttpFetcher:
    """Fetches URLs under one policy over one pool of connections. Use as an async context manager."""

    def __init__(self, policy: DownloadPolicy, context: DownloadContext) -> None:
        self._policy, self._denied = policy, context.denied
        resolver = CheckedResolver(policy.allow_private_addresses, context.connect_to, policy.connect_timeout_s)
        connector = aiohttp.TCPConnector(
            limit=policy.connections,
            limit_per_host=policy.connections_per_host,
            keepalive_timeout=_KEEP_ALIVE_S,
            use_dns_cache=False,  # the resolver has its own, of checked addresses
            resolver=resolver,
            socket_factory=partial(checked_socket, policy.allow_private_addresses),
        )
        self._resolver = resolver
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"User-Agent": policy.user_agent, "Accept": "image/*", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=256 * 1024,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=policy.connect_timeout_s, sock_read=policy.read_timeout_s
            ),
        )
        self._robots = RobotsCache(self._read_robots, AGENT_TOKEN)

    async def __aenter__(self) -> HttpFetcher:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._resolver.close()

    async def fetch(self, url: URL, keep_alive: bool = True) -> bytes:
        """The body of ``url`` without content encoding, at most ``max_image_bytes`` long, which starts like an image.

        Raises FetchFailure. The caller sets the deadline.
        """
        async with self._final_response(url, keep_alive, self._policy.respect_opt_out) as response:
            encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
            plain = encoding in ("", "identity")
            data = await self._read(response, may_stop_early=plain)
        return data if plain else await asyncio.to_thread(self._decompress, data, encoding)

    async def _read_robots(self, origin: URL) -> bytes:
        """The first bytes of an origin's robots.txt, empty where there is none (4xx). Raises FetchFailure."""
        try:
            async with (
                asyncio.timeout(self._policy.total_timeout_s / 2),
                self._final_response(origin / "robots.txt", keep_alive=True, with_opt_out=False) as response,
            ):
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) >= ROBOTS_BYTES:
                        break
                return decoded_robots(
                    bytes(body[:ROBOTS_BYTES]), ",".join(response.headers.getall("Content-Encoding", ()))
                )
        except TimeoutError:
            raise FetchFailure(FetchStatus.timeout, "took too long") from None

    @asynccontextmanager
    async def _final_response(
        self, url: URL, keep_alive: bool, with_opt_out: bool
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Follows redirects to the response with status 200; network errors in the block become FetchFailure."""
        for _ in range(self._policy.max_redirects + 1):
            self._require_allowed(url)
            if with_opt_out:
                await self._robots.require_allowed(url)
            headers = None if keep_alive else {"Connection": "close"}
            try:
                async with self._session.get(url, allow_redirects=False, headers=headers) as response:
                    asked_out = with_opt_out and opt_out_in_headers(response.headers, AGENT_TOKEN)
                    if asked_out and response.status < 400:
                        raise FetchFailure(FetchStatus.opted_out, asked_out)
                    if response.status == 200:
                        yield response
                        return
                    url = _redirect_target(url, response)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise _as_failure(error) from error
        raise FetchFailure(FetchStatus.too_many_redirects, f"more than {self._policy.max_redirects} redirects")

    def _require_allowed(self, url: URL) -> None:
        host = url.raw_host or ""
        if self._denied.names_url(str(url)):
            raise FetchFailure(FetchStatus.denied, f"{host} or this URL is on a deny list")
        address = literal_address(host)
        if address is not None and not is_allowed(address, self._policy.allow_private_addresses):
            raise FetchFailure(FetchStatus.refused_address, f"{address} is not a public address")

    async def _read(self, response: aiohttp.ClientResponse, may_stop_early: bool) -> bytes:
        """The body; given up as soon as it is known to be too large or no image."""
        limit = self._policy.max_image_bytes
        announced = response.content_length
        if announced is not None and announced > limit:
            raise FetchFailure(FetchStatus.too_large, f"Content-Length {announced} is over max_image_bytes {limit}")
        chunks: list[bytes] = []
        size = 0
        checked = not may_stop_early
        async for chunk in response.content.iter_any():
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                raise FetchFailure(FetchStatus.too_large, f"body is over max_image_bytes {limit}")
            if not checked and size >= _SIGNATURE_BYTES:
                checked = True
                if not has_image_signature(b"".join(chunks)):
                    raise FetchFailure(FetchStatus.not_an_image, "not a JPEG, PNG, WebP or GIF file")
        return b"".join(chunks)

    def _decompress(self, data: bytes, encoding: str) -> bytes:
        """The body a server compressed although identity was asked for; stops at max_image_bytes."""
        if encoding not in ("gzip", "x-gzip", "deflate"):
            raise FetchFailure(FetchStatus.undecodable, f"Content-Encoding {encoding!r} was not asked for")
        limit = self._policy.max_image_bytes
        for window in (47, -15):  # gzip or zlib by their header; some servers send deflate without one
            decoder = zlib.decompressobj(window)
            try:
                plain = decoder.decompress(data, limit + 1)
            except zlib.error:
                continue
            if len(plain) > limit:
                raise FetchFailure(FetchStatus.too_large, f"decompressed body is over max_image_bytes {limit}")
            return plain
        raise FetchFailure(FetchStatus.undecodable, f"body is not valid {encoding}")


def _redirect_target(url: URL, response: aiohttp.ClientResponse) -> URL:
    """Where a redirect leads. Raises FetchFailure for every other status but 200."""
    status = response.status
    location = response.headers.get("Location")
    if status in _REDIRECTS and location:
        try:
            joined = url.join(URL(location))
        except ValueError:
            raise FetchFailure(FetchStatus.invalid_url, "redirect to an invalid URL") from None
        try:
            return parse_url(str(joined))
        except FetchFailure as failure:
            raise FetchFailure(failure.status, f"redirect: {failure.message}") from None
    reason = f"HTTP {status}"
    if status == 429:
        raise FetchFailure(FetchStatus.rate_limited, reason, transient=True, retry_after_s=_retry_after(response))
    if status >= 500:
        raise FetchFailure(FetchStatus.http_server_error, reason, transient=True, retry_after_s=_retry_after(response))
    if status == 408:
        raise FetchFailure(FetchStatus.timeout, reason, transient=True)
    raise FetchFailure(FetchStatus.http_client_error, reason)


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    value = response.headers.get("Retry-After", "").strip()
    return float(value) if value.isascii() and value.isdigit() and len(value) < 9 else None


def _as_failure(error: Exception) -> FetchFailure:
    """aiohttp's exceptions as statuses; texts are our own so that they do not change from run to run."""
    match error:
        case aiohttp.InvalidURL():
            return FetchFailure(FetchStatus.invalid_url, "the HTTP client rejects this URL")
        case aiohttp.ClientSSLError():
            return FetchFailure(FetchStatus.tls_error, f"TLS: {type(error).__name__}")
        case aiohttp.ConnectionTimeoutError():
            return FetchFailure(FetchStatus.timeout, "no connection within connect_timeout_s", transient=True)
        case TimeoutError():
            return FetchFailure(FetchStatus.timeout, "no bytes for read_timeout_s", transient=True)
        case aiohttp.ClientPayloadError():
            return FetchFailure(FetchStatus.truncated, "the body ended early", transient=True)
        case aiohttp.ServerDisconnectedError():
            return FetchFailure(FetchStatus.connect_error, "closed without an answer", transient=True)
        case aiohttp.ClientOSError() | OSError():
            reason = os.strerror(error.errno) if error.errno else "no connection"
            return FetchFailure(FetchStatus.connect_error, reason, transient=True)
    return FetchFailure(FetchStatus.protocol_error, f"invalid HTTP answer ({type(error).__name__})")
