"""A whole shard: no row lost, order and bytes independent of timing, reruns that fetch only what may pass."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Iterator

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from examples import examples
from facecaption_ml.dataset.removals import RemovalList
from facecaption_ml.images import (
    DownloadContext,
    DownloadPolicy,
    FetchStatus,
    count_by_status,
    fetch_raw_images,
    iter_fetched,
    success_rate,
)
from facecaption_ml.images.policy import AGENT_TOKEN, PILLOW_MAX_PIXELS
from facecaption_ml.schemas import SCHEMAS
from hostile_site import Site, manifest, picture, reply, running_site


def local(**settings: object) -> tuple[DownloadPolicy, DownloadContext]:
    defaults: dict = {"allow_private_addresses": True, "retries": 0, "read_timeout_s": 0.4, "total_timeout_s": 0.6}
    own = {name: settings.pop(name) for name in list(settings) if name in DownloadContext.__dataclass_fields__}
    return DownloadPolicy(**(defaults | settings)), DownloadContext(**own)


@pytest.fixture(scope="module")
def shared_site() -> Iterator[Site]:
    with running_site() as site:
        yield site


PATHS = ["/image/1", "/image/2", "/image/3", "/status/404", "/status/500", "/hop/2", "/drop", "/short", "/loop", "none"]


@examples(25)
@given(
    rows=st.lists(st.tuples(st.sampled_from(PATHS), st.booleans()), max_size=40),
    connections=st.integers(1, 20),
    per_host=st.integers(1, 5),
    chunk=st.integers(1, 9),
)
def test_rows_out_are_rows_in(
    shared_site: Site, rows: list[tuple[str, bool]], connections: int, per_host: int, chunk: int
) -> None:
    urls = [shared_site.base + path if path.startswith("/") else path for path, _ in rows]
    source = manifest(urls, [repeated for _, repeated in rows])
    policy = local(connections=connections, connections_per_host=per_host, total_timeout_s=5.0)
    chunks = list(iter_fetched(source, *policy, chunk_rows=chunk))
    assert all(0 < table.height <= chunk for table in chunks)
    table = pl.concat([pl.DataFrame(schema=dict(SCHEMAS["raw_images"])), *chunks])
    assert table.select("sample_id", "url", "alt_text").equals(source.select("sample_id", "url", "alt_text"))
    assert sum(count_by_status(table).values()) == source.height
    again = fetch_raw_images(source, *local(connections=7, total_timeout_s=5.0))
    assert again.drop("fetched_at").equals(table.drop("fetched_at"))


def test_first_of_equal_images_keeps_its_bytes_whatever_finishes_first(site: Site) -> None:
    site.replies["/copy"] = reply(body=picture(1))  # answered at once, image/1 later
    table = fetch_raw_images(manifest([f"{site.base}{path}" for path in ("/image/1", "/copy", "/copy?2")]), *local())
    assert table["status"].to_list() == ["ok", "duplicate_image", "http_client_error"]
    assert table["sha256"][0] == table["sha256"][1] == hashlib.sha256(picture(1)).hexdigest()
    assert table["image"].is_null().to_list() == [False, True, True]


def test_running_again_and_again_keeps_the_picture_of_a_repeated_url(site: Site) -> None:
    url = f"{site.base}/image/1"
    source = manifest([url, url], [False, True])
    table = fetch_raw_images(source, *local())
    assert table["status"].to_list() == ["ok", "duplicate_url"]
    for _ in range(3):
        again = fetch_raw_images(source, *local(), previous=table)
        assert again.equals(table)
        table = again
    assert site.requested("/image/1") == 1


def test_second_run_fetches_only_what_may_pass(site: Site) -> None:
    paths = ["/image/1", "/status/503", "/status/404", "/short", "/image/2", "/body"]
    site.replies["/body"] = reply(body=b"no picture at all")
    source = manifest([site.base + path for path in paths])
    first = fetch_raw_images(source, *local())
    site.requests.clear()
    site.replies["/status/503"] = reply(body=picture(8))
    second = fetch_raw_images(source, *local(), previous=first)
    assert {head.split(" ", 2)[1] for head in site.requests} == {"/robots.txt", "/status/503", "/short"}
    assert second["status"].to_list() == ["ok", "ok", "http_client_error", "truncated", "ok", "not_an_image"]
    assert second["attempts"].to_list() == [1, 2, 1, 2, 1, 1]
    untouched = ~pl.col("url").str.ends_with("503") & ~pl.col("url").str.ends_with("short")
    assert second.filter(untouched).equals(first.filter(untouched))


def test_deny_lists_reach_rows_of_an_earlier_run(site: Site) -> None:
    site.replies["/copy"] = reply(body=picture(2))
    urls = [f"{site.base}{path}" for path in ("/image/1", "/image/2", "/copy", "/image/3")]
    first = fetch_raw_images(manifest(urls), *local())
    assert first["status"].to_list() == ["ok", "ok", "duplicate_image", "ok"]
    site.requests.clear()
    by_hash = local(
        denied=RemovalList(sha256=frozenset({hashlib.sha256(picture(1)).hexdigest()}), urls=frozenset({urls[3]}))
    )
    second = fetch_raw_images(manifest(urls), *by_hash, previous=first)
    assert second["status"].to_list() == ["denied", "ok", "duplicate_image", "denied"]
    assert second["image"].is_null().to_list() == [True, False, True, True]
    assert site.requests == []
    # The first of two equal pictures is denied by its URL: the second is fetched again to stand for itself.
    third = fetch_raw_images(manifest(urls), *local(denied=RemovalList(urls=frozenset({urls[1]}))), previous=first)
    assert third["status"].to_list() == ["ok", "denied", "ok", "ok"]
    assert third["image"][2]["bytes"] == picture(2)


def test_what_was_fetched_before_loses_its_picture_whichever_way_it_is_denied(site: Site) -> None:
    hosts = {"*.test": ("127.0.0.1", site.port)}
    urls = ["http://A.bad.test/image/1", "http://good.test:80/image/2#top", "http://good.test/image/3", "removed"]
    first = fetch_raw_images(manifest(urls), *local(connect_to=hosts))
    assert first["status"].to_list() == ["ok", "ok", "ok", "denied"]
    site.requests.clear()
    denied = RemovalList(hosts=frozenset({"bad.test"}), urls=frozenset({" http://GOOD.test/image/2"}))
    second = fetch_raw_images(manifest(urls), *local(denied=denied, connect_to=hosts), previous=first)
    assert second["status"].to_list() == ["denied", "denied", "ok", "denied"]
    assert second["image"].is_null().to_list() == [True, True, False, True]
    assert second["url"].to_list() == urls
    assert second["image"][2]["bytes"] == picture(3)
    assert site.requests == []


def test_connections_per_host_are_bounded(site: Site) -> None:
    fetch_raw_images(manifest([f"{site.base}/image/{i}" for i in range(60)]), *local(connections_per_host=3))
    assert site.most_open <= 3


def test_one_slow_host_does_not_hold_up_the_others(site: Site) -> None:
    hosts = {"*.test": ("127.0.0.1", site.port)}
    urls = ["http://slow.test/hang"] * 8 + [f"http://host{i % 9}.test/image/{i}" for i in range(90)]
    table = fetch_raw_images(manifest(urls), *local(connections=12, connect_to=hosts, connections_per_host=2))
    assert count_by_status(table) == {"ok": 90, "timeout": 8}
    assert site.requests[-1].startswith(
        "GET /hang "
    )  # the good ones were all asked for while the slow host was waited for


def test_works_inside_a_running_event_loop(site: Site) -> None:
    async def inside() -> pl.DataFrame:
        return fetch_raw_images(manifest([f"{site.base}/image/1"]), *local())

    assert asyncio.run(inside())["status"].to_list() == ["ok"]


def test_leaving_the_iterator_stops_the_download(site: Site) -> None:
    urls = [f"{site.base}/image/1", *[f"{site.base}/hang"] * 5]
    tables = iter_fetched(manifest(urls), *local(read_timeout_s=50.0, total_timeout_s=50.0), chunk_rows=1)
    assert next(tables)["status"].to_list() == ["ok"]
    start = time.monotonic()
    tables.close()
    assert time.monotonic() - start < 25  # not the 50 seconds that the open downloads may take
    assert not [thread for thread in threading.enumerate() if thread.name == "download"]


def test_progress_is_told_in_the_calling_thread(site: Site) -> None:
    seen: list[tuple[int, int, str]] = []
    source = manifest([f"{site.base}/image/{i}" for i in range(5)])
    fetch_raw_images(
        source, *local(), on_progress=lambda done, total: seen.append((done, total, threading.current_thread().name))
    )
    assert seen[-1][:2] == (5, 5)
    assert {name for *_, name in seen} == {threading.current_thread().name}


def test_success_rate_leaves_out_what_was_not_to_be_fetched() -> None:
    def rate(*statuses: str) -> float:
        return success_rate(pl.DataFrame({"status": statuses}, schema={"status": pl.String}))

    assert rate() == rate("denied", "duplicate_url", "opted_out") == 1.0
    assert rate("ok", "duplicate_image", "denied", "timeout", "http_client_error") == 0.5


def test_what_may_pass() -> None:
    passing = {status.value for status in FetchStatus if status.may_pass}
    assert {"dns_error", "timeout", "http_server_error", "rate_limited", "connect_error"} <= passing
    assert not {"ok", "http_client_error", "opted_out", "denied", "too_large", "not_an_image"} & passing


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("connections", 0),
        ("read_timeout_s", 0.0),
        ("total_timeout_s", float("nan")),
        ("retries", -1),
        ("max_image_pixels", 10**12),
        ("user_agent_contact", "a\nb"),
    ],
)
def test_policy_names_the_wrong_setting(setting: str, value: object) -> None:
    with pytest.raises(ValidationError, match=rf"\n{setting}\n"):
        DownloadPolicy(**{setting: value})


@pytest.mark.parametrize(("address", "port"), [("host", 80), ("127.0.0.1", 0)])
def test_a_context_leads_to_addresses_and_ports(address: str, port: int) -> None:
    with pytest.raises(ValueError, match=r"host|port 0"):
        DownloadContext(connect_to={"*.x": (address, port)})


def test_the_user_agent_names_whoever_runs_the_download() -> None:
    assert DownloadPolicy().user_agent.lower().startswith(f"{AGENT_TOKEN}/")
    assert DownloadPolicy(user_agent_contact="https://a.test/why").user_agent.endswith(" +https://a.test/why")


def test_no_more_pixels_are_allowed_than_pillow_takes() -> None:
    assert PILLOW_MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS
