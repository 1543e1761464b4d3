"""Text of a list, or of a Location header, to the http(s) URL that is requested: as browsers read it (WHATWG URL standard).

What is valid goes out as it was written, byte for byte: signed links fail when an escape is spelt anew. Only what may not
stand in a request is escaped (blanks, other scripts, format characters, quotes); blanks at the ends and line ends within go;
``\\`` counts as ``/``; dot segments are resolved; hosts become ASCII (UTS #46), numbers in them addresses.
"""

from __future__ import annotations

import re
from typing import Final

import ada_url
from yarl import URL

from facecaption_ml.images.status import FetchFailure, FetchStatus
from facecaption_ml.urls import without_ends

_MAX_LENGTH: Final = 8_000
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
# Browsers also take http:/x, http:x and http:///x for http://x; where a list has them, the host is what got lost.
_WITH_HOST: Final = re.compile(r"https?:[/\\]{2}(?![/\\])", re.IGNORECASE)
_NO_HOST: Final = re.compile(r"https?:[/\\]{3}", re.IGNORECASE)
_PORT: Final = re.compile(r"https?:[/\\]*[^/\\?#]*:([0-9]+)(?:[/\\?#]|$)", re.IGNORECASE)
_HOST_NAME: Final = re.compile(r"(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?")
_LONGEST_NAME: Final = 254  # RFC 1035 §2.3.4, and the dot of the root
_NOT_ASCII: Final = re.compile(rb"[\x80-\xff]")
_IGNORED: Final = str.maketrans("", "", "\t\r\n")


def parse_url(text: str | None, base: URL | None = None) -> URL:
    """The http(s) URL that a browser asks for, without user, password and fragment. Raises FetchFailure invalid_url.

    ``base``: what a relative URL (of a redirect) is relative to. Lone surrogates are U+FFFD.
    """
    text = without_ends(text or "")
    if not text:
        raise _invalid("no URL")
    if len(text) > _MAX_LENGTH:
        raise _invalid(f"longer than {_MAX_LENGTH:,} characters")
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").translate(_IGNORED)
    try:
        if _NO_HOST.match(text) or (base is None and not _WITH_HOST.match(text)):
            raise ValueError
        parsed = ada_url.URL(text, base=None if base is None else str(base))
    except ValueError:
        raise _invalid(_what_is_wrong(text)) from None
    if parsed.protocol not in ("http:", "https:"):
        raise _invalid(f"scheme {parsed.protocol[:40].rstrip(':')!r} is not http or https")
    host = parsed.hostname
    if not host.startswith("[") and not (_HOST_NAME.fullmatch(host) and len(host) <= _LONGEST_NAME):
        raise _invalid(f"{host[:80]!r} is no name of a host")
    if parsed.port == "0":
        raise _invalid("port 0")
    return _as_written(parsed)


def redirect_target(location: str, base: URL) -> URL:
    """Where a Location header leads, as aiohttp gives it: bytes that are not UTF-8 as lone surrogates.

    Raises FetchFailure invalid_url.
    """
    raw = location.encode("utf-8", "surrogateescape")
    ascii_only = _NOT_ASCII.sub(lambda byte: b"%%%02X" % byte[0][0], raw).decode("ascii")
    try:
        return parse_url(ascii_only, base)
    except FetchFailure as failure:
        raise FetchFailure(failure.status, f"redirect: {failure.message}") from None


def _as_written(parsed: ada_url.URL) -> URL:
    """yarl's URL, which spells nothing anew; a query that is empty stays, which yarl would leave out, as part of the path."""
    parsed.username = parsed.password = parsed.hash = ""
    origin = f"{parsed.protocol}//{parsed.host}"
    target = parsed.href.removeprefix(origin).removesuffix("#")
    if target.endswith("?") and target.index("?") == len(target) - 1:
        scheme = parsed.protocol.removesuffix(":")
        return URL.build(scheme=scheme, authority=parsed.host, path=target, encoded=True)
    return URL(f"{origin}{target}", encoded=True)


def _what_is_wrong(text: str) -> str:
    scheme = _SCHEME.match(text)
    if scheme is None:
        return "no scheme"
    if scheme[1].lower() not in ("http", "https"):
        return f"scheme {scheme[1][:40]!r} is not http or https"
    port = _PORT.match(text)
    if port is not None and (len(port[1]) > 9 or int(port[1]) > 65_535):
        return f"port {port[1][:9]} is over 65535"
    return "no host, or characters in it that no name has"


def _invalid(message: str) -> FetchFailure:
    return FetchFailure(FetchStatus.invalid_url, message)
