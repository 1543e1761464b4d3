"""One http(s) URL to the bytes behind it: hop by hop, every hop checked, nothing read beyond the limits."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from yarl import URL

from facecaption_ml.decoding import has_image_signature
from facecaption_ml.images.addresses import CheckedResolver, is_allowed, literal_address
from facecaption_ml.images.content_coding import codings_of, decoded
from facecaption_ml.images.name_lookup import NameLookup
from facecaption_ml.images.opt_out import RobotsCache, decoded_robots, opt_out_in_headers
from facecaption_ml.images.policy import AGENT_TOKEN
from facecaption_ml.images.proxy import read_proxy, say_none_is_used, unused_variable
from facecaption_ml.images.redirect_cookies import RedirectCookies
from facecaption_ml.images.request_urls import redirect_target
from facecaption_ml.images.response_head import (
    HEAD_TOO_LONG,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    TolerantConnector,
    is_whole,
    retry_after,
)
from facecaption_ml.images.robots_rules import MOST_BYTES as ROBOTS_BYTES
from facecaption_ml.images.status import FetchFailure, FetchStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from facecaption_ml.images.bodies import ArrivingBody, Bodies
    from facecaption_ml.images.policy import DownloadContext, DownloadPolicy

_LOCALHOST: Final = re.compile(r"(?:.*\.)?localhost\.?", re.IGNORECASE)  # RFC 6761 §6.3
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_NO_CONTENT: Final = (204, 205)
_KEEP_ALIVE_S: Final = 5.0
_SIGNATURE_BYTES: Final = 16
_NO_LOGIN: Final = "HTTP 407: the proxy wants a user and a password, or others than those of the setting `proxy`"
# Of a robots.txt: where there is none to be had, everything may be fetched (RFC 9309 §2.3.1.3). Redirects that lead nowhere
# count among them; the row's own address is checked by itself.
_NO_ROBOTS: Final = frozenset(
    {
        FetchStatus.http_client_error,
        FetchStatus.too_many_redirects,
        FetchStatus.invalid_url,
        FetchStatus.refused_address,
        FetchStatus.denied,
    }
)


class HttpFetcher:
    """Fetches URLs under one policy over one pool of connections. Use as an async context manager."""

    def __init__(self, policy: DownloadPolicy, context: DownloadContext, bodies: Bodies) -> None:
        self._bodies = bodies
        self._policy, self._denied = policy, context.denied
        proxy = read_proxy(policy.proxy.get_secret_value())
        self._unused_proxy = unused = unused_variable() if proxy is None else None
        hint = f" ({unused} is set but not used: the setting `proxy` names none)" if unused else ""
        names = NameLookup(policy.nameservers, policy.connect_timeout_s, policy.retries + 1, policy.backoff_s, hint)
        self._resolver = CheckedResolver(
            names, policy.allow_private_addresses, context.connect_to, proxy.host if proxy else None
        )
        self._proxy = proxy
        connector = TolerantConnector(
            limit=policy.connections,
            limit_per_host=policy.connections_per_host,
            keepalive_timeout=_KEEP_ALIVE_S,
            use_dns_cache=False,  # the resolver has its own, of checked addresses
            resolver=self._resolver,
            socket_factory=self._resolver.open_socket,
        )
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
            max_line_size=MAX_HEAD_BYTES,
            max_field_size=MAX_HEAD_BYTES,
            max_headers=MAX_HEADERS,
        )
        self._decoding = threading.Lock()  # one at a time, as each may unpack to max_image_bytes
        self._robots = RobotsCache(self._read_robots, AGENT_TOKEN)

    async def __aenter__(self) -> HttpFetcher:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self._resolver.close()

    async def settle_name(self, url: URL) -> None:
        """Looks the URL's host up beforehand, so that ``fetch`` does not wait for name servers. Never fails."""
        host = url.raw_host or ""
        if self._unused_proxy is not None and self._resolver.replaced(host) is None:
            say_none_is_used(self._unused_proxy)
        await self._resolver.settle(host)

    async def fetch(self, url: URL, keep_alive: bool = True) -> ArrivingBody:
        """The body of ``url`` without content encoding, at most ``max_image_bytes`` long, which starts like an image.

        Raises FetchFailure, or ScratchError where the disk that it is kept on is full. The caller sets the deadline.
        """
        async with self._final_response(url, keep_alive, self._policy.respect_opt_out) as response:
            codings = codings_of(response.headers.getall("Content-Encoding", ()))
            body = await self._read(response, may_stop_early=not codings)
        if not codings:
            return body
        plain = self._bodies.arriving()
        await plain.add(await asyncio.to_thread(self._without_codings, body, codings))
        return plain

    def _without_codings(self, body: ArrivingBody, codings: list[str]) -> bytes:
        data = body.read()
        body.release()
        with self._decoding:
            return decoded(data, codings, self._policy.max_image_bytes, has_image_signature)

    async def _read_robots(self, origin: URL) -> bytes:
        """The first bytes of an origin's robots.txt, empty where there is none. Raises FetchFailure."""
        try:
            async with (
                asyncio.timeout(self._policy.total_timeout_s / 2),
                self._final_response(origin / "robots.txt", keep_alive=True, with_opt_out=False) as response,
            ):
                data = bytearray()
                async for chunk in response.content.iter_any():
                    data += chunk
                    if len(data) >= ROBOTS_BYTES:
                        break
                return decoded_robots(bytes(data[:ROBOTS_BYTES]), response.headers.getall("Content-Encoding", ()))
        except TimeoutError:
            raise FetchFailure(FetchStatus.timeout, "took too long") from None
        except FetchFailure as failure:
            if failure.status in _NO_ROBOTS or (failure.redirected and not failure.status.may_pass):
                return b""
            raise

    @asynccontextmanager
    async def _final_response(
        self, url: URL, keep_alive: bool, with_opt_out: bool
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Follows redirects to the response that has the body; network errors in the block become FetchFailure."""
        cookies = RedirectCookies()
        for hop in range(self._policy.max_redirects + 1):
            try:
                self._require_allowed(url)
                if with_opt_out:
                    await self._robots.require_allowed(url)
                async with self._request(url, keep_alive, cookies.header(url)) as response:
                    opt_out = with_opt_out and opt_out_in_headers(response.headers, AGENT_TOKEN)
                    if opt_out and response.status < 400:
                        raise FetchFailure(FetchStatus.opted_out, opt_out)
                    if response.status == 407 and self._proxy is not None:
                        raise FetchFailure(FetchStatus.connect_error, _NO_LOGIN)
                    if _has_body(response):
                        yield response
                        return
                    cookies.keep(url, response.headers.getall("Set-Cookie", ()))
                    url = _next_url(url, response)
            except FetchFailure as failure:
                failure.redirected = hop > 0
                raise failure from None
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise _as_failure(error, redirected=hop > 0) from error
        raise FetchFailure(FetchStatus.too_many_redirects, f"more than {self._policy.max_redirects} redirects")

    def _request(self, url: URL, keep_alive: bool, cookie: str | None) -> Any:
        headers = {} if keep_alive else {"Connection": "close"}
        if cookie is not None:
            headers["Cookie"] = cookie
        through: dict[str, Any] = {}
        if self._proxy is not None and self._resolver.replaced(url.raw_host or "") is None:
            login = self._proxy.headers
            through = {"proxy": self._proxy.url, "proxy_headers": login}
            if url.scheme == "http":  # no tunnel: the proxy itself reads the request
                headers |= login
        return self._session.get(url, allow_redirects=False, headers=headers or None, **through)

    def _require_allowed(self, url: URL) -> None:
        host = url.raw_host or ""
        if self._denied.names_url(str(url)):
            raise FetchFailure(FetchStatus.denied, f"{host} or this URL is on a deny list")
        address = literal_address(host)
        if address is not None and not is_allowed(address, self._policy.allow_private_addresses):
            raise FetchFailure(FetchStatus.refused_address, f"{address} is not a public address")
        to_proxy = self._proxy is not None and self._resolver.replaced(host) is None
        if to_proxy and not self._policy.allow_private_addresses and _LOCALHOST.fullmatch(host):
            raise FetchFailure(FetchStatus.refused_address, f"{host} is the proxy's own machine")

    async def _read(self, response: aiohttp.ClientResponse, may_stop_early: bool) -> ArrivingBody:
        """The body; given up as soon as it is known to be too large or no image."""
        limit = self._policy.max_image_bytes
        announced = response.content_length
        if announced is not None and announced > limit:
            raise FetchFailure(FetchStatus.too_large, f"Content-Length {announced} is over max_image_bytes {limit}")
        body = self._bodies.arriving()
        checked = not may_stop_early
        try:
            async for chunk in response.content.iter_any():
                await body.add(chunk)
                if body.size > limit:
                    raise FetchFailure(FetchStatus.too_large, f"body is over max_image_bytes {limit}")
                if not checked and body.size >= _SIGNATURE_BYTES:
                    checked = True
                    if not has_image_signature(body.head):
                        raise FetchFailure(FetchStatus.not_an_image, "not a JPEG, PNG, WebP or GIF file")
        except BaseException:
            body.release()
            raise
        return body


def _has_body(response: aiohttp.ClientResponse) -> bool:
    """Whether this is the end: any 2xx (RFC 9110 §15 reads them as 200) that has a body, and not a part of one."""
    status = response.status
    return 200 <= status < 300 and status not in _NO_CONTENT and (status != 206 or is_whole(response.headers))


def _next_url(url: URL, response: aiohttp.ClientResponse) -> URL:
    """Where a redirect leads. Raises FetchFailure for every other status."""
    status = response.status
    location = response.headers.get("Location")
    if status in _REDIRECTS and location:
        return redirect_target(location, url)
    reason = f"HTTP {status}"
    if status == 429:
        raise FetchFailure(FetchStatus.rate_limited, reason, True, retry_after(response.headers))
    if status >= 500:
        raise FetchFailure(FetchStatus.http_server_error, reason, True, retry_after(response.headers))
    if status == 206:
        raise FetchFailure(FetchStatus.http_client_error, "HTTP 206 with a part of the file")
    if status == 408:
        raise FetchFailure(FetchStatus.timeout, reason, transient=True)
    raise FetchFailure(FetchStatus.http_client_error, reason)


def _as_failure(error: Exception, redirected: bool) -> FetchFailure:
    failure = _failure_of(error)
    failure.redirected = redirected
    return failure


def _failure_of(error: Exception) -> FetchFailure:
    """aiohttp's exceptions as statuses; texts are our own so that they do not change from run to run."""
    match error:
        case aiohttp.InvalidURL():
            return FetchFailure(FetchStatus.invalid_url, "the HTTP client rejects this URL")
        case aiohttp.ClientHttpProxyError():
            message = _NO_LOGIN if error.status == 407 else f"the proxy answers HTTP {error.status}"
            return FetchFailure(FetchStatus.connect_error, message, transient=error.status >= 500)
        case aiohttp.ClientResponseError() if error.message == HEAD_TOO_LONG:
            return FetchFailure(FetchStatus.protocol_error, f"the answer's {HEAD_TOO_LONG}")
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
            if isinstance(error, aiohttp.ClientProxyConnectionError):
                reason = f"proxy: {reason}"
            return FetchFailure(FetchStatus.connect_error, reason, transient=True)
    return FetchFailure(FetchStatus.protocol_error, f"invalid HTTP answer ({type(error).__name__})")
