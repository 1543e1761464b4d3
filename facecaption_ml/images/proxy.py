"""The proxy that pictures are fetched through, and the environment's, which is never used unasked.

With a proxy this machine looks no names up: the proxy does, so which addresses names may lead to is the proxy's business.
Addresses that a URL or a redirect spells are checked here all the same, before the proxy is asked.
"""

from __future__ import annotations

import functools
import logging
import os
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

logger = logging.getLogger("facecaption")

_VARIABLES: Final = ("http_proxy", "https_proxy", "all_proxy")


@dataclass(frozen=True)
class Proxy:
    """``url`` is without user and password, so that it may be shown."""

    url: str
    host: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The login (RFC 7617), for the proxy's eyes only."""
        if not self.user and not self.password:
            return {}
        login = b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"Proxy-Authorization": f"Basic {login}"}


def read_proxy(text: str) -> Proxy | None:
    """The proxy that ``http://user:password@host:port`` names, None for an empty text.

    Raises ValueError, in words that repeat nothing of the text.
    """
    text = text.strip()
    if not text:
        return None
    if "://" not in text:
        text = f"http://{text}"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port or not text.isprintable() or not host.isascii():
        raise ValueError("not of the form http://host:port")
    if parts.scheme.lower() not in ("http", "https"):
        raise ValueError("the proxy is neither http:// nor https://; SOCKS is not supported")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("a proxy has no path; not of the form http://host:port")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if ":" in user:
        raise ValueError("a user name with a colon")
    shown = f"[{host}]" if ":" in host else host
    return Proxy(f"{parts.scheme.lower()}://{shown}:{port}", host, user, password)


def unused_variable() -> str | None:
    """The environment's variable that names a proxy, None where there is none."""
    names = (spelt for name in _VARIABLES for spelt in (name, name.upper()))
    return next((name for name in names if os.environ.get(name)), None)


@functools.cache
def say_none_is_used(variable: str) -> None:
    """Logs once that the environment's proxy is not used."""
    logger.warning(
        "%s is set but not used: pictures are fetched without a proxy unless the setting `proxy` names one", variable
    )
