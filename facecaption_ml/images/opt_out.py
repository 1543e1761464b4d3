"""Whether a site asks that its pictures stay out of data sets: response headers and robots.txt.

Headers: X-Robots-Tag with noai, noimageai, noindex, noimageindex, noml or none (which implies noindex), and the W3C TDM
Reservation Protocol's ``tdm-reservation: 1``. Robots.txt: RFC 9309, which Protego follows and the standard library's parser
(first match instead of longest, no wildcards) does not.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from multidict import CIMultiDictProxy
from protego import Protego
from yarl import URL

from facecaption_ml.images.status import FetchFailure, FetchStatus

_OPT_OUTS: Final = frozenset({"noai", "noimageai", "noindex", "noimageindex", "noml", "none"})
# Directives that are written with a colon and so are not a crawler's name.
_VALUED_DIRECTIVES: Final = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
_PRODUCT_TOKEN: Final = re.compile(r"[A-Za-z_-]+")
_RECORD: Final = re.compile(r"\s*(?P<key>user-agent|allow|disallow)\s*:(?P<value>[^#]*)", re.IGNORECASE)
_SOMEBODY_ELSE: Final = "~"  # no product token
_MAX_RECORDS: Final = 10_000
_CACHED_ORIGINS: Final = 10_000


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


class RobotsRules:
    """The rules of one robots.txt (RFC 9309), for one crawler."""

    def __init__(self, text: str, agent_token: str) -> None:
        """Those of the groups that name ``agent_token`` (lower case), else of those for ``*``."""
        lines = text.removeprefix("\ufeff").splitlines()
        self._rules = Protego.parse("\n".join(islice(_records(lines, agent_token), _MAX_RECORDS)))
        self._agent_token = agent_token

    def allows(self, path: str) -> bool:
        """Whether ``path`` (with its query, percent-encoded) may be fetched; the longest matching pattern decides."""
        return self._rules.can_fetch(f"http://host{path}", self._agent_token)


def _records(lines: Iterable[str], agent_token: str) -> Iterator[str]:
    """Lines for Protego, which would let others (Crawl-delay) end a group, and would take part of a crawler's name for it.

    Of a user agent only the product token counts (§2.2.1); all that are neither this crawler nor ``*`` become one.
    """
    for line in lines:
        match = _RECORD.match(line)
        if match is None:
            continue
        key, value = match["key"], match["value"].strip()
        if key.lower() == "user-agent":
            token = _PRODUCT_TOKEN.match(value)
            name = token.group().lower() if token else value[:1]
            value = name if name in (agent_token, "*") else _SOMEBODY_ELSE
        yield f"{key}: {value}"


class RobotsCache:
    """Answers whether a URL may be fetched; several rows of one origin wait for one request.

    Where robots.txt cannot be read for a server's or the network's fault, nothing of that origin is fetched (RFC 9309
    §2.3.1.4): the row fails with that fault's status, which may pass, and the next run asks again. The cache lives as
    long as one run of a shard, well under the day that the RFC allows.
    """

    def __init__(self, read: Callable[[URL], Awaitable[str]], agent_token: str) -> None:
        self._read = read
        self._agent_token = agent_token
        self._rules: OrderedDict[str, asyncio.Task[RobotsRules | FetchFailure]] = OrderedDict()

    async def require_allowed(self, url: URL) -> None:
        """Raises FetchFailure: opted_out, or why the origin's robots.txt could not be read."""
        origin = url.origin()
        key = str(origin)
        task = self._rules.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._fetch_rules(origin))
            self._rules[key] = task
            if len(self._rules) > _CACHED_ORIGINS:
                self._rules.popitem(last=False)
        rules = task.result() if task.done() else await asyncio.shield(task)
        if isinstance(rules, FetchFailure):
            raise FetchFailure(rules.status, f"robots.txt: {rules.message}")
        if not rules.allows(url.raw_path_qs):
            raise FetchFailure(FetchStatus.opted_out, f"robots.txt disallows {self._agent_token}")

    async def _fetch_rules(self, origin: URL) -> RobotsRules | FetchFailure:
        """A failure is returned, not raised: any number of rows may wait for it, or none."""
        try:
            return RobotsRules(await self._read(origin), self._agent_token)
        except FetchFailure as failure:
            return failure
