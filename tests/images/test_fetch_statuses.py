"""One URL of each kind against a real server on loopback: how the row ends, and that it ends in time."""

from __future__ import annotations

import gzip
import hashlib
import time
import zlib
from pathlib import Path

import brotli
import polars as pl
import pytest

from facecaption_ml.dataset.removals import RemovalList
from facecaption_ml.images import FetchStatus, fetch_raw_images
from hostile_site import Site, manifest, picture, png_bomb, reply
from local_fetch import fetch_one, local


def test_picture_is_kept_as_received(site: Site) -> None:
    row = fetch_one(f"{site.base}/image/5", local())
    assert row["image"] == {"bytes": picture(5), "path": "0000000000000000.jpg"}
    assert (row["status"], row["width"], row["height"], row["attempts"]) == ("ok", 40, 30, 1)
    head = next(head for head in site.requests if "/image/5" in head)
    assert "User-Agent: FaceCaption/" in head
    assert "Accept-Encoding: identity" in head


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/status/404", "http_client_error"),
        ("/status/410", "http_client_error"),
        ("/status/204", "http_client_error"),
        ("/status/302", "http_client_error"),  # a redirect to nowhere
        ("/status/429", "rate_limited"),
        ("/status/500", "http_server_error"),
        ("/status/503", "http_server_error"),
        ("/hang", "timeout"),
        ("/drip", "timeout"),
        ("/headers", "timeout"),
        ("/header-flood", "protocol_error"),
        ("/loop", "too_many_redirects"),
        ("/hop/3", "ok"),
        ("/hop/9", "too_many_redirects"),
        ("/drop", "connect_error"),
        ("/short", "truncated"),
        ("/flood", "too_large"),
        ("/gzip-bomb", "too_large"),
        ("/gzip", "ok"),
    ],
)
def test_status_by_answer(site: Site, path: str, status: str) -> None:
    start = time.monotonic()
    row = fetch_one(site.base + path, local(max_image_bytes=2_000_000))
    assert row["status"] == status, row["error"]
    assert time.monotonic() - start < 20  # the row's two seconds and what a busy machine adds, not an endless answer's
    assert site.bytes_sent < 20_000_000  # a flood is cut off, not read to its end


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"<html>gone</html>" * 9, "not_an_image"),
        (b"", "not_an_image"),
        (b"\xff\xd8\xff\xe0 and no more", "undecodable"),
        (picture(1)[:-30], "undecodable"),
        (picture(1, "PNG")[:-200], "undecodable"),
        (b"BM" + bytes(100), "not_an_image"),  # a format that is not accepted
    ],
    ids=["page", "empty", "header-only", "cut-jpeg", "cut-png", "bmp"],
)
def test_status_by_body(site: Site, body: bytes, status: str) -> None:
    site.replies["/body"] = reply(body=body)
    assert fetch_one(f"{site.base}/body", local(read_timeout_s=20.0, total_timeout_s=30.0))["status"] == status


def test_a_bomb_is_known_by_its_head(site: Site) -> None:
    site.replies["/bomb"] = reply(body=png_bomb(30_000))
    row = fetch_one(f"{site.base}/bomb", local(read_timeout_s=20.0, total_timeout_s=30.0))
    assert row["status"] == "too_many_pixels"


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "GIF"])
def test_accepted_formats(site: Site, format_name: str) -> None:
    site.replies["/x"] = reply(body=picture(2, format_name), Content_Type="text/plain")
    assert fetch_one(f"{site.base}/x", local())["status"] == "ok"


INVALID_URLS = [
    "nothing",
    "//host/x",
    "ftp://example.com/x",
    "javascript:alert(1)",
    "data:image/png;base64,AA",
    "http://",
    "http://:80/",
    "http://host:99999/",
    "http://host:0/",
    "http://[::1/",
    "http://999.1.1.1/",
    "http://1.2.3.4.5/",
    "http://0x1ffffffff/",
    "file:///etc/hostname",
    "s3://bucket/key",
]


@pytest.mark.parametrize(
    "url",
    [None, "", "   ", *INVALID_URLS, "http://a b/", "http://a\0b/", "http://example.com/" + "a" * 9000],
)
def test_invalid_urls_make_no_request(url: str | None) -> None:
    row = fetch_one(url, local())
    assert row["status"] == "invalid_url"


