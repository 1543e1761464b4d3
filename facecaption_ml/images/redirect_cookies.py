"""Cookies for the redirects of one URL: sites that set one and redirect to themselves to see whether it comes back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

from yarl import URL

from facecaption_ml.images.response_head import http_date

_PAIR: Final = re.compile(r"[\x21\x23-\x3a\x3c\x3e-\x7e]+=[\x20-\x3a\x3c-\x7e]*")
_NO_AGE: Final = re.compile(r"-[0-9]+|0+")
_MOST: Final = 50
_LONGEST: Final = 4096


class RedirectCookies:
    """Lives as long as one URL is being fetched. A cookie goes back only to the very host (and port) that set it."""

    def __init__(self) -> None:
        self._by_origin: dict[str, dict[str, tuple[str, bool]]] = {}

    def keep(self, url: URL, lines: Iterable[str]) -> None:
        """Those of the Set-Cookie lines of ``url``'s answer; whatever is odd is left out (RFC 6265 §5.2)."""
        for line in lines:
            pair, _, attributes = line.partition(";")
            name, _, value = (part.strip(" \t") for part in pair.partition("="))
            jar = self._by_origin.setdefault(url.raw_authority, {})
            given = dict(_attribute(attribute) for attribute in attributes.split(";"))
            if _is_over(given):
                jar.pop(name, None)
            elif len(pair) <= _LONGEST and len(jar) < _MOST and _PAIR.fullmatch(f"{name}={value}"):
                jar[name] = (value, "secure" in given)

    def header(self, url: URL) -> str | None:
        """The Cookie header for a request to ``url``, None where there is nothing to send."""
        jar = self._by_origin.get(url.raw_authority, {})
        sent = (f"{name}={value}" for name, (value, secure) in jar.items() if url.scheme == "https" or not secure)
        return "; ".join(sent) or None


def _attribute(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip().lower(), value.strip()


def _is_over(attributes: Mapping[str, str]) -> bool:
    """Whether the cookie ended before it began, which is how sites delete one."""
    if "max-age" in attributes:
        return _NO_AGE.fullmatch(attributes["max-age"]) is not None
    end = http_date(attributes.get("expires", ""))
    return end is not None and end <= datetime.now(UTC)
