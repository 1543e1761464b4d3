"""Whether a site asks that its pictures stay out of data sets: response headers and robots.txt.

Headers: X-Robots-Tag with noai, noimageai, noindex, noimageindex, noml, none (which implies noindex) or an unavailable_after
that has passed, and the W3C TDM Reservation Protocol's ``tdm-reservation: 1``. Robots.txt: RFC 9309, read by robots_rules.
"""

from __future__ import annotations

import asyncio
import calendar
import functools
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from multidict import CIMultiDictProxy
from yarl import URL

from facecaption_ml.images.content_coding import codings_of, decoded
from facecaption_ml.images.robots_rules import MOST_BYTES, RobotsRules
from facecaption_ml.images.status import FetchFailure, FetchStatus

_OPT_OUTS: Final = frozenset({"noai", "noimageai", "noindex", "noimageindex", "noml", "none"})
_UNAVAILABLE_AFTER: Final = "unavailable_after"
# Directives that are written with a colon and so are not a crawler's name.
_VALUED_DIRECTIVES: Final = frozenset({_UNAVAILABLE_AFTER, "max-snippet", "max-image-preview", "max-video-preview"})
_CRAWLER_NAME: Final = re.compile(r"(\*|[a-z][a-z0-9_.-]*)(?:/[a-z0-9_.-]*)?")
_BETWEEN_WORDS: Final = re.compile(r"[\s;\"']+")  # where there should be commas
_LOOSE_DATE: Final = re.compile(
    r"(?:[A-Z]{3,9},? )?(?:(?P<day>\d{1,2})[ -](?P<month>[A-Z]{3})[A-Z]*,?[ -](?P<year>\d{4})"
    r"|(?P<month2>[A-Z]{3})[A-Z]* (?P<day2>\d{1,2}),? (?P<year2>\d{4})"
    r"|(?P<year3>\d{4})[/-](?P<month3>\d{1,2})[/-](?P<day3>\d{1,2}))"
    r"(?:,?[ T](?P<time>\d{1,2}:\d\d(?::\d\d)?))?(?: (?P<zone>UTC|GMT|[CEMP][DS]T|[+-]\d{4}))?",
    re.ASCII,
)
_DATE_PARTS: Final = 3  # commas that a date may hold: Friday, June 25, 2010, 15:00
_LONGEST_LINE: Final = 8_192  # characters of a header that are looked at
_CACHED_ORIGINS: Final = 10_000
_CACHED_BYTES: Final = 64 * 2**20  # of rules of all origins, whatever their number: some 400,000 rules
_GZIP: Final = b"\x1f\x8b"
_LARGE_FILE: Final = 32_768  # bytes; larger ones are read beside the event loop


def opt_out_in_headers(headers: CIMultiDictProxy[str], agent_token: str, now: datetime | None = None) -> str | None:
    """The header line, as ``name: directive``, by which a response opts out, None if it does not.

    A directive behind ``somebot:`` counts only if somebot is ``agent_token`` (lower case) or ``*``. A date that nobody can
    read is no directive; one without a zone is taken as UTC. ``now``: with a zone; by default the present.
    """
    now = now or datetime.now(UTC)
    for line in headers.getall("X-Robots-Tag", ()):
        for agent, directive, value in _directives(line[:_LONGEST_LINE].lower()):
            passed = directive == _UNAVAILABLE_AFTER and (date := _date(value)) is not None and date <= now
            asked = directive if passed else next((w for w in _BETWEEN_WORDS.split(directive) if w in _OPT_OUTS), None)
            if asked is not None and agent in ("*", agent_token):
                return f"X-Robots-Tag: {asked}: {value}" if passed else f"X-Robots-Tag: {asked}"
    if any(value.strip() == "1" for value in headers.getall("TDM-Reservation", ())):
        return "TDM-Reservation: 1"
    return None


def _directives(line: str) -> Iterator[tuple[str, str, str]]:
    """Crawler, directive and value of each directive of a line, in lower case; ``*`` where no crawler is named.

    A name holds for all directives up to the next name. A date may hold commas and colons of its own.
    """
    parts = line.split(",")
    agent, place = "*", 0
    while place < len(parts):
        directive, _, value = (text.strip() for text in parts[place].partition(":"))
        name = _CRAWLER_NAME.fullmatch(directive)
        if ":" in parts[place] and directive not in _VALUED_DIRECTIVES and name:
            agent = name[1]
            directive, _, value = (text.strip() for text in value.partition(":"))
        place += 1
        if directive == _UNAVAILABLE_AFTER:
            for more in range(min(_DATE_PARTS, len(parts) - place), 0, -1):
                longer = ",".join([value, *parts[place : place + more]])
                if _date(longer) is not None:
                    value, place = longer, place + more
                    break
        yield agent, directive, value


