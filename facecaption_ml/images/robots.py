"""robots.txt of every origin, fetched once and kept in bounded memory."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from yarl import URL

from facecaption_ml.images.opt_out import RobotsRules
from facecaption_ml.images.status import FetchFailure, FetchStatus

_CACHED_ORIGINS: Final = 10_000


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
