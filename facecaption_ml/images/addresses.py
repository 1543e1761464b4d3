"""Which addresses may be connected to, and name lookups that return no others.

The check stands in the resolver that the HTTP client itself uses, so the address that was checked is the one connected
to, however a name's records change between two lookups (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final

from aiohttp.abc import AbstractResolver, ResolveResult

from facecaption_ml.images.status import FetchFailure, FetchStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

Address = IPv4Address | IPv6Address

_NAT64: Final = ip_network("64:ff9b::/96")  # RFC 6052, the last 32 bits are an IPv4 address
_GLOBAL_UNICAST: Final = ip_network("2000::/3")  # RFC 4291 §2.4, all that IANA hands out so far
# Not for the public, yet called global by some Python versions' ipaddress.
_ALSO_SPECIAL: Final = (
    ip_network("192.88.99.0/24"),  # 6to4 relay anycast, withdrawn by RFC 7526
    ip_network("3fff::/20"),  # documentation, RFC 9637
    ip_network("2001::/23"),  # IETF protocol assignments, Teredo among them
)

_LOOKUPS_IN_FLIGHT: Final = 32
_CACHED_HOSTS: Final = 20_000
_CACHE_SECONDS: Final = 300.0  # getaddrinfo tells no time to live


def embedded_ipv4(address: Address) -> IPv4Address | None:
    """The IPv4 address that a packet to an IPv4-mapped, 6to4 or NAT64 address ends up at, None for other addresses."""
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def is_public(address: Address) -> bool:
    """Whether ``address`` is a unicast address of the public internet (IANA special-purpose registries excluded)."""
    inner = embedded_ipv4(address)
    if inner is not None:
        return is_public(inner)
    if address.is_multicast or address.is_reserved or any(address in block for block in _ALSO_SPECIAL):
        return False
    if isinstance(address, IPv6Address) and (address not in _GLOBAL_UNICAST or address.scope_id is not None):
        return False
    return address.is_global


def is_allowed(address: Address, allow_private: bool) -> bool:
    """Whether to connect. ``allow_private`` adds loopback and private networks, never link-local (cloud metadata)."""
    inner = embedded_ipv4(address) or address
    if is_public(address):
        return True
    if not allow_private or inner.is_link_local or inner.is_multicast or inner.is_unspecified:
        return False
    return inner.is_loopback or (inner.is_private and not inner.is_reserved)


def literal_address(host: str) -> Address | None:
    """The address that ``host`` spells, None if it is a name.

    Decimal, octal, hexadecimal and short forms (``2130706433``, ``0x7f.1``) are read as the WHATWG URL standard
    ("ends in a number") and the C library read them. Raises ValueError for a number that is no address.
    """
    try:
        return ip_address(host)
    except ValueError:
        pass
    last = host.rstrip(".").rpartition(".")[2].lower()
    if not (last.isascii() and last.isdigit()) and not last.startswith("0x"):
        return None
    try:
        return IPv4Address(socket.inet_aton(host.rstrip(".")))
    except (OSError, UnicodeError):
        raise ValueError(f"{host!r} is not an IPv4 address") from None


class CheckedResolver(AbstractResolver):
    """Looks names up in a few threads, caches the answers and returns only addresses that may be connected to.

    ``connect_to`` maps host patterns (``*.sample.test``) to the address and port to use instead of DNS; the check
    applies to them as well. Raises FetchFailure: dns_error, timeout or refused_address.
    """

    def __init__(self, allow_private: bool, connect_to: Mapping[str, tuple[str, int]], timeout_s: float) -> None:
        self._allow_private = allow_private
        self._connect_to = connect_to
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(_LOOKUPS_IN_FLIGHT, thread_name_prefix="dns")
        self._lookups: OrderedDict[str, tuple[float, asyncio.Task[list[str] | FetchFailure]]] = OrderedDict()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        targets = (to for pattern, to in self._connect_to.items() if fnmatchcase(host.lower(), pattern.lower()))
        if replaced := next(targets, None):
            addresses, port = [replaced[0]], replaced[1]
        else:
            addresses = await self._cached_lookup(host)
        allowed = [text for text in addresses if is_allowed(ip_address(text), self._allow_private)]
        if not allowed:
            raise FetchFailure(
                FetchStatus.refused_address, f"{host} is at {addresses[0]}, which is not a public address"
            )
        return [_result(host, text, port) for text in allowed]

    async def _cached_lookup(self, host: str) -> list[str]:
        now = time.monotonic()
        expires, lookup = self._lookups.get(host, (0.0, None))
        if lookup is None or expires < now:
            lookup = asyncio.get_running_loop().create_task(self._lookup(host))
            self._lookups[host] = (now + _CACHE_SECONDS, lookup)
            while len(self._lookups) > _CACHED_HOSTS:
                self._lookups.popitem(last=False)
        try:
            answer = await asyncio.wait_for(asyncio.shield(lookup), self._timeout_s)
        except TimeoutError:
            message = f"no answer to the lookup of {host} within {self._timeout_s:g} s"
            raise FetchFailure(FetchStatus.dns_error, message) from None
        if isinstance(answer, FetchFailure):
            if answer.transient:
                self._lookups.pop(host, None)
            raise answer
        return answer

    async def _lookup(self, host: str) -> list[str] | FetchFailure:
        """The host's addresses; a failure is returned, as several rows may wait for it and none may."""
        loop = asyncio.get_running_loop()
        try:
            answers = await loop.run_in_executor(
                self._threads,
                lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG),
            )
        except socket.gaierror as error:
            again = error.errno == socket.EAI_AGAIN
            return FetchFailure(FetchStatus.dns_error, f"{host}: {error.strerror}", transient=again)
        except (OSError, UnicodeError) as error:
            return FetchFailure(FetchStatus.dns_error, f"{host}: {error}")
        return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in answers))

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def checked_socket(allow_private: bool, address_info: tuple) -> socket.socket:
    """A socket for one ``getaddrinfo`` entry, made only after its address passes: the last gate before connecting."""
    family, kind, protocol, _, sockaddr = address_info
    if not is_allowed(ip_address(sockaddr[0]), allow_private):
        raise OSError(f"{sockaddr[0]} is not a public address")
    return socket.socket(family, kind, protocol)


def _result(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=flags)
