"""One normal form of URLs and hosts, so that two spellings of one address compare equal.

It is for comparing only: what is fetched, stored and shown stays as it was written. The rules are those of RFC 3986 §6.2
(case, percent-escapes, dot segments, default ports) and, for what people and browsers write, of the WHATWG URL standard
(blanks at the ends, tabs and line ends within, numbers as IPv4 addresses, names in other scripts). Of an http(s) URL the
fragment, the user and an empty query are left out, as they never select another picture; ``file://`` URLs compare by the
bytes of their path, ``s3://`` URLs by bucket and key, in which nothing is an escape.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

import idna

_SCHEME: Final = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://", re.ASCII)
_WEB: Final = re.compile(r"(https?):[/\\]{2}", re.ASCII | re.IGNORECASE)
_LINE_ENDS: Final = str.maketrans("", "", "\t\r\n")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_LAST_PORT: Final = 65_535
_LONGEST: Final = 4_000
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})|[^%]+|%", re.ASCII)
# RFC 3986 §2.3, and the marks that RFC 2396 §2.3 called unreserved too: many programs escape them, no server tells them apart.
_UNRESERVED: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!*'()")
_KEPT: Final = "!*'()~$&+,;=:@/"  # of what is no escape; the query has "?" as well
_NO_NAME: Final = re.compile(r"[\x00-\x20\x7f#/:<>?@\[\\\]^|%\ufffd]")  # WHATWG's forbidden host code points
# Without Cn: newer Unicode than Python's has names with them.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zs", "Zl", "Zp"})
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
# What is in normal form already, as nearly all URLs of a list are.
_NORMAL: Final = re.compile(
    r"https?://(?:[a-z0-9_][a-z0-9_-]*\.)+[a-z][a-z0-9-]*(?:/[\w~!*'()$&+,;=:@-]+(?:\.[\w~!*'()$&+,;=:@-]+)*)+"
    r"(?:\?[\w.~!*'()$&+,;=:@/?-]+)?",
    re.ASCII,
)


def canonical_url(text: str | None) -> str:
    """The normal form of a URL, empty for what is none. Never raises; the normal form of a normal form is itself."""
    text = text or ""
    if len(text) <= _LONGEST and _NORMAL.fullmatch(text):
        return text
    text = _written_out(without_ends(text))
    parts = _SCHEME.match(text)
    if not parts:
        return ""
    scheme, rest = parts[1].lower(), text[parts.end() :]
    if scheme == "s3":
        bucket, slash, key = rest.partition("/")
        return f"s3://{bucket.lower()}{slash}{key}" if bucket else ""
    rest = rest.translate(_LINE_ENDS).partition("#")[0]
    authority = re.match(r"[^/?]*", rest)
    assert authority is not None
    path, _, query = rest[authority.end() :].partition("?")
    if scheme == "file":
        host = canonical_host(authority[0])
        if authority[0] and not host:
            return ""
        return f"file://{'' if host == 'localhost' else host}{_file_path(path)}"
    place = _place(authority[0], _DEFAULT_PORTS.get(scheme))
    if not place:
        return ""
    query = _escaped(query, f"{_KEPT}?")
    return f"{scheme}://{place}{_without_dots(_escaped(path, _KEPT))}{'?' if query else ''}{query}"


@lru_cache(4096)
def canonical_host(text: str | None) -> str:
    """The normal form of a host name or address (IPv6 in brackets or without), empty for what is none. Never raises.

    Lower case, other scripts in punycode, without the trailing dot; ``0x7f.1`` is ``127.0.0.1``. Ports and wildcards are no
    part of a host.
    """
    text = without_ends(text or "")
    if len(text) > _LONGEST:  # a name has 253 characters at most, however they are written
        return ""
    if text.startswith("[") == text.endswith("]") and ":" in text:
        try:
            return f"[{IPv6Address(text.strip('[]'))}]"
        except ValueError:
            return ""
    if "%" in text:
        text = unquote_to_bytes(text.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")
    try:
        name = idna.uts46_remap(text, std3_rules=False, transitional=False)
    except (idna.IDNAError, ValueError, IndexError):  # has characters of no name, yet a list may have it
        name = unicodedata.normalize("NFKC", text).lower()
    name = name.removesuffix(".")
    if not name or _NO_NAME.search(name) or any(unicodedata.category(character) in _UNSEEN for character in name):
        return ""
    labels = [_ascii_label(label) for label in name.split(".")]
    if not all(labels):
        return ""
    if _NUMBER.fullmatch(labels[-1]):
        return _ipv4(labels)
    return ".".join(labels)


def host_of(url: str | None) -> str:
    """The normal form of a URL's host (of ``s3://`` its bucket), empty where it has none. Never raises."""
    _, _, rest = canonical_url(url).partition("://")
    place = rest.partition("/")[0]
    return place if place.endswith("]") else re.sub(r":[0-9]+$", "", place)


