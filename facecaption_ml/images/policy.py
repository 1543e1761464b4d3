"""What the downloader may do: limits, crawl politeness and lists, checked once when the policy is made."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from PIL import Image

from facecaption_ml.dataset.removals import RemovalList
from facecaption_ml.errors import FaceCaptionError

USER_AGENT: Final = "FaceCaption/0.1 (image data set builder)"
# Pillow refuses more on its own, whatever the policy says.
_PILLOW_MAX_PIXELS: Final = 2 * (Image.MAX_IMAGE_PIXELS or 89_478_485)


class PolicyError(FaceCaptionError):
    """A setting of the download policy is out of range; the message names it."""


@dataclass(frozen=True)
class DownloadPolicy:
    """Settings of one download. Times are seconds. Raises PolicyError naming the first setting that is wrong."""

    connections: int = 128
    connections_per_host: int = 8
    connect_timeout_s: float = 10.0  # lookup, connect and TLS, each
    read_timeout_s: float = 10.0  # silence between two reads
    total_timeout_s: float = 30.0  # one URL, with its redirects and retries
    max_bytes: int = 20_000_000
    max_pixels: int = 100_000_000
    max_redirects: int = 5
    retries: int = 2  # within a run, of failures that may pass in seconds
    backoff_s: float = 0.5  # before the first retry, doubled for each further one
    user_agent: str = USER_AGENT
    contact: str | None = None  # a page or mail address for site owners, sent behind the User-Agent
    respect_opt_out: bool = True
    allow_private_addresses: bool = False  # loopback and private networks; link-local stays refused
    denied: RemovalList = field(default_factory=RemovalList)  # not fetched; face ids in it do not matter here
    # Host pattern ("*.sample.test") → address and port, like curl's --connect-to; the address check still applies.
    connect_to: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    allow_files_under: Path | None = None  # file:// URLs inside this folder are read; none by default
    open_object: Callable[[str], bytes] | None = None  # reads s3:// URLs; FileNotFoundError where there is no object

    def __post_init__(self) -> None:
        for name in ("connections", "connections_per_host", "max_bytes", "max_pixels"):
            self._require(name, getattr(self, name) >= 1, "must be at least 1")
        for name in ("max_redirects", "retries", "backoff_s"):
            self._require(name, getattr(self, name) >= 0, "must not be negative")
        for name in ("connect_timeout_s", "read_timeout_s", "total_timeout_s"):
            self._require(name, 0 < getattr(self, name) < 86_400, "must be above 0 and under a day of seconds")
        self._require("max_pixels", self.max_pixels <= _PILLOW_MAX_PIXELS, f"must be at most {_PILLOW_MAX_PIXELS}")
        named = re.match(r"[A-Za-z_-]+(/\S+)?( |$)", self.user_agent) and _is_header_text(self.user_agent)
        self._require("user_agent", bool(named), "must start with a product name of letters, as in 'FaceCaption/0.1'")
        self._require("contact", self.contact is None or _is_header_text(self.contact), "must be one line of ASCII")
        for pattern, (address, port) in self.connect_to.items():
            valid = _is_address(address) and 0 < port < 65_536
            self._require("connect_to", valid, f"sends {pattern!r} to {address!r}, {port!r}: not an address and port")
        folder = self.allow_files_under
        self._require("allow_files_under", folder is None or folder.is_dir(), f"{folder} is not a folder")
        object.__setattr__(self, "connect_to", dict(self.connect_to))

    def _require(self, name: str, holds: bool, rule: str) -> None:
        if not holds:
            value = getattr(self, name)
            shown = f" (is {value!r})" if isinstance(value, int | float | str) else ""
            raise PolicyError(f"download policy: {name} {rule}{shown}")

    @property
    def user_agent_header(self) -> str:
        return self.user_agent if self.contact is None else f"{self.user_agent} +{self.contact}"

    @property
    def agent_token(self) -> str:
        """The product name, lower case, that robots.txt groups and X-Robots-Tag prefixes are matched with."""
        return self.user_agent.split("/")[0].split(" ")[0].lower()


def _is_header_text(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable()


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
