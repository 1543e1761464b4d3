"""The rules of a robots.txt for one crawler (RFC 9309), read and matched at a cost that no file can raise.

Measured against Protego 0.7, which keeps the rules of all crawlers and tries each one with a wildcard on every path: up to
0.3 s a URL and 30 MB for files of 512 KiB; it also takes a group of ``face`` for one of ``facecaption``, and not one of
``FaceCaption/1.0``. Here bytes are read once, literal rules are looked up by the prefixes of a path, and rules with wildcards
are tried longest first, up to a limit: at most some 20 ms a URL and 5 MB. Misspelt keys are read as Google and Protego do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple

MOST_BYTES: Final = 512 * 1024
"""Read of a file; RFC 9309 §2.5 asks for at least 500 KiB."""
_MOST_RULES: Final = 12_000  # for this crawler; further ones are not read
_MOST_AGENT_LINES: Final = 20_000
_LONGEST_PATTERN: Final = 24_000  # bytes; no path that is fetched is longer
_RULE_BYTES, _PIECE_BYTES = 150, 90  # in memory, beside the pattern's own
_MOST_WORK: Final = 4_000_000  # bytes of path that one URL's wildcards may be searched through, some 20 ms
_LONG_SEARCH: Final = 100_000  # from here on it pays to look first which pieces cannot be in the path

_FLAGS: Final = re.IGNORECASE | re.MULTILINE
_OURS, _EVERYBODY = 1, 2
# Keys and values of a line; lines of other keys (Sitemap, Crawl-delay) are no records and end no group.
_DISALLOW: Final = rb"(?:disallow|dissallow|dissalow|disalow|diasllow|disallaw)"
_COLON: Final = rb"(?:[ \t]*+:[ \t]*+|[ \t]++(?=[^\s#:]\S*+[ \t]*+(?:#|$)))"  # or a blank, before a single word
_ANY_RULE: Final = re.compile(rb"^[ \t]*+(?:allow|%b)%b" % (_DISALLOW, _COLON), _FLAGS)
_RULE: Final = re.compile(rb"^[ \t]*+(?:allow|(%b))%b([^\s#][^\n#]*+)" % (_DISALLOW, _COLON), _FLAGS)
_STARS: Final = re.compile(rb"\*\*+")
_HEX: Final = "0123456789abcdefABCDEF"
_DECODED: Final = {
    (high + low).encode(): b"%%%02X" % code if (code := int(high + low, 16)) in b"/%*$" else bytes([code])
    for high in _HEX
    for low in _HEX
}
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")


class _Wildcard(NamedTuple):
    length: int  # of the pattern, which decides between rules that match
    allow: bool
    head: bytes  # before the first *
    middle: tuple[bytes, ...]  # between two, in order, none of them empty
    tail: bytes | None  # after the last, where the pattern is anchored with $


class RobotsRules:
    """The rules of one robots.txt, for one crawler: those of the groups that name it, else of those for ``*``.

    ``bytes_held``: of memory, roughly.
    """

    def __init__(self, text: str | bytes, agent_token: str) -> None:
        """``agent_token``: the crawler's product name, lower case. Any bytes are a robots.txt."""
        data = _plain_lines(text.encode("utf-8", "replace") if isinstance(text, str) else text)
        self._prefixes: dict[bytes, bool] = {}  # pattern → whether it allows
        self._whole: dict[bytes, bool] = {}  # of those anchored with $
        wildcards: dict[bytes, bool] = {}
        for pattern, allow in _rules_of(data, agent_token.encode()):
            kind = wildcards if b"*" in pattern else self._whole if pattern.endswith(b"$") else self._prefixes
            kind[pattern] = allow or kind.get(pattern, False)  # of equal rules the allowing one wins (§2.2.2)
        self.bytes_held = _bytes_held((*self._prefixes, *self._whole, *wildcards))
        self._lengths = sorted({len(pattern) for pattern in self._prefixes}, reverse=True)
        self._wildcards = sorted(
            (_wildcard(*rule) for rule in wildcards.items()), key=lambda w: (-w.length, not w.allow)
        )

    def allows(self, path: str) -> bool:
        """Whether ``path`` (with its query) may be fetched; the longest matching pattern decides.

        A path whose rules would take too long to search is not fetched: no honest file comes near that.
        """
        octets = _normal(path.encode("utf-8", "replace")).replace(b"*", b"%2A").replace(b"$", b"%24")
        if octets == b"/robots.txt":  # §2.2.2: implicitly allowed
            return True
        length, allowed = self._literal(octets)
        grams: set[bytes] | None = None
        if len(octets) * len(self._wildcards) > _LONG_SEARCH:
            grams = {octets[i : i + 2] for i in range(len(octets))} | {octets[i : i + 3] for i in range(len(octets))}
        work = 0
        for rule in self._wildcards:
            if rule.length < length or (rule.length == length and allowed):
                break
            if work > _MOST_WORK:
                return False
            if not octets.startswith(rule.head):
                continue
            if grams is not None and any(piece[:3] not in grams for piece in rule.middle):
                continue
            matches, searched = _search(rule, octets)
            work += searched
            if matches:
                return rule.allow
        return allowed

    def _literal(self, octets: bytes) -> tuple[int, bool]:
        """Length and answer of the longest rule without wildcard that matches; -1 and True where none does."""
        best = (-1, True)
        whole = self._whole.get(octets + b"$")
        if whole is not None:
            best = (len(octets) + 1, whole)
        for length in self._lengths:
            if length < best[0]:
                break
            allow = self._prefixes.get(octets[:length]) if length <= len(octets) else None
            if allow is not None:
                return max(best, (length, allow))
        return best


