"""Opt-out headers and robots.txt by RFC 9309."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
import tracemalloc
import zlib
from datetime import UTC, datetime

import brotli
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from examples import examples
from facecaption_ml.images.opt_out import RobotsCache, decoded_robots, opt_out_in_headers
from facecaption_ml.images.robots_rules import RobotsRules
from facecaption_ml.images.status import FetchFailure


def headers(*lines: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(lines))


@pytest.mark.parametrize(
    ("line", "opts_out"),
    [
        ("noai", True),
        ("noimageai", True),
        ("noindex", True),
        ("noimageindex", True),
        ("noml", True),
        ("none", True),
        ("nofollow, NOAI", True),
        ("all", False),
        ("nofollow, nosnippet", False),
        ("noaiming", False),
        ("otherbot: noai", False),
        ("otherbot: noindex, noai", False),
        ("facecaption: noai", True),
        ("FaceCaption: nofollow, noml", True),
        ("otherbot: noai, facecaption: noimageai", True),
        ("facecaption: nofollow, otherbot: noai", False),
        ("*: noai", True),
        ("max-image-preview: large, noai", True),
        ("FaceCaption/2.0: noai", True),
        ("otherbot/1.1: noai", False),
        ("noindex; nofollow", True),
        ("nofollow noindex", True),
        ('"noimageai"', True),
        ("otherbot: nofollow noindex", False),
        ("unavailable_after: 25 Jun 2030 15:00:00 PST", False),
        ("", False),
        (":,:", False),
    ],
)
def test_robots_tag(line: str, opts_out: bool) -> None:
    assert (opt_out_in_headers(headers(("x-robots-tag", line)), "facecaption") is not None) == opts_out


def test_any_of_several_lines_counts() -> None:
    assert opt_out_in_headers(headers(("X-Robots-Tag", "all"), ("X-Robots-Tag", "noml")), "facecaption")
    assert opt_out_in_headers(headers(("tdm-reservation", " 1 ")), "facecaption") == "TDM-Reservation: 1"
    assert opt_out_in_headers(headers(("tdm-reservation", "0")), "facecaption") is None


ROBOTS = """\
\ufeff# everybody
User-agent: *
Disallow: /private/
Disallow: /*.gif$
Allow: /private/open
Disallow: /search?q=
Disallow:

User-Agent: FaceCaption/2.0  # us
user-agent: other
Disallow: /ours/
Allow: /ours/*/public

User-agent: greedy
Disallow: /

