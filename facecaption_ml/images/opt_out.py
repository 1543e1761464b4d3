"""Whether a site asks that its pictures stay out of data sets: response headers and robots.txt.

Headers: X-Robots-Tag with noai, noimageai, noindex, noimageindex, noml or none (which implies noindex), and the W3C TDM
Reservation Protocol's ``tdm-reservation: 1``. Robots.txt: RFC 9309, which the standard library's parser (first match
instead of longest, no wildcards) does not follow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from multidict import CIMultiDictProxy

_OPT_OUTS: Final = frozenset({"noai", "noimageai", "noindex", "noimageindex", "noml", "none"})
# Directives that are written with a colon and so are not a crawler's name.
_VALUED_DIRECTIVES: Final = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_PRODUCT_TOKEN: Final = re.compile(r"[A-Za-z_-]+")
_MAX_RULES: Final = 10_000


def opt_out_in_headers(headers: CIMultiDictProxy[str], agent_token: str) -> str | None:
    """The header line, as ``name: directive``, by which a response opts out, None if it does not.

    A directive behind ``somebot:`` counts only if somebot is ``agent_token`` (lower case) or ``*``.
    """
    for line in headers.getall("X-Robots-Tag", ()):
        directive = _robots_tag_opt_out(line, agent_token)
        if directive is not None:
            return f"X-Robots-Tag: {directive}"
    if any(value.strip() == "1" for value in headers.getall("TDM-Reservation", ())):
        return "TDM-Reservation: 1"
    return None


def _robots_tag_opt_out(line: str, agent_token: str) -> str | None:
    addressed = True
    for part in line.lower().split(","):
        name, colon, rest = part.partition(":")
        directive = part.strip()
        if colon and name.strip() not in _VALUED_DIRECTIVES:  # a name holds for all directives up to the next name
            addressed = name.strip() in ("*", agent_token)
            directive = rest.strip()
        if addressed and directive in _OPT_OUTS:
            return directive
    return None


@dataclass(frozen=True)
class RobotsRules:
    """The rules of one robots.txt that apply to one crawler, longest pattern first, Allow before Disallow."""

    rules: tuple[tuple[str, bool], ...] = ()

    @classmethod
    def parse(cls, text: str, agent_token: str) -> RobotsRules:
        """The rules of the groups that name ``agent_token`` (lower case), else of those for ``*`` (RFC 9309 §2.2.1)."""
        groups = _rules_by_agent(text.removeprefix("\ufeff").splitlines())
        mine = groups.get(agent_token, groups.get("*", []))
        return cls(tuple(sorted(set(mine), key=lambda rule: (-len(rule[0]), not rule[1], rule[0]))))

    def allows(self, path: str) -> bool:
        """Whether ``path`` (with its query, percent-encoded) may be fetched; the longest matching pattern decides."""
        if not self.rules or path == "/robots.txt":
            return True
        path = _normal_escapes(path)
        return next((allowed for pattern, allowed in self.rules if _matches(pattern, path)), True)


def _rules_by_agent(lines: Iterable[str]) -> Mapping[str, list[tuple[str, bool]]]:
    groups: dict[str, list[tuple[str, bool]]] = {}
    agents: list[str] = []
    in_rules = False
    kept = 0
    for line in lines:
        key, colon, value = line.partition("#")[0].partition(":")
        key, value = key.strip().lower(), value.strip()
        if not colon or key not in ("user-agent", "allow", "disallow"):
            continue
        if key == "user-agent":
            agents = [] if in_rules else agents
            in_rules = False
            agents.append(_agent_name(value))
            groups.setdefault(agents[-1], [])
            continue
        in_rules = True
        if value and kept < _MAX_RULES:
            kept += 1
            for agent in agents:
                groups[agent].append((_normal_escapes(value), key == "allow"))
    return groups


def _agent_name(value: str) -> str:
    token = _PRODUCT_TOKEN.match(value)
    return token.group().lower() if token else value[:1]


def _matches(pattern: str, path: str) -> bool:
    """``*`` stands for any run of characters, a final ``$`` for the end (RFC 9309 §2.2.3); linear in the path."""
    anchored = pattern.endswith("$")
    first, *others = (pattern[:-1] if anchored else pattern).split("*")
    if not path.startswith(first):
        return False
    position = len(first)
    last = others.pop() if anchored and others else None
    for piece in others:
        found = path.find(piece, position)
        if found < 0:
            return False
        position = found + len(piece)
    if not anchored:
        return True
    if last is None:
        return position == len(path)
    return path.endswith(last) and len(path) - len(last) >= position


def _normal_escapes(text: str) -> str:
    """Percent-encoding brought to one form: only what must be escaped is, in capitals (RFC 9309 §2.2.2)."""
    escaped = quote(text, safe="%/?:@!$&'()*+,;=~[]#")
    return re.sub(r"%([0-9A-Fa-f]{2})", _normal_escape, escaped)


def _normal_escape(match: re.Match[str]) -> str:
    character = chr(int(match.group(1), 16))
    unreserved = character.isascii() and (character.isalnum() or character in "-._~")
    return character if unreserved else match.group().upper()
