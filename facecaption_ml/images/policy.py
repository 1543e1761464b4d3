"""What a download may do: limits and crawl politeness, and what else it needs to know of the run that it belongs to."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from facecaption_ml.dataset.removals import RemovalList
from facecaption_ml.images.proxy import read_proxy
from facecaption_ml.images.status import FetchStatus

USER_AGENT: Final = "FaceCaption/0.1 (image data set builder)"
AGENT_TOKEN: Final = "facecaption"
"""The product name, lower case, that robots.txt groups and X-Robots-Tag prefixes are matched with."""
PILLOW_MAX_PIXELS: Final = 178_956_970
"""Twice Pillow's MAX_IMAGE_PIXELS: it refuses more on its own."""
_DAY_S: Final = 86_400
_NAMESERVER: Final = re.compile(
    r"\[(?P<v6>[0-9A-Fa-f:.]+)\](?::(?P<port>[0-9]{1,5}))?|(?P<v4>[0-9.]+)(?::(?P<port4>[0-9]{1,5}))?"
)


class DownloadPolicy(BaseModel):
    """Limits and politeness of a download. Raises pydantic's ValidationError (a ValueError) naming the field that is wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    connections: int = Field(default=128, ge=1, description="connections open at once")
    connections_per_host: int = Field(default=4, ge=1, description="connections open to one host at once")
    connect_timeout_s: float = Field(
        default=5.0, gt=0, lt=_DAY_S, description="seconds for lookup, connect and TLS, each"
    )
    read_timeout_s: float = Field(default=10.0, gt=0, lt=_DAY_S, description="seconds of silence between two reads")
    total_timeout_s: float = Field(
        default=30.0,
        gt=0,
        lt=_DAY_S,
        description="seconds for one URL once its host is looked up, with redirects and retries",
    )
    max_image_bytes: int = Field(default=20_000_000, ge=1, description="bytes; a larger file is given up")
    max_image_pixels: int = Field(
        default=100_000_000, ge=1, le=PILLOW_MAX_PIXELS, description="pixels; a larger picture is not decoded"
    )
    max_redirects: int = Field(default=5, ge=0, description="redirects of one URL that are followed")
    retries: int = Field(default=2, ge=0, description="tries again within a run, of failures that may pass in seconds")
    backoff_s: float = Field(
        default=0.5, ge=0, description="seconds before the first retry, doubled for each further one"
    )
    user_agent_contact: str = Field(
        default="",
        pattern=r"^[\x20-\x7e]*$",
        description="URL or address of whoever runs the download, for the User-Agent",
    )
    respect_opt_out: bool = Field(default=True, description="honour robots.txt, X-Robots-Tag and the TDM reservation")
    allow_private_addresses: bool = Field(
        default=False, description="fetch from loopback and private networks too; link-local stays refused"
    )

    proxy: SecretStr = Field(
        default=SecretStr(""),
        description="http://user:password@host:port that all web addresses are fetched through; it looks the names up, so that "
        "only addresses written as numbers are checked here; '': none, whatever http_proxy says",
    )
    nameservers: tuple[str, ...] = Field(
        default=(), description="name servers as address or address:port, with commas; '': those of /etc/resolv.conf"
    )

    @field_validator("proxy")
    @classmethod
    def _check_proxy(cls, value: SecretStr) -> SecretStr:
        read_proxy(value.get_secret_value())
        return value

    @field_validator("nameservers", mode="before")
    @classmethod
    def _read_list(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("nameservers")
    @classmethod
    def _check_nameservers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for server in value:
            found = _NAMESERVER.fullmatch(server)
            try:
                ip_address(found["v6"] or found["v4"] if found else server)
                if found and not 0 < int(found["port"] or found["port4"] or 53) < 65_536:
                    raise ValueError
            except ValueError:
                raise ValueError(f"{server!r} is no address, address:port or [address]:port") from None
        return value

    @property
    def user_agent(self) -> str:
        """The header that is sent."""
        return f"{USER_AGENT} +{self.user_agent_contact}" if self.user_agent_contact else USER_AGENT


@dataclass(frozen=True)
class DownloadContext:
    """What differs from run to run. Raises ValueError for an address or folder that is none.

    ``denied``: not fetched; its face ids do not matter here. ``connect_to``: host pattern (``*.sample.test``) → address and
    port, like curl's --connect-to; the address check still applies. ``allow_files_under``: file:// URLs inside this folder are
    read. ``open_object``: reads s3:// URLs; FileNotFoundError where there is no object. Without them, neither is read.
    ``object_version``: what tells an s3:// object from the one before it at its place; None where there is none.
    ``refetch``: rows of an earlier run that ended so are fetched again, whatever else is known of them. ``scratch``: the folder
    of files without a name for pictures that memory has no room for; by default the system's for temporary files.
    """

    denied: RemovalList = field(default_factory=RemovalList)
    connect_to: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    allow_files_under: Path | None = None
    open_object: Callable[[str], bytes] | None = None
    object_version: Callable[[str], str | None] | None = None
    refetch: frozenset[FetchStatus] = frozenset()
    scratch: Path | None = None

    def __post_init__(self) -> None:
        for pattern, (address, port) in self.connect_to.items():
            ip_address(address)
            if not 0 < port < 65_536:
                raise ValueError(f"connect_to sends {pattern!r} to port {port!r}")
        if self.allow_files_under is not None and not self.allow_files_under.is_dir():
            raise ValueError(f"allow_files_under: {self.allow_files_under} is not a folder")
