"""Lookups against a real name server that is silent, fails or changes its mind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from facecaption_ml.images import DownloadPolicy, fetch_raw_images
from facecaption_ml.images.addresses import CheckedResolver
from facecaption_ml.images.name_lookup import NameLookup
from facecaption_ml.images.status import FetchFailure
from hostile_site import Site, manifest
from local_fetch import fetch_one, local
from name_server import NameServer, name_server


@pytest.fixture
def names() -> Iterator[NameServer]:
    with name_server() as server:
        yield server


def resolve(names: NameServer, host: str, times: int = 1) -> list[str]:
    async def run() -> list[str]:
        resolver = CheckedResolver(NameLookup([names.address], 1.0, 1, 0.0), False, {})
        try:
            for _ in range(times):
                found = [answer["host"] for answer in await resolver.resolve(host, 80)]
                names.addresses[host] = ["127.0.0.1"]  # from now on
            return found
        finally:
            await resolver.close()

    return asyncio.run(run())


def test_a_name_with_mixed_addresses_keeps_the_public_ones(names: NameServer) -> None:
    names.addresses["mixed.example"] = ["10.0.0.1", "8.8.8.8"]
    assert resolve(names, "mixed.example") == ["8.8.8.8"]


@pytest.mark.parametrize("addresses", [["10.0.0.1", "169.254.169.254"], ["127.0.0.1"], ["0.0.0.0"], ["100.64.0.1"]])
def test_a_name_with_only_private_addresses_is_refused(names: NameServer, addresses: list[str]) -> None:
    names.addresses["inside.example"] = addresses
    with pytest.raises(FetchFailure, match="is not a public address") as caught:
        resolve(names, "inside.example")
    assert caught.value.status == "refused_address"


def test_rebinding_has_no_second_lookup_to_change(names: NameServer) -> None:
    names.addresses["rebind.example"] = ["8.8.8.8"]  # with a time to live of 0
    assert resolve(names, "rebind.example", times=3) == ["8.8.8.8"]
    assert set(names.asked) == {"rebind.example"}
    assert len(names.asked) <= 2  # A, and AAAA where there is IPv6


def test_names_of_this_machine_need_no_server(names: NameServer, site: Site) -> None:
    row = fetch_one(f"http://localhost:{site.port}/image/1", local(nameservers=(names.address,)))
    assert (row["status"], names.asked) == ("ok", [])


@pytest.mark.slow
def test_silent_hosts_cost_no_good_row_and_little_time(names: NameServer, site: Site) -> None:
    urls = [f"http://{'silent' if i % 2 else 'good'}{i}.example:{site.port}/image/{i}" for i in range(600)]
    policy = local(nameservers=(names.address,), retries=1, backoff_s=0.1, total_timeout_s=100.0, connections=4)
    start = time.monotonic()
    table = fetch_raw_images(manifest(urls), *policy)
    wall = time.monotonic() - start
    assert table["status"].to_list() == ["ok", "dns_error"] * 300
    assert (
        wall < 75
    )  # two lookups of a second each, side by side; one after the other over 4 connections they take 150 s
    assert "no answer to the lookup of silent1.example within 1 s, 2 times" in table["error"][1]


def test_silence_is_asked_again_in_the_run_and_by_the_next_one(names: NameServer, site: Site) -> None:
    source = manifest([f"http://silent.example:{site.port}/image/1"])
    policy = local(nameservers=(names.address,), connect_timeout_s=0.2)
    first = fetch_raw_images(source, *policy)
    assert first["status"].to_list() == ["dns_error"]
    names.awake = True
    assert fetch_raw_images(source, *policy, previous=first)["status"].to_list() == ["ok"]


@pytest.mark.parametrize(("host", "lookups"), [("servfail.example", 3), ("refused.example", 3), ("missing.example", 1)])
def test_failures_that_may_pass_are_looked_up_again(names: NameServer, host: str, lookups: int) -> None:
    async def run() -> tuple[int, str]:
        lookup = NameLookup([names.address], 1.0, 3, 0.01)
        begun = 0
        while True:
            names.asked.clear()
            with pytest.raises(FetchFailure) as caught:
                await lookup.addresses(host)
            begun += bool(names.asked)
            if not caught.value.transient:
                break
        with pytest.raises(FetchFailure):
            await lookup.addresses(host)  # known by now
        await lookup.close()
        return begun, caught.value.message

    begun, message = asyncio.run(run())
    assert begun == lookups
    assert host in message


def test_one_failing_host_is_looked_up_no_more_often_for_many_rows(names: NameServer) -> None:
    urls = [f"http://silent.example/{i}.jpg" for i in range(100)]
    start = time.monotonic()
    table = fetch_raw_images(
        manifest(urls), *local(nameservers=(names.address,), connect_timeout_s=0.2, retries=1, backoff_s=0.0)
    )
    assert set(table["status"]) == {"dns_error"}
    assert time.monotonic() - start < 25  # not 100 times two lookups, which take 40


@pytest.mark.parametrize("text", ["127.0.0.1:53", "::1", "[::1]:5353", "10.0.0.2, 10.0.0.3:54", ""])
def test_name_servers_are_set_by_address(text: str) -> None:
    assert DownloadPolicy(nameservers=text).nameservers == tuple(part.strip() for part in text.split(",") if part)


@pytest.mark.parametrize("text", ["dns.example", "127.0.0.1:0", "127.0.0.1:99999", "1.2.3", "[::1", "127.0.0.1:x"])
def test_name_servers_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="is no address"):
        DownloadPolicy(nameservers=text)


def test_a_name_that_leads_inside_is_not_connected_to(names: NameServer, site: Site) -> None:
    policy = local(nameservers=(names.address,), allow_private_addresses=False)
    names.addresses["mapped.example"] = ["0.0.0.0", "10.0.0.1", "127.0.0.1"]
    for host in ("inside.example", "mapped.example", "localhost", "sub.localhost"):
        row = fetch_one(f"http://{host}:{site.port}/image/1", policy)
        assert row["status"] == "refused_address", row["error"]
    assert site.requests == []


def test_a_resolver_that_cannot_start_fails_rows_only(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("cannot read /etc/resolv.conf")

    monkeypatch.setattr("aiodns.DNSResolver", broken)
    table = fetch_raw_images(manifest(["http://a.example/x.jpg", f"{site.base}/image/1"]), *local())
    assert table["status"].to_list() == ["dns_error", "ok"]
