"""Answers that curl and browsers take: long and odd headers, codings, whole 2xx bodies, dates, cookies on redirects."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
import time
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import brotli
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from examples import examples
from facecaption_ml.images import fetch_raw_images
from facecaption_ml.images.content_coding import codings_of, decoded
from facecaption_ml.images.redirect_cookies import RedirectCookies
from facecaption_ml.images.response_head import MAX_HEAD_BYTES, is_whole, mended, retry_after
from facecaption_ml.images.status import FetchFailure
from hostile_site import Site, manifest, picture, reply
from local_fetch import fetch_one, local
from loopback import stream_server

BODY = picture(1)


def answer(*lines: str, status: str = "HTTP/1.1 200 OK", body: bytes = BODY, length: bool = True) -> bytes:
    own = [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join([status, *lines, *own, "", ""]).encode("latin-1") + body


LENGTH = f"Content-Length: {len(BODY)}"
TAKEN = {
    "8 kB field": answer(f"Content-Security-Policy: {'x' * 8_300}"),
    "64 kB field": answer(f"Content-Security-Policy: {'x' * 64_000}"),
    "250 kB field": answer(f"Content-Security-Policy: {'x' * 250_000}"),
    "long name": answer(f"X-{'n' * 9_000}: x"),
    "140 fields": answer(*(f"X-{i}: y" for i in range(140))),
    "1,000 fields": answer(*(f"X-{i}: y" for i in range(1_000))),
    "6,000 fields": answer(*(f"Set-Cookie: a{i}={'x' * 20}" for i in range(6_000))),
    "length twice": answer(LENGTH, LENGTH),
    "length twice in one": answer(f"{LENGTH}, {len(BODY)}", length=False),
    "length with a zero": answer(f"Content-Length: 0{len(BODY)}"),
    "length and chunked": answer("Transfer-Encoding: chunked", LENGTH, length=False, body=b"")
    + f"{len(BODY):x}\r\n".encode()
    + BODY
    + b"\r\n0\r\n\r\n",
    "an empty length": answer("Content-Length:", length=False),
    "identity": answer("Transfer-Encoding: identity"),
    "version 1.2": answer(status="HTTP/1.2 200 OK"),
    "version 2": answer(status="HTTP/2 200 OK"),
    "version 2.0": answer(status="HTTP/2.0 200"),
    "version 1.01": answer(status="HTTP/1.01 200 OK"),
    "no version": answer(status="HTTP/ 200 OK"),
    "small letters": answer(status="http/1.1 200 OK"),
    "blanks in interim answers": b"HTTP/1.1  100  Continue\r\n\r\n" + answer("Bad Name: x"),
    "blanks in the status line": answer(status="HTTP/1.1   200   OK"),
    "an upgrade nobody asked for": answer("Connection: upgrade", "Upgrade: h2c"),
    "blank in a name": answer("Bad Name: x", "Also bad : y"),
    "blank before the colon": answer(f"Content-Length : {len(BODY)}", length=False),
    "no colon": answer("nonsense"),
    "no name": answer(": x"),
    "folded": answer("X-Folded: a", "  b", "\tc"),
    "folded first": answer("  a"),
    "other bytes": answer("X-Name: \xe9\xff", "\xe9: x"),
    "umlaut in the reason": answer(status="HTTP/1.1 200 D\xe4ccord"),
    "no reason": answer(status="HTTP/1.1 200"),
    "bare line feeds": answer("X: y").replace(b"\r\n", b"\n", 3),
    "all bare line feeds": b"HTTP/1.1 200 OK\nX: y\n\n" + BODY,
    "empty lines first": b"\r\n\r\n" + answer(),
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer(),
    "HTTP/1.0": answer(status="HTTP/1.0 200 OK", length=False),
    "two servers": answer("Server: a", "Server: b", "Content-Type: a/b", "Content-Type: c/d"),
}
REFUSED = {
    "lengths that differ": (answer(f"Content-Length: {len(BODY) - 1}"), "protocol_error"),
    "a length that is none": (answer("Content-Length: many", length=False), "protocol_error"),
    "chunks of no length": (
        answer("Transfer-Encoding: chunked", length=False, body=b"many\r\n" + BODY),
        "protocol_error",
    ),
    "interim answers without end": (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5_000, "protocol_error"),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.6\r\n", "protocol_error"),
    "no HTTP and no end": (b"\x00" * 1_000, "protocol_error"),
    "an empty answer": (b"", "timeout"),
}


@pytest.mark.parametrize("name", TAKEN)
@pytest.mark.parametrize("pieces", [False, True], ids=["at once", "in pieces"])
def test_odd_headers_are_taken(site: Site, name: str, pieces: bool) -> None:
    site.replies["/x"] = TAKEN[name]
    site.piece_bytes = 1_000 if len(TAKEN[name]) > 10_000 else 7
    site.piece_bytes *= pieces
    site.closes = not re.search(rb"Content-Length ?: \d", TAKEN[name])
    row = fetch_one(f"{site.base}/x", local(respect_opt_out=False))
    assert row["status"] == "ok", row["error"]
    assert row["image"]["bytes"] == BODY


@pytest.mark.parametrize("name", REFUSED)
def test_answers_that_are_none(site: Site, name: str) -> None:
    site.replies["/x"], status = REFUSED[name]
    assert fetch_one(f"{site.base}/x", local(respect_opt_out=False))["status"] == status


@pytest.mark.parametrize(
    "lines", [[f"X: {'x' * MAX_HEAD_BYTES}"], [f"X-{i}: {'x' * 80}" for i in range(3_000)]], ids=["one", "many"]
)
def test_too_long_headers_say_which_limit_it_was(site: Site, lines: list[str]) -> None:
    site.replies["/x"] = answer(*lines)
    row = fetch_one(f"{site.base}/x", local(respect_opt_out=False))
    assert row["status"] == "protocol_error"
    assert row["error"] == "the answer's headers are longer than 262,144 bytes"


def test_endless_trailers_are_cut_off(site: Site) -> None:
    body = f"{len(BODY):x}\r\n".encode() + BODY + b"\r\n0\r\n" + b"X-Trailer: more\r\n" * 200_000
    site.replies["/x"] = answer("Transfer-Encoding: chunked", body=body, length=False)
    assert fetch_one(f"{site.base}/x", local(respect_opt_out=False))["status"] == "protocol_error"


def test_a_connection_serves_several_odd_answers(site: Site) -> None:
    for number in range(6):
        site.replies[f"/{number}"] = answer("Bad Name: x", LENGTH, body=BODY)
    table = fetch_raw_images(
        manifest([f"{site.base}/{number}" for number in range(6)]), *local(respect_opt_out=False, connections=1)
    )
    assert table["status"].to_list() == ["ok", *["duplicate_image"] * 5]
    assert site.most_open == 1


@pytest.mark.parametrize("more", [answer(body=picture(666)), answer(body=picture(666))[:300], b"junk"])
def test_what_arrives_between_two_requests_is_no_answer_to_the_second(more: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await asyncio.sleep(0.1)  # while the other host's connection is idle
                writer.write(answer(body=picture(int(head.split(b" ")[1][1:]))))
                await asyncio.sleep(0.005)
                writer.write(more)
        writer.close()

    with stream_server(handle) as port:
        urls: list[str | None] = [f"http://{'ab'[number % 2]}.test/{number}" for number in range(6)]  # hosts take turns
        policy = local(
            connections=1, connections_per_host=1, connect_to={"*.test": ("127.0.0.1", port)}, respect_opt_out=False
        )
        table = fetch_raw_images(manifest(urls), *policy)
    assert table["error"].to_list() == [None] * 6
    assert table["image"].struct.field("bytes").to_list() == [picture(number) for number in range(6)]


@examples(200)
@given(st.lists(st.binary(max_size=30), max_size=8))
def test_mended_headers_stay_mended(lines: list[bytes]) -> None:
    head = mended(b"\r\n".join([b"HTTP/1.1 200 OK", *lines]) + b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert head.endswith(b"\r\n\r\n")
    assert mended(head) == head


CODINGS = {
    "gzip": gzip.compress(BODY),
    "x-gzip": gzip.compress(BODY),
    "GZIP": gzip.compress(BODY),
    "deflate": zlib.compress(BODY),
    "br": brotli.compress(BODY),
    "zstd": zstd.compress(BODY),
    "gzip, br": brotli.compress(gzip.compress(BODY)),
    "gzip, gzip": gzip.compress(gzip.compress(BODY)),
    "gzip,identity , zstd": zstd.compress(gzip.compress(BODY)),
    "aws-chunked, gzip": gzip.compress(BODY),
    "gzip, utf-8": gzip.compress(BODY),
    "": BODY,
    "identity": BODY,
    "none": BODY,
    "utf-8": BODY,
    "aws-chunked": BODY,
    "binary": BODY,
    "image/jpeg": BODY,
    "compress": BODY,
    ",": BODY,
}


@pytest.mark.parametrize("coding", CODINGS)
def test_content_codings(site: Site, coding: str) -> None:
    site.replies["/x"] = answer(f"Content-Encoding: {coding}", body=CODINGS[coding])
    row = fetch_one(f"{site.base}/x", local())
    assert (row["status"], row["error"]) == ("ok", None)
    assert row["image"]["bytes"] == BODY


@pytest.mark.parametrize(
    "coding", ["gzip", "x-gzip", "deflate", "br", "zstd", "gzip, gzip", "gzip, br", "zstd, deflate"]
)
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "GIF"])
def test_a_false_coding_costs_no_picture(site: Site, coding: str, format_name: str) -> None:
    body = picture(2, format_name)
    site.replies["/x"] = answer(f"Content-Encoding: {coding}", body=body)
    row = fetch_one(f"{site.base}/x", local())
    assert row["status"] == "ok", row["error"]
    assert row["image"]["bytes"] == body


def test_codings_on_several_lines(site: Site) -> None:
    site.replies["/x"] = answer(
        "Content-Encoding: gzip", "Content-Encoding: br", body=brotli.compress(gzip.compress(BODY))
    )
    assert fetch_one(f"{site.base}/x", local())["status"] == "ok"


@pytest.mark.parametrize("name", ["gzip", "deflate", "br", "zstd"])
def test_bombs_stop_at_the_limit(site: Site, name: str) -> None:
    pack = {
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "br": lambda data: brotli.compress(data, quality=1),
        "zstd": zstd.compress,
    }[name]
    for codings, body in ((name, pack(BODY + bytes(30_000_000))), (f"{name}, {name}", pack(pack(bytes(30_000_000))))):
        site.replies["/x"] = answer(f"Content-Encoding: {codings}", body=body)
        assert fetch_one(f"{site.base}/x", local(max_image_bytes=1_000_000))["status"] == "too_large"  # not timeout


def test_what_no_decoder_can_read_says_so(site: Site) -> None:
    for body, codings, status in (
        (b"junk" * 99, "gzip", "undecodable"),
        (b"junk" * 99, "unknown", "not_an_image"),
        (gzip.compress(b"<html>"), "gzip", "not_an_image"),
        (BODY, ", ".join(["gzip"] * 6), "undecodable"),
    ):
        site.replies["/x"] = answer(f"Content-Encoding: {codings}", body=body)
        assert fetch_one(f"{site.base}/x", local())["status"] == status


def test_gzip_members_are_joined_and_many_empty_ones_take_no_time() -> None:
    halves = gzip.compress(BODY[:500]) + gzip.compress(BODY[500:]) + b"\0\0 and junk"
    assert decoded(halves, ["gzip"], 10**6, lambda _: False) == BODY
    start = time.process_time()
    assert decoded(gzip.compress(b"") * 500_000, ["gzip"], 10**7, lambda _: False) == b""
    assert time.process_time() - start < 5  # no member may cost the rest of the data


@examples(100)
@given(st.binary(max_size=300), st.lists(st.sampled_from(["gzip", "deflate", "br", "zstd"]), max_size=3))
def test_any_body_under_any_coding_ends_in_bytes_or_a_failure(data: bytes, codings: list[str]) -> None:
    with contextlib.suppress(FetchFailure):
        assert len(decoded(data, codings_of(codings), 100, lambda _: False)) <= max(100, len(data))


def test_a_robots_txt_that_came_compressed_is_read(site: Site) -> None:
    rules = b"User-agent: *\nDisallow: /image/\n"
    for codings, body in (("gzip", gzip.compress(rules)), ("br", brotli.compress(rules)), ("gzip", rules)):
        site.replies["/robots.txt"] = answer(f"Content-Encoding: {codings}", body=body)
        assert fetch_one(f"{site.base}/image/1", local())["status"] == "opted_out"
    site.replies["/robots.txt"] = answer("Content-Encoding: gzip", body=gzip.compress(rules + b"#" * 50_000_000))
    assert fetch_one(f"{site.base}/image/1", local())["status"] == "opted_out"


@pytest.mark.parametrize(
    ("status", "line", "expected"),
    [
        (201, None, "ok"),
        (202, None, "ok"),
        (203, None, "ok"),
        (206, None, "ok"),
        (206, f"bytes 0-{len(BODY) - 1}/{len(BODY)}", "ok"),
        (206, f"Bytes  0-{len(BODY) - 1}/{len(BODY)}", "ok"),
        (206, f"bytes 0-{len(BODY) - 1}/{len(BODY) + 1}", "http_client_error"),
        (206, f"bytes 1-{len(BODY) - 1}/{len(BODY)}", "http_client_error"),
        (206, f"bytes 0-{len(BODY) - 1}/*", "http_client_error"),
        (206, "junk", "http_client_error"),
        (226, None, "ok"),
        (299, None, "ok"),
        (205, None, "http_client_error"),
        (300, None, "http_client_error"),
    ],
)
def test_whole_bodies_are_pictures(site: Site, status: int, line: str | None, expected: str) -> None:
    site.replies["/x"] = answer(*([f"Content-Range: {line}"] if line else []), status=f"HTTP/1.1 {status} Any")
    assert fetch_one(f"{site.base}/x", local())["status"] == expected


def test_a_multipart_answer_is_no_whole_body() -> None:
    assert not is_whole({"Content-Type": "multipart/byteranges; boundary=x"})


NOW = datetime(2026, 11, 6, 8, 49, 37, tzinfo=UTC)
DATES = ["Fri, 06 Nov 2026 08:50:37 GMT", "Friday, 06-Nov-26 08:50:37 GMT", "Fri Nov  6 08:50:37 2026"]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *((date, 60.0) for date in DATES),
        ("Fri, 06 Nov 2026 08:00:00 GMT", 0.0),
        ("7", 7.0),
        (" 0 ", 0.0),
        ("1.5", 1.5),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("1e9", None),
        ("٣", None),
        ("99999999999", None),
        ("Fri, 06 Nov 99999 08:50:37 GMT", None),
        ("Fri, 99 Nov 2026 08:50:37 GMT", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": value, "Date": format_datetime(NOW, usegmt=True)}) == seconds


def test_retry_after_a_date_is_waited_for(site: Site) -> None:
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
    site.replies["/busy"] = reply("503 Busy", Retry_After=format_datetime(soon, usegmt=True))
    policy = local(retries=1, backoff_s=0.01, total_timeout_s=60.0, respect_opt_out=False)
    assert fetch_one(f"{site.base}/busy", policy)["attempts"] == 2
    assert datetime.now(UTC) >= soon
    site.replies["/busy"] = reply("503 Busy", Retry_After="Fri, 31 Dec 2100 23:59:59 GMT")
    start = time.monotonic()
    assert fetch_one(f"{site.base}/busy", policy)["attempts"] == 1
    assert time.monotonic() - start < 30  # not the sixty seconds that a row has


def test_a_cookie_on_a_redirect_to_itself_comes_back(site: Site) -> None:
    site.replies["/c"] = reply("302 Found", Location="/c", Set_Cookie='seen="a,b"; Path=/; HttpOnly')
    site.with_cookie["/c"] = ('seen="a,b"', answer())
    assert fetch_one(f"{site.base}/c", local())["status"] == "ok"
    assert fetch_one(f"{site.base}/c", local(max_redirects=0))["status"] == "too_many_redirects"
    assert "Cookie" not in site.requests[-1]  # forgotten with the row
    other = {"*.sample.test": ("127.0.0.1", site.port)}
    site.replies["/c"] = reply("302 Found", Location="http://b.sample.test/c", Set_Cookie="seen=1; Domain=sample.test")
    assert fetch_one("http://a.sample.test/c", local(connect_to=other))["status"] == "too_many_redirects"
    to_other = [head for head in site.requests if head.startswith("GET /c ") and "Host: b.sample.test" in head]
    assert "Cookie" not in to_other[0]
    assert "Cookie: seen=1\r\n" in to_other[1]  # its own


def test_cookies_are_those_of_the_host_that_set_them() -> None:
    cookies = RedirectCookies()
    first, other, secure = URL("http://a.test/x"), URL("http://b.a.test/x"), URL("https://a.test/x")
    cookies.keep(first, ["a=1; Path=/y", "b = 2;Secure", "c", "=d", 'e="f g"', "h=\udcff", "i=" + "x" * 9_000, "a=3"])
    assert cookies.header(first) == 'a=3; c=; e="f g"'
    assert cookies.header(secure) == 'a=3; b=2; c=; e="f g"'
    assert cookies.header(other) is None
    cookies.keep(first, ["a=; Max-Age=0", "c=; expires=Thu, 01 Jan 1970 00:00:00 GMT", "e=1; Max-Age=-1"])
    assert cookies.header(first) is None
    cookies.keep(first, ["a=1; Max-Age=060", "c=1; Max-Age=0x", "e=1; max-age = 000"])
    assert cookies.header(first) == "a=1; c=1"
    cookies.keep(first, [f"n{number}=1" for number in range(500)])
    assert len((cookies.header(first) or "").split("; ")) <= 50
