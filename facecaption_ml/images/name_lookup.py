"""Name lookups that take no thread: any number wait at once, so silent name servers cost only the rows that need them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import aiodns

from facecaption_ml.images.status import FetchFailure, FetchStatus

_CACHED_HOSTS: Final = 20_000
_CACHE_SECONDS: Final = 300.0
# c-ares derives a query's time from how fast the server usually answers (250 ms at least, doubled each time), and takes an
# answer to any of its queries as long as one is out: 7.75 s in all, so that slow names have all of the time that is given.
_QUERIES: Final = 5
_QUERY_SECONDS: Final = 2.0
_PUBLIC_IPV6: Final = ("2001:4860:4860::8888", 53)
_NO_SUCH_NAME: Final = frozenset({aiodns.error.ARES_ENOTFOUND, aiodns.error.ARES_ENODATA, aiodns.error.ARES_EBADNAME})
_WORDS: Final = {
    aiodns.error.ARES_ENOTFOUND: "no such name",
    aiodns.error.ARES_ENODATA: "the name has no address",
    aiodns.error.ARES_EBADNAME: "no valid name",
    aiodns.error.ARES_ETIMEOUT: "the name servers do not answer",
    aiodns.error.ARES_ECONNREFUSED: "no name server can be reached",
    aiodns.error.ARES_ESERVFAIL: "the name server failed",
    aiodns.error.ARES_EREFUSED: "the name server refuses to answer",
}


@dataclass
class _Host:
    """What is known of one name: the lookup that runs or ended, how many were begun, and the failure that stays."""

    expires: float
    lookup: asyncio.Task[list[str] | FetchFailure] | None = None
    begun: int = 0
    failure: FetchFailure | None = None


class NameLookup:
    """Addresses of names by ``/etc/hosts`` and DNS, cached for five minutes, as getaddrinfo would find them (c-ares).

    ``nameservers``: ``address`` or ``address:port``, in place of those of ``/etc/resolv.conf``. Failures that may
    pass (silence, a server's fault) are looked up again when asked again, ``tries`` times in all; then
    the name has failed for every row. ``hint`` ends the text of each failure.
    """

    def __init__(
        self, nameservers: Sequence[str], timeout_s: float, tries: int, backoff_s: float, hint: str = ""
    ) -> None:
        self._nameservers = tuple(nameservers)
        self._timeout_s, self._tries, self._backoff_s, self._hint = timeout_s, tries, backoff_s, hint
        self._hosts: OrderedDict[str, _Host] = OrderedDict()
        self._resolver: aiodns.DNSResolver | None = None
        self._family = socket.AF_UNSPEC if _has_ipv6() else socket.AF_INET

    async def addresses(self, host: str) -> list[str]:
        """The name's addresses, none of them checked. Raises FetchFailure dns_error, transient if it is worth asking again."""
        known = self._known(host)
        if known.failure is not None:
            raise self._as_raised(known.failure)
        if known.lookup is None:
            known.lookup = asyncio.get_running_loop().create_task(self._look_up(host))
            known.begun += 1
        lookup = known.lookup
        try:
            answer = (
                lookup.result() if lookup.done() else await asyncio.wait_for(asyncio.shield(lookup), self._timeout_s)
            )
        except TimeoutError:
            message = f"no answer to the lookup of {host} within {self._timeout_s:g} s"
            answer = FetchFailure(FetchStatus.dns_error, message, transient=True)
        if not isinstance(answer, FetchFailure):
            return answer
        if known.lookup is lookup:  # the first of the rows that wait for it
            known.lookup = None
            if not answer.transient or known.begun >= self._tries:
                times = f", {known.begun} times" if known.begun > 1 else ""
                known.failure = FetchFailure(answer.status, f"{answer.message}{times}")
        raise self._as_raised(known.failure or answer)

    async def settle(self, host: str) -> None:
        """Looks the name up, again where that may help, so that ``addresses`` then answers at once, whatever it says."""
        for retry in range(self._tries):
            try:
                await self.addresses(host)
            except FetchFailure as failure:
                if failure.transient:
                    await asyncio.sleep(self._backoff_s * 2**retry)
                    continue
            return

    def _known(self, host: str) -> _Host:
        now = time.monotonic()
        known = self._hosts.get(host)
        if known is None or known.expires < now:
            known = self._hosts[host] = _Host(now + _CACHE_SECONDS)
            while len(self._hosts) > _CACHED_HOSTS:
                self._hosts.popitem(last=False)
        return known

    async def _look_up(self, host: str) -> list[str] | FetchFailure:
        """A failure is returned, as several rows may wait for it and none may."""
        try:
            if self._resolver is None:
                self._resolver = aiodns.DNSResolver(self._nameservers, timeout=_QUERY_SECONDS, tries=_QUERIES)
            answer = await self._resolver.getaddrinfo(host, family=self._family, type=socket.SOCK_STREAM)
        except aiodns.error.DNSError as error:
            code = error.args[0] if error.args else None
            reason = _WORDS.get(code, "the lookup failed")
            return FetchFailure(FetchStatus.dns_error, f"{host}: {reason}", transient=code not in _NO_SUCH_NAME)
        except (ValueError, UnicodeError):
            return FetchFailure(FetchStatus.dns_error, f"{host}: no valid name")
        except Exception as error:  # as where /etc/resolv.conf cannot be read
            return FetchFailure(FetchStatus.dns_error, f"{host}: the resolver failed: {error}", transient=True)
        addresses = dict.fromkeys(str(node.addr[0], "ascii") for node in answer.nodes)
        return list(addresses) or FetchFailure(FetchStatus.dns_error, f"{host}: the name has no address")

    def _as_raised(self, failure: FetchFailure) -> FetchFailure:
        """Its own exception for each row, as tracebacks grow on a shared one."""
        return FetchFailure(failure.status, failure.message + self._hint, failure.transient)

    async def close(self) -> None:
        if self._resolver is not None:
            await self._resolver.close()


def _has_ipv6() -> bool:
    """Whether this machine has a way to the IPv6 internet; nothing is sent. Without one, AAAA queries are for nothing."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.connect(_PUBLIC_IPV6)
        return True
    return False
