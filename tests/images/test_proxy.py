"""Fetching through a real forward proxy, and what is said of one that is not used."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from pydantic import ValidationError

from facecaption_ml.images import DownloadPolicy
from facecaption_ml.images import proxy as proxy_module
from facecaption_ml.images.proxy import read_proxy
from forward_proxy import ForwardProxy, forward_proxy
from hostile_site import Site, picture, reply
from local_fetch import fetch_one, local
from loopback import free_port, stream_server


@pytest.fixture
def proxy(site: Site) -> Iterator[ForwardProxy]:
    with forward_proxy(site.port) as found:
        yield found


def through(proxy: ForwardProxy, login: str = "", **settings: object):  # type: ignore[no-untyped-def]
    return local(allow_private_addresses=False, proxy=f"http://{login}127.0.0.1:{proxy.port}", **settings)


def test_pictures_and_robots_txt_come_through_the_proxy(site: Site, proxy: ForwardProxy) -> None:
    row = fetch_one("http://no-such-host.invalid/image/1?a=%2f%40", through(proxy))
    assert row["image"]["bytes"] == picture(0)
    lines = [head.split("\r\n")[0] for head in proxy.requests]
    assert lines == [
        "GET http://no-such-host.invalid/robots.txt HTTP/1.1",
        "GET http://no-such-host.invalid/image/1?a=%2f%40 HTTP/1.1",
    ]
    site.replies["/robots.txt"] = reply(body=b"User-agent: *\nDisallow: /\n")
    assert fetch_one("http://no-such-host.invalid/image/1", through(proxy))["status"] == "opted_out"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Key and certificate of public.example, signed by itself."""
    file = tmp_path_factory.mktemp("tls") / "site.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "public.example")])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(1))
    names = x509.SubjectAlternativeName([x509.DNSName("public.example")])
    signed = built.add_extension(names, critical=False).sign(key, hashes.SHA256())
    unlocked = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(key.private_bytes(*unlocked) + signed.public_bytes(Encoding.PEM))
    return file


def test_pictures_come_through_a_tunnel(monkeypatch: pytest.MonkeyPatch, certificate: Path) -> None:
    trusting = ssl.create_default_context(cafile=str(certificate))
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    site = Site()
    with stream_server(site.handle, tls=server) as port, forward_proxy(port) as proxy:
        proxy.login = "Basic dTpw"
        row = fetch_one("https://public.example/image/1?a=%2f", through(proxy, "u:p@"))
        assert row["status"] == "ok", row["error"]
        assert fetch_one("https://other.example/image/1", through(proxy, "u:p@"))["status"] == "tls_error"
    assert proxy.requests[0].startswith("CONNECT public.example:443 HTTP/1.1\r\n")
    assert site.requested("/image/1?a=%2f") == 1
    assert not any("Proxy-" in head for head in site.requests)  # the login is for the proxy alone


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "[::1]", "10.0.0.1", "169.254.169.254", "[::ffff:a9fe:a9fe]"]
)
def test_private_addresses_are_refused_before_the_proxy_is_asked(site: Site, proxy: ForwardProxy, host: str) -> None:
    assert fetch_one(f"http://{host}/image/1", through(proxy))["status"] == "refused_address"
    assert proxy.requests == []
    site.replies["/go"] = reply("302 Found", Location=f"http://{host}/image/1")
    assert fetch_one("http://public.example/go", through(proxy))["status"] == "refused_address"
    assert not any(host.lower() in head.lower() for head in proxy.requests)


def test_a_proxy_that_wants_a_login(proxy: ForwardProxy) -> None:
    proxy.login = "Basic dTpwQHNz"  # u:p@ss
    assert fetch_one("http://public.example/image/1", through(proxy, "u:p%40ss@"))["status"] == "ok"
    for scheme in ("http", "https"):
        row = fetch_one(f"{scheme}://public.example/image/1", through(proxy, respect_opt_out=False))
        assert row["status"] == "connect_error"  # tried again by the next run
        assert row["error"].startswith("HTTP 407: the proxy wants a user and a password")


