"""Two spellings of one address compare equal, two addresses do not, and no text at all raises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecaption_ml.urls import canonical_host, canonical_url, host_of

SAME = {
    "http://example.org/": (
        "http://example.org",
        "  http://example.org/\n",
        "\ufeffhttp://example.org/",
        "\x01http://example.org/\x1f",
        "HTTP://EXAMPLE.org/",
        "http://example.org./",
        "http://example.org:80/",
        "http://example.org:/",
        "http://example.org:00080",
        "http://example.org/#top",
        "http://example.org#/a/b",
        "http://example.org?",
        "http://user:secret@example.org/",
        "http://ex%61mple.org/",
        "http://example\uff0eorg/",
        "http://example\u3002org/",
        "http://\uff45xample.org/",
        "http://exam\u00adple.org/",
        "http://exam\tple.org/\r\n",
        "http://example.org/a/..",
        "http://example.org/../../%2e/%2E%2e/",
    ),
    "https://example.org/a": ("https://example.org:443/a", "https://example.org/b/../a", "https://example.org/./%61"),
    "https://example.org:80/a": ("https://EXAMPLE.org:080/a#x",),
    "http://example.org/a%20b/%C3%A9.jpg": (
        "http://example.org/a b/é.jpg",
        "http://example.org/a%20b/%c3%a9.jpg",
        "http://example.org/a b/%C3%A9%2Ejpg",
    ),
    "http://example.org/Ada_(1).jpg": ("http://example.org/Ada_%281%29.jpg",),
    "http://example.org/100%25": ("http://example.org/100%",),
    "http://example.org/%25zz": ("http://example.org/%zz",),
    "http://example.org/%5Ba%5D%7C": ("http://example.org/[a]|",),
    "http://example.org/a?b=%C3%A9&c=%2F": ("http://example.org/a?b=é&c=%2f",),
    "http://xn--bcher-kva.example/": ("http://bücher.example", "http://BÜCHER.example", "http://XN--BCHER-KVA.example./"),
    "http://xn--fa-hia.de/": ("http://faß.de/",),
    "http://xn--ls8h.la/": ("http://💩.la",),
    "http://127.0.0.1/": (
        "http://0x7f.1", "http://2130706433/", "http://0177.0.0.01/", "http://127.1", "http://１２７.0.0.1",
    ),
    "http://[2001:db8::1]/": ("http://[2001:0DB8:0:0:0:0:0:1]:80/",),
    "http://[2001:db8::1]:8080/": ("http://[2001:DB8::0:1]:8080",),
    "file:///a%20b/%C3%A9": (
        "file://localhost/a b/é", "FILE:///a%20b//./%c3%a9", "file:///a b/x/../é#x", "file:///a b/é?x",
    ),
    "file:///%FF": ("file:///\udcff", "file:///%ff"),
    "s3://bucket/A b": ("S3://bucket/A b", " s3://Bucket/A b\n"),
}  # fmt: skip
DIFFERENT = (
    "http://example.org/a", "https://example.org/a", "http://example.org/A", "http://example.org/a/",
    "http://example.org//a", "http://example.org/a?b", "http://example.org/a?B", "http://example.org/a?b=%2F",
    "http://example.org/a?b=/", "http://example.org/a%2Fb", "http://example.org/a/b", "http://example.org:8080/a",
    "http://www.example.org/a", "http://notexample.org/a", "http://example.org/a+b", "http://example.org/a%20b",
    "http://example.org/a%2Bb", "http://example.org/a?x=1&y=2", "http://example.org/a?y=2&x=1", "http://example.org/%E9",
    "http://example.org/é", "http://fass.de/a", "http://faß.de/a", "file:///a", "file:///A", "file:///a%20", "s3://b/a",
    "s3://b/a%20b", "s3://b/a b", "s3://b/a#b", "s3://b/a?b", "http://example.org/a%23b", "http://example.org/a%3Fb",
)  # fmt: skip
NO_URL = (
    None, "", "  ", "example.org", "please remove my photo", "//example.org/", "http:/example.org", "http:///a", "http://",
    "http://[]@/", "http://[broken", "http://[1:2:3:4:5:6:7:8:9]/", "http://[p: x]", "http://a..b/", "http://.a/",
    "http://a b/", "http://a:b/", "http://a:65536/", "http://a:0/", "http://a:" + "9" * 5000, "http://1.2.3.4.5/", "http://256.1.1.1/",
    "http://08.1/", "data:image/png;base64,AAAA", "http://\ud83d/", "s3://", "s3:///key", "http://a%00b/", "http://@/",
)  # fmt: skip


@pytest.mark.parametrize("normal", SAME)
def test_spellings_of_one_address_compare_equal(normal: str) -> None:
    assert {canonical_url(text) for text in (normal, *SAME[normal])} == {normal}


def test_addresses_of_different_pictures_stay_different() -> None:
    assert len({canonical_url(text) for text in DIFFERENT}) == len(DIFFERENT)
    assert "" not in map(canonical_url, DIFFERENT)


@pytest.mark.parametrize("text", NO_URL)
def test_what_is_no_url_has_no_normal_form(text: str | None) -> None:
    assert canonical_url(text) == ""


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("B.test.", "b.test"), ("bücher.example", "xn--bcher-kva.example"), ("  example.org ", "example.org"),
        ("0x7f.1", "127.0.0.1"), ("[2001:DB8::0]", "[2001:db8::]"), ("2001:db8::", "[2001:db8::]"), ("localhost", "localhost"),
        ("a_b.example", "a_b.example"), ("*.example.org", "*.example.org"), ("example.org:8080", ""), ("a..b", ""), (".a", ""),
        ("a b", ""), ("https://example.org", ""), ("", ""), (None, ""), ("[::1", ""), ("user@example.org", ""), ("\ud83d", ""),
    ],
)  # fmt: skip
def test_hosts_compare_by_what_a_lookup_would_ask_for(text: str | None, host: str) -> None:
    assert canonical_host(text) == host


def test_the_host_of_a_url_is_in_normal_form() -> None:
    assert host_of("https://u:p@WWW.Bücher.example.:8443/x") == "www.xn--bcher-kva.example"
    assert host_of("http://[2001:DB8::1]:8080/x") == "[2001:db8::1]"
    assert host_of("s3://Bucket/key:1") == "bucket"
    assert host_of("file:///a") == host_of("http://[broken") == host_of(None) == ""


_PIECES = st.lists(
    st.sampled_from([
        "http://", "HTTPS://", "file://", "s3://", "a", "B", ".", "..", "/", "//", ":", "80", "443", "@", "?", "#", "[", "]",
        "::1", "%", "%2", "%2e", "%2F", "%41", "%C3%A9", "é", "ß", "İ", "xn--", "xn--bcher-kva", "0x", "0x7f", "1", "0", " ",
        "\t", "\x00", "\u200d", "\u3002", "\udcff", "\ud83d", "💩", "*", "_", "-", "\\", "+", "&", "=",
    ]),
    max_size=12,
).map("".join)  # fmt: skip


@given(st.text() | _PIECES | _PIECES.map("http://a/".__add__) | st.text().map("http://".__add__))
def test_no_text_raises_and_a_normal_form_is_its_own(text: str) -> None:
    normal = canonical_url(text)
    assert canonical_url(normal) == normal
    host = canonical_host(text)
    assert canonical_host(host) == host
    assert canonical_host(host_of(text)) == host_of(text) or normal.startswith("s3://")


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=12))
def test_a_path_compares_equal_however_much_of_it_is_escaped(name: str) -> None:
    escaped = "".join(f"%{byte:02x}" for byte in name.encode())
    assert canonical_url(f"file:///x{escaped}y") == canonical_url(f"FILE:///x{escaped.upper()}y")
    plain = "".join(character if character.isalnum() else f"%{character.encode().hex('%')}" for character in name)
    assert canonical_url(f"http://a.org/{plain}y") == canonical_url(f"http://a.org/{escaped}y".replace("%2f", "%2F"))
