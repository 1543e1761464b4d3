"""Which addresses count as public, against the standard library's properties."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecaption_ml.images.addresses import (
    checked_socket,
    embedded_ipv4,
    is_allowed,
    is_public,
    literal_address,
)

SPECIAL = [
    "10.0.0.0/8",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "100.64.0.0/10",
    "224.0.0.0/4",
    "fe80::/10",
    "fc00::/7",
    "ff00::/8",
]


@given(st.ip_addresses())
def test_public_addresses_have_no_special_property(address: IPv4Address | IPv6Address) -> None:
    special = (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address.is_reserved
    )
    if embedded_ipv4(address) is None and special:
        assert not is_public(address)
    if isinstance(address, IPv4Address) and address.is_global and not special and address not in IPV4_RELAYS:
        assert is_public(address)


IPV4_RELAYS = [IPv4Address("192.88.99.0") + offset for offset in range(256)]


@pytest.mark.parametrize("network", SPECIAL)
@given(data=st.data())
def test_special_networks_are_not_public(network: str, data: st.DataObject) -> None:
    assert not is_public(data.draw(st.ip_addresses(network=network)))


@given(st.ip_addresses(v=4))
def test_an_embedded_address_counts_as_itself(inner: IPv4Address) -> None:
    value = int(inner)
    for outer in (0xFFFF << 32 | value, 0x0064_FF9B << 96 | value, 0x2002 << 112 | value << 80):
        address = IPv6Address(outer)
        assert embedded_ipv4(address) == inner
        assert is_public(address) == is_public(inner)
        assert is_allowed(address, True) == is_allowed(inner, True)


@given(st.ip_addresses(), st.booleans())
def test_allowing_private_addresses_only_ever_adds(address: IPv4Address | IPv6Address, private: bool) -> None:
    assert not is_public(address) or is_allowed(address, private)
    if not private:
        assert is_allowed(address, private) == is_public(address)


@pytest.mark.parametrize(
    "text", ["169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255"]
)
def test_never_allowed(text: str) -> None:
    assert not is_allowed(ip_address(text), True)


@pytest.mark.parametrize("text", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "64:ff9b::808:808"])
def test_public(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize(
    "text", ["2001:db8::1", "2001::1", "3fff::1", "64:ff9b:1::1", "::8.8.8.8", "4000::1", "fec0::1"]
)
def test_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


@given(st.ip_addresses(v=4))
def test_numeric_hosts_are_read_as_the_c_library_reads_them(address: IPv4Address) -> None:
    for host in (str(int(address)), hex(int(address)), str(address), f"{address!s}."):
        assert literal_address(host) == address


@pytest.mark.parametrize("host", ["example.com", "1.example", "a1", "0xg.com", "0xx", "a.0xg", "xn--bcher-kva.de"])
def test_names_are_not_addresses(host: str) -> None:
    assert literal_address(host) is None


def test_no_socket_for_a_private_address() -> None:
    with pytest.raises(OSError, match=r"127\.0\.0\.1 is not a public address"):
        checked_socket(False, (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80)))
    checked_socket(True, (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80))).close()
