"""Which addresses may be connected to, and name lookups that return no others.

The check stands in the resolver that the HTTP client itself uses, so the address that was checked is the one connected
to, however a name's records change between two lookups (DNS rebinding).
"""

from __future__ import annotations

import re
import socket
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, Final

from aiohttp.abc import AbstractResolver, ResolveResult

from facecaption_ml.images.status import FetchFailure, FetchStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from facecaption_ml.images.name_lookup import NameLookup

Address = IPv4Address | IPv6Address

_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_NAT64: Final = ip_network("64:ff9b::/96")  # RFC 6052, the last 32 bits are an IPv4 address
_GLOBAL_UNICAST: Final = ip_network("2000::/3")  # RFC 4291 §2.4, all that IANA hands out so far
# Not for the public, yet called global by some Python versions' ipaddress.
_ALSO_SPECIAL: Final = (
    ip_network("192.88.99.0/24"),  # 6to4 relay anycast, withdrawn by RFC 7526
    ip_network("3fff::/20"),  # documentation, RFC 9637
    ip_network("2001::/23"),  # IETF protocol assignments, Teredo among them
)


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
    if not _NUMBER.fullmatch(last):
        return None
    try:
        return IPv4Address(socket.inet_aton(host.rstrip(".")))
    except (OSError, UnicodeError):
        raise ValueError(f"{host!r} is not an IPv4 address") from None


class CheckedResolver(AbstractResolver):
    """Answers aiohttp's lookups, only with addresses that may be connected to.

    ``connect_to`` maps host patterns (``*.sample.test``) to the address and port to use instead of DNS; the check
    applies to them as well, but not to ``proxy_host``, which the user named. Raises FetchFailure: dns_error or refused_address.
    """

    def __init__(
        self,
        names: NameLookup,
        allow_private: bool,
        connect_to: Mapping[str, tuple[str, int]],
        proxy_host: str | None = None,
    ) -> None:
        self._names = names
        self._allow_private = allow_private
        self._connect_to = connect_to
        self._proxy_host = proxy_host
        self._proxy_addresses = set() if proxy_host is None else {proxy_host}

    def replaced(self, host: str) -> tuple[str, int] | None:
        """The address and port that stand for the host in ``connect_to``."""
        targets = (to for pattern, to in self._connect_to.items() if fnmatchcase(host.lower(), pattern.lower()))
        return next(targets, None)

    async def settle(self, host: str) -> None:
        """Ends the host's lookup beforehand, whatever it says."""
        if self._proxy_host is None and self.replaced(host) is None and literal_address(host) is None:
            await self._names.settle(host)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        if host == self._proxy_host:
            try:
                addresses = await self._names.addresses(host)
            except FetchFailure as failure:
                raise FetchFailure(failure.status, f"proxy: {failure.message}", failure.transient) from None
            self._proxy_addresses.update(addresses)
            return [_result(host, text, port) for text in addresses]
        if replaced := self.replaced(host):
            addresses, port = [replaced[0]], replaced[1]
        else:
            addresses = await self._names.addresses(host)
        allowed = [text for text in addresses if is_allowed(ip_address(text), self._allow_private)]
        if not allowed:
            raise FetchFailure(
                FetchStatus.refused_address, f"{host} is at {addresses[0]}, which is not a public address"
            )
        return [_result(host, text, port) for text in allowed]

    def open_socket(self, address_info: tuple) -> socket.socket:
        """As checked_socket; with a proxy, nothing but it and ``connect_to`` is connected to."""
        if address_info[4][0] in self._proxy_addresses:
            return checked_socket(None, address_info)
        return checked_socket(self._allow_private, address_info)

    async def close(self) -> None:
        await self._names.close()


def checked_socket(allow_private: bool | None, address_info: tuple) -> socket.socket:
    """A socket for one ``getaddrinfo`` entry, made only after its address passes: the last gate before connecting.

    ``allow_private`` None: any address, for the proxy that the user named.
    """
    family, kind, protocol, _, sockaddr = address_info
    if allow_private is not None and not is_allowed(ip_address(sockaddr[0]), allow_private):
        raise OSError(f"{sockaddr[0]} is not a public address")
    return socket.socket(family, kind, protocol)


def _result(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=flags)
