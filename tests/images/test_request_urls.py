"""URLs as browsers read them: what goes over the wire, and that any text at all ends as a row with a status."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from examples import examples
from facecaption_ml.images import FetchStatus, download, fetch_raw_images
from facecaption_ml.images.addresses import literal_address
from facecaption_ml.images.request_urls import parse_url, redirect_target
from facecaption_ml.images.status import FetchFailure
from facecaption_ml.urls import canonical_url
from hostile_site import Site, manifest, picture, reply
from local_fetch import fetch_one, local

AS_WRITTEN = [
    "/p.jpg?Policy=a%2Fb%3A&Signature=x%40y%2Cz",
    "/p.jpg?sig=a%2fb%3a%40%2c",
    "/%28a%29%2f%7e/p.jpg",
    "/a+b;c=d,e/p!'()*~.jpg?x=1+2;y=a%20b",
    "/p.jpg?",
    "/p.jpg?&&=&",
    "/p.jpg??x=?",
    "//double//slash.jpg",
    "/%zz%/100%.jpg?50%",
    "/a:b@c/$&=.jpg?u=http://h/x?y",
    "/t=%C3%A9/%e2%82%ac.jpg",
    "/p.jpg?[0]=a|b",
    "/%E2%80%8B/%00/%0d%0a.jpg",
]
QUOTED = {
    "/a b.jpg?c d": "/a%20b.jpg?c%20d",
    "/é/日本.jpg?ü=ü": "/%C3%A9/%E6%97%A5%E6%9C%AC.jpg?%C3%BC=%C3%BC",
    "/zero\u200bwidth\u202emark\ufeff.jpg": "/zero%E2%80%8Bwidth%E2%80%AEmark%EF%BB%BF.jpg",
    '/"quoted"<>.jpg?"<>': "/%22quoted%22%3C%3E.jpg?%22%3C%3E",
    "/a/./b/../c.jpg": "/a/c.jpg",
    "/a/%2e%2E/c.jpg": "/c.jpg",
    "\\a\\b.jpg": "/a/b.jpg",
    "/a\tb\r\nc.jpg": "/abc.jpg",
    "/a\x00b\x1f.jpg": "/a%00b%1F.jpg",
    "/p.jpg#fragment?x": "/p.jpg",
    "/p.jpg?#": "/p.jpg?",
    "/😀.jpg": "/%F0%9F%98%80.jpg",
    "?x=1": "/?x=1",
}
NASTY = {
    "http://": "invalid_url",
    "http:": "invalid_url",
    "http:///x": "invalid_url",
    "http:////x/y": "invalid_url",
    "http://[]@/": "invalid_url",
    "http://[]/": "invalid_url",
    "http://[/": "invalid_url",
    "http://]/": "invalid_url",
    "http://[p: x]": "invalid_url",
    "http://[1:2:3:4:5:6:7:8:9]/": "invalid_url",
    "http://[::1": "invalid_url",
    "http://[::1%25lo]/": "invalid_url",
    "http://[v1.a]/": "invalid_url",
    "http://[::1]x/": "invalid_url",
    "http://host:99999/": "invalid_url",
    "http://host:-1/": "invalid_url",
    "http://host:0/": "invalid_url",
    "http://host:8o/": "invalid_url",
    "http://host:١٢/": "invalid_url",
    "http://host:" + "9" * 400 + "/": "invalid_url",
    "http://@/": "invalid_url",
    "http://user@/": "invalid_url",
    "http://user:pass@:80/": "invalid_url",
    "http://?x": "invalid_url",
    "http://#x": "invalid_url",
    "http://./": "invalid_url",
    "http://a..b/": "invalid_url",
    "http://.a/": "invalid_url",
    "http://%/": "invalid_url",
    "http://%zz/": "invalid_url",
    "http://%00/": "invalid_url",
    "http://a%20b/": "invalid_url",
    "http://a%2fb/": "invalid_url",
    "http://a b/": "invalid_url",
    "http://a\0b/": "invalid_url",
    "http://a<b>/": "invalid_url",
    "http://a|b/": "invalid_url",
    "http://a^b/": "invalid_url",
    "http://*/": "invalid_url",
    "http://a,b/": "invalid_url",
    "http://\u202e/": "invalid_url",
    "http://\u200b/": "invalid_url",
    "http://\ud800/": "invalid_url",
    "http://a\ufffd/": "invalid_url",
    "http://xn--a/": "dns_error",
    "http://" + "a" * 64 + ".example/": "invalid_url",
    "http://" + "a." * 130 + "example/": "invalid_url",
    "http://256.256.256.256/": "invalid_url",
    "http://1.2.3.4.5/": "invalid_url",
    "http://0x1ffffffff/": "invalid_url",
    "http://09/": "invalid_url",
    "http://1e3/": "dns_error",
    "//host/x": "invalid_url",
    "/x.jpg": "invalid_url",
    "x.jpg": "invalid_url",
    "www.example.com/x.jpg": "invalid_url",
    ":": "invalid_url",
    "::::": "invalid_url",
    "ht tp://h/": "invalid_url",
    "hxxp://h/": "invalid_url",
    "https": "invalid_url",
    "mailto:a@b": "invalid_url",
    "blob:http://h/": "invalid_url",
    "view-source:http://h/": "invalid_url",
    "data:,": "invalid_url",
    "javascript://h/%0aalert(1)": "invalid_url",
    "ws://h/": "invalid_url",
    "file://[x": "invalid_url",
    "file:///\0": "invalid_url",
    "file://\ud800": "invalid_url",
    "s3://": "invalid_url",
    "s3://[x/y": "invalid_url",
    "http://127.1/": "refused_address",
    "http://0/": "refused_address",
    "http://0x7f000001/": "refused_address",
    "http://017700000001/": "refused_address",
    "http://１２７。０。０。１/": "refused_address",
    "http://%31%32%37.0.0.1/": "refused_address",
    "http://[::ffff:7f00:1]/": "refused_address",
    "http://[::127.0.0.1]/": "refused_address",
    "http:\\\\127.0.0.1\\x": "refused_address",
    "http:127.0.0.1/x": "invalid_url",
    "http:/127.0.0.1/x": "invalid_url",
    "http:/\\127.0.0.1/x": "refused_address",
    "http://public.example@127.0.0.1/": "refused_address",
    "http://127.0.0.1\\@public.example/": "refused_address",
    "http://127.0.0.1#@public.example/": "refused_address",
    "http://127.0.0.1?@public.example/": "refused_address",
    "http://1\t2\n7.0.0.1/": "refused_address",
    " \x01\x1f http://127.0.0.1/ \x00": "refused_address",
    "\u00a0http://127.0.0.1/\u3000": "refused_address",
    "\ufeff\u200bhttp://127.0.0.1/": "refused_address",
    "http://no-such-host.invalid./": "dns_error",
    "http://under_score.invalid/": "dns_error",
    "x" * 1_000_000: "invalid_url",
    "http://h/" + "é" * 1_000_000: "invalid_url",
    "\ud800": "invalid_url",
    "\0": "invalid_url",
    "\n": "invalid_url",
}


def outcome(parse: Callable[[], URL]) -> URL | FetchStatus:
    try:
        return parse()
    except FetchFailure as failure:
        return failure.status


def request_line(site: Site, path: str) -> str:
    """What arrives at the site for a URL with this path and query."""
    fetch_one(site.base + path, local(respect_opt_out=False))
    return site.requests[-1].split("\r\n")[0]


@pytest.mark.parametrize("path", AS_WRITTEN)
def test_what_is_valid_is_sent_as_written(site: Site, path: str) -> None:
    assert request_line(site, path) == f"GET {path} HTTP/1.1"


@pytest.mark.parametrize(("written", "sent"), QUOTED.items(), ids=map(ascii, QUOTED))
def test_what_may_not_be_sent_is_escaped_as_browsers_do(site: Site, written: str, sent: str) -> None:
    assert request_line(site, written) == f"GET {sent} HTTP/1.1"


@pytest.mark.parametrize("path", AS_WRITTEN)
def test_a_redirect_is_followed_as_written(site: Site, path: str) -> None:
    for location in (path.replace("//double", "/a//double"), f"{site.base}{path}"):
        site.replies["/go"] = reply("302 Found", Location=location)
        site.requests.clear()
        fetch_one(f"{site.base}/go", local(respect_opt_out=False))
        assert site.requests[1].split(" ")[1] == location.removeprefix(site.base)


def test_signed_links_get_their_picture(site: Site) -> None:
    signed = "/exact/p.jpg?Policy=a%2Fb%3A&Signature=x%40y%2Cz~"
    site.replies[signed] = reply(body=picture(1))
    site.replies["/go"] = reply("307 Temporary Redirect", Location=signed)
    assert fetch_one(site.base + signed, local())["status"] == "ok"
    assert fetch_one(f"{site.base}/go", local())["status"] == "ok"


def test_signed_links_are_held_to_robots_txt_by_what_they_mean(site: Site) -> None:
    site.replies["/robots.txt"] = reply(body=b"User-agent: *\nDisallow: /private~/\n")
    assert fetch_one(f"{site.base}/private%7e/p.jpg?a=%2f", local())["status"] == "opted_out"


@pytest.mark.parametrize(("url", "status"), NASTY.items(), ids=[ascii(url)[:40] for url in NASTY])
def test_nasty_texts_end_with_a_status(url: str, status: str) -> None:
    try:
        manifest([url])
    except (UnicodeError, ValueError):  # a lone surrogate never gets into a table
        assert outcome(lambda: parse_url(url)) == status
        return
    row = fetch_one(url, local(allow_private_addresses=False, respect_opt_out=False))
    assert row["status"] == status, row["error"]
    assert len(row["error"]) < 250
    assert "unexpected" not in row["error"]


PIECES = [
    "http://",
    "https:",
    "//",
    "/",
    "\\",
    "@",
    ":",
    "[",
    "]",
    "%",
    "%2f",
    "?",
    "#",
    "..",
    "\0",
    "\n",
    " ",
    "é",
    "127.1",
]


@examples(150)
@given(st.one_of(st.text(max_size=40), st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=3))).map("".join)))
def test_any_text_is_a_url_or_an_invalid_one(text: str) -> None:
    for candidate in (text, f"http://h/{text}", f"http://{text}"):
        url = outcome(lambda text=candidate: parse_url(text))
        if not isinstance(url, URL):
            assert url == "invalid_url"
            continue
        sent = str(url)
        assert re.fullmatch(r"https?://[\x21-\x7e]+", sent)  # no blank, no line end: no header can be injected
        assert re.fullmatch(r"/[\x21-\x7e]*", url.raw_path_qs)
        assert sent == str(parse_url(sent))
        assert not url.raw_user
        assert canonical_url(candidate) == canonical_url(sent) != ""  # removals find it by either spelling
        assert literal_address(url.raw_host or "") is None or "[" in sent or re.search(r"//[\d.]+[:/]", sent)


@examples(100)
@given(st.binary(max_size=40))
def test_any_location_is_a_url_or_an_invalid_one(location: bytes) -> None:
    base = URL("http://h/a/b?c", encoded=True)
    for text in (location, b"http://" + location, b"/" + location):
        url = outcome(lambda raw=text: redirect_target(raw.decode("utf-8", "surrogateescape"), base))
        assert re.fullmatch(r"https?://[\x21-\x7e]+|invalid_url", str(url))


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("../x?a=%2f", "http://h/x?a=%2f"),
        ("//other/y", "http://other/y"),
        ("?q=%2F", "http://h/a/b?q=%2F"),
        ("https:///h/x", None),
        ("\udce9\udcff.jpg", "http://h/a/%E9%FF.jpg"),
        ("/\u00e9.jpg", "http://h/%C3%A9.jpg"),
        ("http://[p: x]", None),
        ("http://b\u00fccher.example/", "http://xn--bcher-kva.example/"),
    ],
)
def test_where_a_redirect_leads(location: str, target: str | None) -> None:
    base = URL("http://h/a/b?c", encoded=True)
    if target is None:
        with pytest.raises(FetchFailure, match=r"^redirect: ") as caught:
            redirect_target(location, base)
        assert caught.value.status == "invalid_url"
    else:
        assert str(redirect_target(location, base)) == target


@pytest.mark.parametrize(
    "location", ["http://[p: x]", "http://[]@/", "http://h:99999/", "http:///x", "ftp://h/x", "http://%00/"]
)
def test_a_bad_redirect_is_an_invalid_url(site: Site, location: str) -> None:
    site.replies["/go"] = reply("302 Found", Location=location)
    row = fetch_one(f"{site.base}/go", local())
    assert row["status"] == "invalid_url"
    assert row["error"].startswith("redirect: ")


@pytest.mark.parametrize(
    "location",
    ["http://[p: x]", "http://169.254.169.254/", "http://[]@/", "ftp://h/", "/robots.txt", "https://127.0.0.1:{port}/"],
)
def test_a_robots_txt_that_redirects_badly_is_none(site: Site, location: str) -> None:
    site.replies["/robots.txt"] = reply("302 Found", Location=location.format(port=site.port))
    assert fetch_one(f"{site.base}/image/1", local())["status"] == "ok"


@pytest.mark.parametrize(
    ("host", "ascii_host"),
    [
        ("bücher.sample.test", "xn--bcher-kva.sample.test"),
        ("faß.sample.test", "xn--fa-hia.sample.test"),
        ("BÜCHER.sample.test", "xn--bcher-kva.sample.test"),
        ("日本。sample.test", "xn--wgv71a.sample.test"),
        ("a\u200bb.sample.test", "ab.sample.test"),
        ("A%62c.sample.test", "abc.sample.test"),
        ("user:secret@abc.sample.test", "abc.sample.test"),
    ],
)
def test_hosts_are_written_as_browsers_write_them(site: Site, host: str, ascii_host: str) -> None:
    policy = local(connect_to={"*.sample.test": ("127.0.0.1", site.port)})
    assert fetch_one(f"http://{host}/image/1", policy)["status"] == "ok"
    assert f"Host: {ascii_host}\r\n" in site.requests[-1]
    assert not any("secret" in head or "Authorization" in head for head in site.requests)


@examples(200)
@given(st.text(alphabet=st.sampled_from("0123456789abcdefx.:[]%@\\/"), max_size=20))
def test_hosts_in_any_spelling_reach_no_private_address(spelling: str) -> None:
    try:
        host = parse_url(f"http://{spelling}").raw_host or ""
    except FetchFailure:
        return
    address = literal_address(host)
    assert address is None or str(address) == host  # so that what was checked is what is connected to
    assert address is not None or not re.fullmatch(r"[\d.]+", host)


def test_a_fault_of_the_program_costs_one_row(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def faulty(text: str) -> URL:
        if "bad" in text:
            raise IndexError
        return parse_url(text)

    monkeypatch.setattr(download, "parse_url", faulty)
    with caplog.at_level(logging.CRITICAL):
        table = fetch_raw_images(manifest([f"{site.base}/image/1", "http://bad/", f"{site.base}/image/2"]), *local())
    assert table["status"].to_list() == ["ok", "invalid_url", "ok"]
    assert table["error"][1] == "unexpected IndexError"
