"""Opt-out headers and robots.txt by RFC 9309."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from facecaption_ml.images.opt_out import RobotsRules, opt_out_in_headers


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