PRIVATE_HOSTS = [
    "127.0.0.1",
    "localhost",
    "LOCALHOST",
    "2130706433",
    "0x7f.1",
    "0177.0.0.1",
    "127.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "0.0.0.0",
    "10.1.2.3",
    "192.168.0.1",
    "172.16.9.9",
    "100.64.0.1",
    "169.254.169.254",
    "[fe80::1]",
    "[fd00::1]",
    "224.0.0.1",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "255.255.255.255",
]


@pytest.mark.parametrize("host", PRIVATE_HOSTS)
def test_addresses_that_are_not_public_are_refused(site: Site, host: str) -> None:
    row = fetch_one(f"http://{host}:{site.port}/image/1", local(allow_private_addresses=False))
    assert row["status"] == "refused_address"
    assert site.requests == []


def test_loopback_does_not_open_the_metadata_address() -> None:
    assert fetch_one("http://169.254.169.254/latest", local())["status"] == "refused_address"
    assert fetch_one("http://[::ffff:169.254.169.254]/latest", local())["status"] == "refused_address"


def test_connect_to_reaches_the_site_but_not_past_the_address_check(site: Site) -> None:
    there = {"*.sample.test": ("127.0.0.1", site.port)}
    url = "http://bücher.sample.test/image/4"
    assert fetch_one(url, local(connect_to=there))["status"] == "ok"
    assert "Host: xn--bcher-kva.sample.test" in site.requests[-1]
    refused = fetch_one(url, local(connect_to=there, allow_private_addresses=False))
    assert refused["status"] == "refused_address"


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("file:///etc/passwd", "invalid_url"),
        ("ftp://example.com/", "invalid_url"),
        ("http://169.254.169.254/latest/meta-data", "refused_address"),
        ("http://denied.sample.test/image/1", "denied"),
        ("http://[broken", "invalid_url"),
    ],
)
def test_each_redirect_is_checked(site: Site, target: str, status: str) -> None:
    site.replies["/go"] = reply("302 Found", Location=target)
    policy = local(
        connect_to={"*.sample.test": ("127.0.0.1", site.port)},
        denied=RemovalList(hosts=frozenset({"denied.sample.test"})),
    )
    assert fetch_one(f"{site.base}/go", policy)["status"] == status


def test_refused_connection_and_wrong_tls(site: Site) -> None:
    assert fetch_one("http://127.0.0.1:1/x.jpg", local())["status"] == "connect_error"
    assert fetch_one(f"https://127.0.0.1:{site.port}/x.jpg", local())["status"] == "tls_error"


def test_unknown_host() -> None:
    assert fetch_one("http://no-such-host.invalid/x.jpg", local())["status"] == "dns_error"


def test_transient_failures_are_tried_again_and_lasting_ones_are_not(site: Site) -> None:
    policy = local(retries=2, backoff_s=0.05)
    assert fetch_one(f"{site.base}/status/503", policy)["attempts"] == 3
    assert site.requested("/status/503") == 3
    assert fetch_one(f"{site.base}/status/404", policy)["attempts"] == 1


def test_retry_after_beyond_the_deadline_ends_the_row_at_once(site: Site) -> None:
    site.replies["/busy"] = reply("429 Too Many", Retry_After="3600")
    start = time.monotonic()
    row = fetch_one(f"{site.base}/busy", local(retries=3, total_timeout_s=30.0))
    assert (row["status"], row["attempts"]) == ("rate_limited", 1)
    assert time.monotonic() - start < 15  # not the 30 seconds that a row has


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("X_Robots_Tag", "noai", "opted_out"),
        ("X_Robots_Tag", "nofollow, NoImageAI", "opted_out"),
        ("X_Robots_Tag", "facecaption: noindex", "opted_out"),
        ("X_Robots_Tag", "otherbot: noai", "ok"),
        ("TDM_Reservation", "1", "opted_out"),
        ("TDM_Reservation", "0", "ok"),
    ],
)
def test_opt_out_headers(site: Site, header: str, value: str, status: str) -> None:
    site.replies["/x"] = reply(body=picture(1), **{header: value})
    assert fetch_one(f"{site.base}/x", local())["status"] == status
    assert fetch_one(f"{site.base}/x", local(respect_opt_out=False))["status"] == "ok"