def without_ends(text: str) -> str:
    """Without blanks and control characters at both ends, and without byte order marks and their like before the URL."""
    start, end = 0, len(text)
    while start < end and (text[start].isspace() or text[start] < " " or unicodedata.category(text[start]) == "Cf"):
        start += 1
    while end > start and (text[end - 1].isspace() or text[end - 1] < " "):
        end -= 1
    return text[start:end]


def _written_out(text: str) -> str:
    """A web address with ``/`` where browsers also take ``\\``; other texts as they are."""
    bare = text.translate(_LINE_ENDS)
    web = _WEB.match(bare)
    if not web:
        return text
    where, mark, query = bare[web.end() :].partition("?")
    where, fragment, _ = where.partition("#")
    rest = where.replace("\\", "/") + ("" if fragment else mark + query)
    return f"{web[1]}://{_SURROGATE.sub(chr(0xFFFD), rest)}"


def _place(authority: str, default_port: int | None) -> str:
    """``host`` or ``host:port`` of an authority, without the user; empty where either is wrong."""
    where = authority.rpartition("@")[2]
    end = where.rfind("]") + 1 or None
    name, colon, port = where.rpartition(":") if ":" in where[end or 0 :] else (where, "", "")
    host = canonical_host(name)
    if not host or not (port.isascii() and (port.isdigit() or not port)):
        return ""
    number = int(port) if 0 < len(port.lstrip("0")) <= 5 else 0
    if colon and port and not 0 < number <= _LAST_PORT:
        return ""
    return f"{host}:{number}" if number and number != default_port else host


def _ascii_label(label: str) -> str:
    """A mapped label in punycode where it has other scripts, as browsers write it; empty where it cannot be written."""
    if label.isascii():
        return label
    try:
        return f"xn--{label.encode('punycode').decode('ascii').lower()}"
    except (UnicodeError, ValueError):
        return ""


def _ipv4(labels: list[str]) -> str:
    """The address that one to four numbers spell (decimal, 0x…, or octal with a leading 0), empty where they spell none."""
    numbers = []
    for label in labels:
        if not _NUMBER.fullmatch(label) or len(label) > 16:
            return ""
        digits, base = (label[2:] or "0", 16) if label.startswith("0x") else (label, 8 if label[0] == "0" else 10)
        try:
            numbers.append(int(digits, base))
        except ValueError:
            return ""
    *first, last = numbers
    if len(first) > 3 or any(number > 255 for number in first) or last >= 256 ** (4 - len(first)):
        return ""
    return str(IPv4Address(sum(number << (24 - 8 * place) for place, number in enumerate(first)) + last))


def _escaped(text: str, kept: str) -> str:
    """Escapes of unreserved characters decoded, the others in capitals, and all that needs one escaped."""
    parts = []
    for part in _ESCAPE.finditer(text):
        if part[1]:
            byte = int(part[1], 16)
            parts.append(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}")
        elif part[0] == "%":
            parts.append("%25")
        else:
            parts.append(quote_from_bytes(part[0].encode("utf-8", "surrogatepass"), kept))
    return "".join(parts)


def _without_dots(path: str) -> str:
    """RFC 3986 §5.2.4: no segments . and .. are left; an empty path is ``/``."""
    kept: list[str] = []
    segments = path.removeprefix("/").split("/")
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _file_path(path: str) -> str:
    """A file's path by its bytes: as the file system reads it, repeated slashes are one."""
    raw = b"".join(_path_bytes(character) for character in path)
    return _without_dots(re.sub(r"/+", "/", quote_from_bytes(unquote_to_bytes(raw), _KEPT)))


def _path_bytes(character: str) -> bytes:
    """Lone surrogates U+DC80–U+DCFF stand for the bytes of a name that is no UTF-8, as in ``os.fsdecode``."""
    code = ord(character)
    return bytes([code - 0xDC00]) if 0xDC80 <= code <= 0xDCFF else character.encode("utf-8", "surrogatepass")