user-agent: facecaption
disallow: /b%c3%bccher/
"""


@pytest.mark.parametrize(
    ("agent", "path", "allowed"),
    [
        ("somebody", "/", True),
        ("somebody", "/private/x.jpg", False),
        ("somebody", "/private/open/x.jpg", True),
        ("somebody", "/a/b.gif", False),
        ("somebody", "/a/b.gif?x=1", True),
        ("somebody", "/search?q=cats", False),
        ("somebody", "/ours/", True),
        ("greedy", "/anything", False),
        ("greedy", "/robots.txt", True),
        ("facecaption", "/private/x.jpg", True),  # its own group replaces the one for everybody
        ("facecaption", "/ours/x.jpg", False),
        ("facecaption", "/ours/a/public/x.jpg", True),
        ("facecaption", "/b%C3%BCcher/x.jpg", False),  # the group's second part
        ("other", "/ours/x.jpg", False),
    ],
)
def test_robots_txt(agent: str, path: str, allowed: bool) -> None:
    assert RobotsRules(ROBOTS, agent).allows(path) == allowed


def test_allow_wins_a_tie_and_the_longest_pattern_decides() -> None:
    assert RobotsRules("User-agent: *\nDisallow: /a\nAllow: /a", "x").allows("/a")
    assert not RobotsRules("User-agent: *\nAllow: /a\nDisallow: /ab", "x").allows("/abc")


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("User-agent: face\nDisallow: /", True),  # the beginning of our name is somebody else's
        ("User-agent: facecaption-plus\nDisallow: /", True),
        ("User-agent: facecaption\nCrawl-delay: 9\nUser-agent: other\nDisallow: /", False),  # one group
        ("User-agent: *\nDisallow: /\nUser-agent: facecaption\nAllow: /", True),
        ("Disallow: /", True),  # of no group
    ],
)
def test_groups(text: str, allowed: bool) -> None:
    assert RobotsRules(text, "facecaption").allows("/x.jpg") == allowed


@given(pattern=st.text("ab*/", max_size=9), anchored=st.booleans(), path=st.text("ab/", max_size=12))
def test_wildcards_match_as_the_regular_expression_does(pattern: str, anchored: bool, path: str) -> None:
    pattern = "/" + pattern + ("$" if anchored else "")
    path = "/" + path
    expression = "".join(".*" if c == "*" else re.escape(c) for c in pattern.removesuffix("$"))
    expected = re.match(expression + ("$" if anchored else ""), path) is None
    assert RobotsRules(f"User-agent: *\nDisallow: {pattern}", "x").allows(path) == expected


@given(st.text(max_size=300))
def test_any_text_is_a_robots_txt(text: str) -> None:
    assert RobotsRules(text, "facecaption").allows("/x") in (True, False)


def test_hostile_pattern_is_matched_in_linear_time() -> None:
    rules = RobotsRules("User-agent: *\nDisallow: /" + "a*" * 2000 + "b$", "x")
    assert rules.allows("/" + "a" * 4000)


def test_a_hostile_file_has_no_more_rules_than_are_read() -> None:
    rules = RobotsRules("User-agent: *\n" + "".join(f"Disallow: /{n}/\n" for n in range(50_000)), "x")
    assert not rules.allows("/9000/")
    assert rules.allows("/49999/")


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("unavailable_after: Friday, 25-Jun-10 15:00:00 PST, noai", "unavailable_after"),  # RFC 850, and past
        ("unavailable_after: Friday, 25-Jun-38 15:00:00 PST, noai", "noai"),
        ("noindex, unavailable_after: Friday, 25-Jun-38 15:00:00 PST", "noindex"),
        ("unavailable_after: Friday, 25-Jun-38 15:00:00 PST, otherbot: noai", None),
        ("unavailable_after: 25 Jun 2010 15:00:00 PST", "unavailable_after"),  # RFC 822
        ("unavailable_after: Fri, 25 Jun 2010 15:00:00 +0100, max-snippet: 5", "unavailable_after"),
        ("unavailable_after: 2010-06-25T15:00:00Z, nofollow", "unavailable_after"),  # ISO 8601
        ("unavailable_after: 2010-06-25", "unavailable_after"),
        ("unavailable_after: 2030-06-25T15:00:00-08:00, noml", "noml"),
        ("otherbot: unavailable_after: 25 Jun 2010 15:00:00 PST, noai", None),
        ("facecaption: unavailable_after: 25 Jun 2010 15:00:00 PST", "unavailable_after"),
        ("otherbot: noindex, *: unavailable_after: 2010-06-25", "unavailable_after"),
        ("unavailable_after: Jun 25, 2010", "unavailable_after"),
        ("unavailable_after: Friday, June 25, 2010, noai", "unavailable_after"),
        ("unavailable_after: Friday, June 25, 2038, noai", "noai"),
        ("unavailable_after: 25-Jun-2010 15:00:00", "unavailable_after"),
        ("unavailable_after: 25 Jun 2010, otherbot: noai", "unavailable_after"),
        ("unavailable_after: 2010-06-25 15:00:00 EST", "unavailable_after"),
        ("unavailable_after: 2010/06/25", "unavailable_after"),
        ("unavailable_after: 2038/06/25 noai", None),
        ("unavailable_after: 2010/13/25", None),
        ("unavailable_after: 2010/00/25", None),
        ("unavailable_after: 2010/06/99", None),
        ("unavailable_after: 2010", None),
        ("unavailable_after: someday, noai", "noai"),
        ("unavailable_after: , noai", "noai"),
        ("unavailable_after: 31-Dec-25 23:59:59 GMT", "unavailable_after"),
        ("unavailable_after: 01 Jan 2026 00:00:01 GMT", None),
        ("unavailable_after: 99 Xyz 99999 99:99:99, max-image-preview: none", None),
    ],
)
def test_robots_tag_with_dates(line: str, found: str | None) -> None:
    answer = opt_out_in_headers(headers(("X-Robots-Tag", line)), "facecaption", NOW)
    assert (answer and answer.split(": ")[1]) == found


@given(st.text(max_size=200))
def test_any_text_is_an_x_robots_tag(text: str) -> None:
    assert opt_out_in_headers(headers(("X-Robots-Tag", text)), "facecaption", NOW) in (
        None,
        *(f"X-Robots-Tag: {name}" for name in ("noai", "none", "noml", "noindex", "noimageai", "noimageindex")),
    )


RULES = b"User-agent: *\nDisallow: /private/\n"


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (RULES, ""),
        (gzip.compress(RULES, mtime=0), "gzip"),
        (gzip.compress(RULES, mtime=0), "x-gzip"),
        (gzip.compress(RULES, mtime=0), ""),  # a file that lies there compressed
        (zlib.compress(RULES), "deflate"),
        (zlib.compress(RULES, wbits=-15), "deflate"),
        (brotli.compress(RULES), "br"),
        (zstd.compress(RULES), "zstd"),
        (gzip.compress(brotli.compress(RULES), mtime=0), "br, gzip"),
        (RULES, "gzip"),  # named and not applied
        (RULES, "br"),
        (RULES, "deflate"),
        (RULES, "identity"),
        (gzip.compress(RULES, mtime=0)[:-6], "gzip"),
        (b"\xef\xbb\xbf" + RULES, ""),
        (RULES.decode().encode("utf-16"), ""),
        (RULES.decode().encode("utf-16-be"), ""),
        (RULES.replace(b"\n", b"\r"), ""),
        (RULES.replace(b"\n", b"\0\r\n"), ""),
    ],
)
def test_robots_txt_is_read_however_it_is_encoded(body: bytes, coding: str) -> None:
    rules = RobotsRules(decoded_robots(body, [coding]), "facecaption")
    assert not rules.allows("/private/x.jpg")
    assert rules.allows("/x.jpg")


def test_codings_without_end_are_no_robots_txt() -> None:
    with pytest.raises(FetchFailure, match="layers"):
        decoded_robots(RULES, ["gzip, gzip, gzip", "br, br, br"])


def test_a_robots_txt_that_swells_is_cut() -> None:
    body = RULES + b"# nothing\n" * 5_000_000
    for coding, packed in (("gzip", gzip.compress(body)), ("br", brotli.compress(body, quality=1))):
        assert len(packed) < 512 * 1024
        plain = decoded_robots(packed, [coding])
        assert plain.startswith(RULES)
        assert len(plain) <= 512 * 1024


def filled(line: str, size: int = 512 * 1024) -> bytes:
    return (line * (size // len(line) + 1))[:size].encode()


def numbered(line: str, count: int) -> bytes:
    return b"User-agent: *\n" + "".join(line.format(n) for n in range(count)).encode()


LONG_PATHS = ["/" + "a" * 8000, "/" + ("a" * 12 + "b") * 600, "/" + "%41" * 2600]
WORST = {
    "agents": filled("User-agent: *\n", 49_000) + numbered("Disallow: /{}/\n", 1000),
    "more agents": filled("User-agent: *\n", 136_000) + numbered("Disallow: /{}/\n", 3000),
    "agents without a name": filled("user-agent:\n"),
    "groups": filled("User-agent:*\nallow:/\nUser-agent:b\nallow:\n"),
    "10,000 rules": numbered("Disallow: /{}/x\n", 10_000),
    "10,000 rules with wildcards": numbered("Disallow: /*a{}*b\n", 10_000),
    "short wildcards": numbered("allow:*{}*q\n", 40_000),
    "rules of many lengths": b"User-agent: *\n" + b"".join(b"allow:/" + b"a" * n + b"\n" for n in range(1000)),
    "wildcards that nearly match": b"User-agent: *\n" + filled("Disallow: /*a*a*a*a*a*a*c\n"),
    "one pattern of wildcards": b"User-agent: *\nDisallow: /" + filled("a*") + b"c",
    "pieces that nearly occur": numbered("allow:/*" + "a" * 12 + "b" + "a" * 13 + "*{}\n", 11_000),
    "one line": b"User-agent: *\nDisallow: /" + filled("x"),
    "blanks": b"User-agent: *\nDisallow:" + filled(" "),
    "escapes": b"User-agent: *\n" + filled("allow:/%41%42%43%44\n"),
    "broken escapes": b"User-agent: *\n" + filled("allow:/%%%%%%\n"),
    "line ends": filled("\r\n\r\r"),
    "NULs": bytes(512 * 1024),
    "UTF-16": filled("Disallow: /é\n").decode(errors="replace").encode("utf-16"),
}


@pytest.mark.timeout(
    60
)  # a hundredth of a second to one, by the machine; minutes where a pattern is tried from every place
@pytest.mark.parametrize("name", WORST)
def test_no_robots_txt_costs_much(name: str) -> None:
    rules = RobotsRules(WORST[name], "facecaption")
    answers = [rules.allows(path) for path in LONG_PATHS]
    tracemalloc.start()
    try:
        rules = RobotsRules(WORST[name], "facecaption")
        assert rules.allows(LONG_PATHS[0]) == answers[0]
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000
    assert held < 2 * rules.bytes_held + 250_000, f"{held} bytes are held, {rules.bytes_held} were thought to be"


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("agents", [True] * 3),
        ("10,000 rules with wildcards", [True] * 3),
        ("wildcards that nearly match", [True] * 3),
        ("rules of many lengths", [True] * 3),
    ],
)
def test_what_costs_much_is_answered_rightly_all_the_same(name: str, allowed: list[bool]) -> None:
    rules = RobotsRules(WORST[name], "facecaption")
    assert [rules.allows(path) for path in LONG_PATHS] == allowed
    assert not RobotsRules(WORST["agents"], "facecaption").allows("/999/x.jpg")
    assert not RobotsRules(WORST["10,000 rules"], "facecaption").allows("/9999/x.jpg")
    assert not RobotsRules(WORST["10,000 rules with wildcards"], "facecaption").allows("/ca9999bb")


def test_the_rules_of_many_hosts_are_kept_within_a_budget() -> None:
    asked: list[str] = []

    async def read(origin: URL) -> bytes:
        asked.append(str(origin.host))
        return numbered("Disallow: /*a{}*b\n", 500)

    async def run() -> None:
        one = RobotsRules(await read(URL("http://x/")), "facecaption").bytes_held
        cache = RobotsCache(read, "facecaption", most_bytes=10 * one)
        for number in (*range(30), 29, 20, 0):
            for path in ("x.jpg", "a499b"):
                allowed = contextlib.nullcontext() if path == "x.jpg" else pytest.raises(FetchFailure)
                with allowed:
                    await cache.require_allowed(URL(f"http://h{number}/{path}"))

    asyncio.run(run())
    assert asked[1:] == [*(f"h{number}" for number in range(30)), "h0"]


def test_rules_that_take_too_long_on_a_path_keep_it_out() -> None:
    tails = ("".join("*ab" if bit == "1" else "*ba" for bit in f"{n:b}") for n in range(5000))
    lines = "".join(f"Disallow: /*{'ab' * 9}bb{tail}\n" for tail in tails)
    rules = RobotsRules(f"User-agent: *\n{lines}", "facecaption")
    assert rules.allows("/x.jpg")
    assert rules.allows("/" + "ab" * 50)
    assert not rules.allows("/" + "ab" * 2000 + "b" + "ab" * 1000)


@examples(150)
@given(
    st.one_of(
        st.binary(max_size=2000),
        st.lists(
            st.sampled_from([b"User-agent:", b"*", b"facecaption", b"Disallow:", b"Allow: ", b"/", b"a", b"%2", b"$",
                             b"\n", b"\r", b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"#", b" ", b"\xc3\xa9"]),
            max_size=400,
        ).map(b"".join),
    ),
    st.sampled_from(["/", "/a", "/%", "/%zz*$", "/é", "", "/" + "a" * 500]),
)  # fmt: skip
def test_any_bytes_are_a_robots_txt(body: bytes, path: str) -> None:
    for coding in ("", "gzip", "deflate", "br"):
        assert RobotsRules(decoded_robots(body, [coding]), "facecaption").allows(path) in (True, False)


@pytest.mark.parametrize(
    ("rule", "path", "allowed"),
    [
        ("Disallow: images/", "/images/x.jpg", False),  # the slash is forgotten
        ("Disallow: /a%2Fb", "/a/b", True),
        ("Disallow: /a%2fb", "/a%2Fb", False),
        ("Disallow: /caf%C3%A9", "/café", False),
        ("Disallow: /%61", "/a.jpg", False),
        ("Disallow: /a$b", "/a$b", False),
        ("Disallow: /a$", "/a$", True),
        ("Disallow: /a*$", "/abc", False),
        ("Disallow: /*?", "/abc?x=1", False),
        ("Disallow: /x%2A", "/x*", False),
        ("Disallow: /**/b", "/a/b", False),
        ("Disallow: /a b", "/a%20b", False),
        ("Disalow: /a", "/a", False),
        ("Dissallow : /a", "/a", False),
        ("Disallow /a", "/a", False),
        ("Disallow\t/a # why", "/a", False),
        ("Disallow us from here", "/us", True),
        ("Disallowed: /a", "/a", True),
        ("Allow: /b\nUser agent: other\nDisallow: /a", "/a", True),
        ("Allow: /b\nUseragent other\nDisallow: /c\nUser-agent *\nDisallow: /a", "/a", False),
    ],
)
def test_spellings_of_a_rule(rule: str, path: str, allowed: bool) -> None:
    assert RobotsRules(f"User-agent: *\n{rule}\n", "facecaption").allows(path) == allowed