def test_a_proxy_that_fails_or_is_not_there(proxy: ForwardProxy) -> None:
    proxy.broken = True
    assert fetch_one("http://public.example/image/1", through(proxy))["status"] == "http_server_error"
    row = fetch_one("https://public.example/image/1", through(proxy))
    assert (row["status"], "the proxy answers HTTP 502" in row["error"]) == ("connect_error", True)
    gone = local(proxy=f"http://u:secret@127.0.0.1:{free_port()}", respect_opt_out=False)
    row = fetch_one("http://public.example/image/1", gone)
    assert (row["status"], row["error"]) == ("connect_error", "proxy: Connection refused")
    row = fetch_one("http://public.example/image/1", local(proxy="http://no-proxy.invalid:80", respect_opt_out=False))
    assert (row["status"], row["error"]) == ("dns_error", "proxy: no-proxy.invalid: no such name")


def test_what_is_connected_to_directly_goes_past_the_proxy(site: Site, proxy: ForwardProxy) -> None:
    policy, context = local(
        proxy=f"http://127.0.0.1:{proxy.port}", connect_to={"*.sample.test": ("127.0.0.1", site.port)}
    )
    assert fetch_one("http://a.sample.test/image/1", (policy, context))["status"] == "ok"
    assert proxy.requests == []


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "all_proxy"])
def test_the_environments_proxy_is_not_used_and_that_is_said(
    site: Site,
    proxy: ForwardProxy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    monkeypatch.setenv(name, f"http://u:secret@127.0.0.1:{proxy.port}")
    proxy_module.say_none_is_used.cache_clear()
    with caplog.at_level(logging.WARNING):
        row = fetch_one("http://no-such-host.invalid/x.jpg", local())
        assert fetch_one(f"{site.base}/image/1", local())["status"] == "ok"
    assert row["status"] == "dns_error"
    assert f"{name} is set but not used: the setting `proxy` names none" in row["error"]
    assert [record.message for record in caplog.records if "is set but not used" in record.message] == [
        f"{name} is set but not used: pictures are fetched without a proxy unless the setting `proxy` names one"
    ]
    assert proxy.requests == []
    assert "secret" not in caplog.text + row["error"]
    with caplog.at_level(logging.WARNING):
        proxy_module.say_none_is_used.cache_clear()
        caplog.clear()
        fetch_one("http://public.example/image/1", through(proxy))
    assert "not used" not in caplog.text


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        ("proxy.example:3128", "http://proxy.example:3128"),
        (" HTTP://u:p@Proxy.example:3128/ ", "http://proxy.example:3128"),
        ("https://[::1]:3129", "https://[::1]:3129"),
    ],
)
def test_proxies_are_read(text: str, url: str) -> None:
    found = read_proxy(text)
    assert found is not None
    assert found.url == url
    assert "u:p" not in repr(found)
    assert read_proxy("  ") is None


@pytest.mark.parametrize(
    "text",
    [
        "http://u:secret@proxy.example",
        "socks5://u:secret@proxy.example:1080",
        "http://u:secret@:3128",
        "http://u:secret@proxy.example:99999",
        "http://u:secret@proxy.example:3128/path",
        "http://u:secret@[::1:3128",
        "http://u:sec\nret@proxy.example:3128",
    ],
)
def test_a_proxy_that_is_none_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        DownloadPolicy(proxy=text)
    message = caught.value.errors()[0]["msg"]
    assert "ret" not in message
    assert "proxy" in message or "http://host:port" in message


def test_the_password_is_not_shown() -> None:
    policy = DownloadPolicy(proxy="http://u:secret@proxy.example:3128")
    assert "secret" not in f"{policy!r} {policy} {policy.model_dump()} {policy.model_dump_json()}"