def test_robots_txt_is_asked_once_and_obeyed(site: Site) -> None:
    site.replies["/robots.txt"] = reply(body=b"User-agent: *\nDisallow: /image/\nAllow: /image/1$\n")
    table = fetch_raw_images(manifest([f"{site.base}/image/{i}" for i in (0, 1, 2, 12)]), *local())
    assert table["status"].to_list() == ["opted_out", "ok", "opted_out", "opted_out"]
    assert site.requested("/robots.txt") == 1
    assert site.requested("/image/0") == 0


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_a_robots_txt_that_came_compressed_is_obeyed(site: Site, coding: str) -> None:
    rules = b"User-agent: *\nDisallow: /image/\n" + b"# nothing\n" * 2_000_000  # unpacked, 20 MB
    packed = {"gzip": gzip.compress, "deflate": zlib.compress, "br": lambda data: brotli.compress(data, quality=1)}
    site.replies["/robots.txt"] = reply(body=packed[coding](rules), Content_Encoding=coding)
    assert fetch_one(f"{site.base}/image/1", local())["status"] == "opted_out"


@pytest.mark.parametrize(
    ("code", "status"), [(403, "ok"), (404, "ok"), (500, "http_server_error"), (429, "rate_limited")]
)
def test_robots_txt_that_cannot_be_read(site: Site, code: int, status: str) -> None:
    site.replies["/robots.txt"] = reply(f"{code} Status")
    row = fetch_one(f"{site.base}/image/1", local())
    assert row["status"] == status
    assert status == "ok" or FetchStatus(status).may_pass


def test_folder_source_stays_in_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a b.jpg").write_bytes(picture(1))
    (tmp_path / "secret.jpg").write_bytes(picture(2))
    (folder / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    urls = [(folder / "a b.jpg").as_uri(), f"file://{folder}/../secret.jpg", (folder / "link.jpg").as_uri()]
    urls += [f"file://{folder}", f"file://{folder}/none.jpg", "file://elsewhere/x.jpg", "file:///dev/zero"]
    table = fetch_raw_images(manifest(urls), *local(allow_files_under=folder))
    # A link that the user's own folder has is followed; what a URL spells has to be in the folder.
    expected = ["ok", "refused_address", "ok", "missing_file", "missing_file", "invalid_url"]
    assert table["status"].to_list() == [*expected, "refused_address"]


def test_object_store_source() -> None:
    def open_object(url: str) -> bytes:
        if url == "s3://bucket/broken":
            raise PermissionError("no")
        return {"s3://bucket/a.jpg": picture(1), "s3://bucket/big": bytes(3_000_000)}[url]

    urls = [f"s3://bucket/{name}" for name in ("a.jpg", "none", "broken", "big")]
    table = fetch_raw_images(manifest(urls), *local(open_object=open_object, max_image_bytes=2_000_000))
    assert table["status"].to_list() == ["ok", "missing_file", "read_error", "too_large"]
    assert table["image"][0]["bytes"] == picture(1)


def test_deny_lists_come_before_requests(site: Site) -> None:
    urls = [f"{site.base}/image/{i}" for i in range(4)]
    policy = local(
        denied=RemovalList(
            urls=frozenset({urls[0]}),
            sample_ids=frozenset({f"{1:016x}"}),
            sha256=frozenset({hashlib.sha256(picture(2)).hexdigest().upper()}),
        )
    )
    table = fetch_raw_images(manifest(urls), *policy)
    assert table["status"].to_list() == ["denied", "denied", "denied", "ok"]
    assert table.filter(pl.col("status") == "denied")["image"].null_count() == 3
    assert site.requested("/image/0") == site.requested("/image/1") == 0
    hosts = fetch_raw_images(
        manifest(["http://a.bad.example/x", "http://notbad.example/x"]),
        *local(denied=RemovalList(hosts=frozenset({"bad.example"}))),
    )
    assert hosts["status"].to_list() == ["denied", "dns_error"]