def _date(text: str) -> datetime | None:
    """A date by RFC 822, RFC 850 or ISO 8601, or without what these ask for (weekday, time, zone); None for other text."""
    for read in (datetime.fromisoformat, parsedate_to_datetime, _loose_date):
        try:
            date = read(text.strip().upper())
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        return date if date.tzinfo else date.replace(tzinfo=UTC)
    return None


def _loose_date(text: str) -> datetime:
    """Raises TypeError for what is no date, ValueError or IndexError for a day or month that there is not."""
    part = _LOOSE_DATE.fullmatch(text)
    if part is None:
        raise TypeError
    day, year = part["day"] or part["day2"] or part["day3"], part["year"] or part["year2"] or part["year3"]
    month = part["month"] or part["month2"] or calendar.month_abbr[int(part["month3"])]
    return parsedate_to_datetime(f"{day} {month} {year} {part['time'] or '00:00'} {part['zone'] or 'GMT'}")


def decoded_robots(body: bytes, codings: Iterable[str] = ()) -> bytes:
    """The first bytes of a robots.txt without the content codings of these lines, which servers apply though nobody asked.

    A file that lies there compressed and is served as it is, is read too. Raises FetchFailure for layers without end.
    """
    names = codings_of(codings)
    plain = decoded(body, names, MOST_BYTES, lambda _: True, cut=True)
    return decoded(plain, ["gzip"], MOST_BYTES, lambda _: True, cut=True) if plain[:2] == _GZIP else plain


class RobotsCache:
    """Answers whether a URL may be fetched; several rows of one origin wait for one request.

    Where robots.txt cannot be read for a server's or the network's fault, nothing of that origin is fetched (RFC 9309
    §2.3.1.4): the row fails with that fault's status, and where that may pass the next run asks again. The cache lives as
    long as one run of a shard, well under the day that the RFC allows.
    """

    def __init__(
        self, read: Callable[[URL], Awaitable[str | bytes]], agent_token: str, most_bytes: int = _CACHED_BYTES
    ) -> None:
        """``most_bytes``: of rules that are kept; beyond it those read first go, and are read again where they are needed."""
        self._read = read
        self._agent_token = agent_token
        self._most_bytes = most_bytes
        self._rules: OrderedDict[str, asyncio.Task[RobotsRules | FetchFailure]] = OrderedDict()
        self._held: dict[str, int] = {}  # bytes, of those that were read
        self._bytes = 0

    async def require_allowed(self, url: URL) -> None:
        """Raises FetchFailure: opted_out, or why the origin's robots.txt could not be read."""
        origin = url.origin()
        key = str(origin)
        task = self._rules.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._fetch_rules(origin))
            self._rules[key] = task
            task.add_done_callback(functools.partial(self._keep, key))
            if len(self._rules) > _CACHED_ORIGINS:
                self._forget(next(iter(self._rules)))
        rules = task.result() if task.done() else await asyncio.shield(task)
        if isinstance(rules, FetchFailure):
            raise FetchFailure(rules.status, f"robots.txt: {rules.message}")
        if not rules.allows(url.raw_path_qs):
            raise FetchFailure(FetchStatus.opted_out, f"robots.txt disallows {self._agent_token}")

    def _keep(self, key: str, task: asyncio.Task[RobotsRules | FetchFailure]) -> None:
        if task.cancelled() or task.exception() is not None or self._rules.get(key) is not task:
            return
        rules = task.result()
        self._held[key] = rules.bytes_held if isinstance(rules, RobotsRules) else 0
        self._bytes += self._held[key]
        while self._bytes > self._most_bytes and len(self._held) > 1:
            self._forget(next(iter(self._held)))

    def _forget(self, key: str) -> None:
        del self._rules[key]
        self._bytes -= self._held.pop(key, 0)

    async def _fetch_rules(self, origin: URL) -> RobotsRules | FetchFailure:
        """A failure is returned, not raised: any number of rows may wait for it, or none."""
        try:
            body = await self._read(origin)
            if len(body) < _LARGE_FILE:
                return RobotsRules(body, self._agent_token)
            return await asyncio.to_thread(RobotsRules, body, self._agent_token)
        except FetchFailure as failure:
            return failure