def _bytes_held(patterns: Iterable[bytes]) -> int:
    """Of memory, roughly, for as long as the rules are kept."""
    return sum(_RULE_BYTES + len(pattern) + _PIECE_BYTES * pattern.count(b"*") for pattern in patterns)


def _plain_lines(data: bytes) -> bytes:
    """The file's first bytes as lines that end with a line feed, without byte order mark and NULs (UTF-16 without one)."""
    data = data[:MOST_BYTES]
    if data[:2] in _UTF16:
        data = data.decode("utf-16", "replace").encode("utf-8", "replace")
    return data.removeprefix(b"\xef\xbb\xbf").translate(None, b"\0").replace(b"\r", b"\n")


def _rules_of(data: bytes, agent: bytes) -> Iterator[tuple[bytes, bool]]:
    """Patterns, and whether they allow, of the groups that hold for ``agent``."""
    groups = _groups(data, agent)
    wanted = _OURS if any(audience & _OURS for audience, _, _ in groups) else _EVERYBODY
    held = (rule for to, begin, end in groups if to & wanted for rule in _RULE.finditer(data, begin, end))
    for rule in islice(held, _MOST_RULES):
        pattern = _STARS.sub(b"*", rule[2].strip())
        if len(pattern) <= _LONGEST_PATTERN:
            yield _as_path(pattern), not rule[1]


def _groups(data: bytes, agent: bytes) -> list[tuple[int, int, int]]:
    """Of each run of rules whether it is for ``agent`` and for ``*``, as bits, and where it lies.

    A group begins with any number of User-agent lines; only the product token of each counts (§2.2.1).
    """
    ours = re.escape(agent)
    agents = re.compile(rb"^[ \t]*+user[ -]?agent%b(?:(%b)(?![a-z_-])|(\*)|)" % (_COLON, ours), _FLAGS)
    groups: list[tuple[int, int, int]] = []
    audience = begin = 0
    started = False
    for line in islice(agents.finditer(data), _MOST_AGENT_LINES):
        if started and _ANY_RULE.search(data, begin, line.start()):
            _close(groups, audience, begin, line.start())
            audience = 0
        started = True
        audience |= line.lastindex or 0  # the group of the expression that matched is the bit
        begin = line.end()
    _close(groups, audience, begin, len(data))
    return groups


def _close(groups: list[tuple[int, int, int]], audience: int, begin: int, end: int) -> None:
    """Adds a group; one for the same crawlers as the group before it only makes that one longer."""
    if groups and groups[-1][0] == audience:
        begin = groups.pop()[1]
    groups.append((audience, begin, end))


def _as_path(pattern: bytes) -> bytes:
    """A pattern in the normal form of paths. One without the leading slash means the same as with it."""
    anchored = pattern.endswith(b"$")
    pattern = _normal(pattern[:-1] if anchored else pattern).replace(b"$", b"%24")
    return (pattern if pattern[:1] in (b"/", b"*") else b"/" + pattern) + (b"$" if anchored else b"")


def _normal(octets: bytes) -> bytes:
    """Octets with their percent-escapes decoded, as both sides are compared (§2.2.2); those of / % * $ stay."""
    if b"%" not in octets:
        return octets
    head, *pieces = octets.split(b"%")
    return head + b"".join([_DECODED.get(piece[:2], b"%" + piece[:2]) + piece[2:] for piece in pieces])


def _wildcard(pattern: bytes, allow: bool) -> _Wildcard:
    head, *pieces = pattern.removesuffix(b"$").split(b"*")
    tail = pieces.pop() if pattern.endswith(b"$") else None
    return _Wildcard(len(pattern), allow, head, tuple(filter(None, pieces)), tail)


def _search(rule: _Wildcard, path: bytes) -> tuple[bool, int]:
    """Whether the pattern matches a path that has its head, and how many bytes were searched through.

    Each piece is taken where it first occurs: a later place could only leave less for the pieces after it.
    """
    start = place = len(rule.head)
    for piece in rule.middle:
        found = path.find(piece, place)
        if found < 0:
            return False, len(path) - start
        place = found + len(piece)
    matches = rule.tail is None or (len(path) - place >= len(rule.tail) and path.endswith(rule.tail))
    return matches, place - start
