"""Lists of what must not be fetched or released: URLs, hosts, image hashes, sample ids and face ids, one a line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.storage.base import S3, StoreError
from facecaption_ml.storage.objects import read_object

_PATTERNS: Final = {
    "sha256": re.compile(r"[0-9a-f]{64}"),
    "face_ids": re.compile(r"[0-9a-f]{16}_\d+"),
    "sample_ids": re.compile(r"[0-9a-f]{16}"),
    "hosts": re.compile(r"host:\S+"),
}


class RemovalListError(FaceCaptionError):
    """A removal or deny list is missing or has a line that is none of the five kinds; the message names file and line."""


@dataclass(frozen=True)
class RemovalList:
    """What a list names. An empty list removes nothing."""

    urls: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    sha256: frozenset[str] = frozenset()
    sample_ids: frozenset[str] = frozenset()
    face_ids: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Hosts, hashes and ids compare without regard to case."""
        for kind in _PATTERNS:
            object.__setattr__(self, kind, frozenset(value.lower().strip(".") for value in getattr(self, kind)))

    @classmethod
    def read(cls, path: str, options: Mapping[str, str] | None = None) -> RemovalList:
        """From a text file or ``s3://bucket/key``, which ``options`` reach; an empty ``path`` gives an empty list.

        Blank lines and lines that start with # are skipped. An object that is not there is an empty list, since nobody has
        asked for anything yet; a file that is not there is an error.

        A line is a URL (``https://…``), ``host:example.org``, a SHA-256 of the image file (64 hex digits), a sample id (16)
        or a face id (16 hex digits, underscore, number). Raises RemovalListError for anything else, since a removal request
        that is silently skipped would be worse than a stop.
        """
        if not path:
            return cls()
        try:
            text = list_text(path, options)
        except FileNotFoundError:
            if not path.startswith(S3):
                raise RemovalListError(f"list {path}: cannot be read: no such file") from None
            text = ""
        return cls.parse(text.splitlines(), f"list {path}")

    @classmethod
    def parse(cls, lines: Sequence[str], name: str) -> RemovalList:
        """From the lines of a list that errors call ``name``. Raises RemovalListError as ``read`` does."""
        values: dict[str, set[str]] = {kind: set() for kind in ("urls", *_PATTERNS)}
        for number, line in enumerate(map(str.strip, lines), start=1):
            if not line or line.startswith("#"):
                continue
            kind = next((kind for kind, pattern in _PATTERNS.items() if pattern.fullmatch(line.lower())), "urls")
            if kind == "urls" and "://" not in line:
                what = f"{line[:80]!r} is no URL, host:NAME, SHA-256, sample id or face id"
                raise RemovalListError(f"{name}, line {number}: {what}")
            values[kind].add(line if kind == "urls" else line.lower().removeprefix("host:"))
        return cls(**{kind: frozenset(named) for kind, named in values.items()})

    def __or__(self, other: RemovalList) -> RemovalList:
        return RemovalList(**{kind: named | getattr(other, kind) for kind, named in vars(self).items()})

    def __len__(self) -> int:
        return sum(map(len, vars(self).values()))

    def reason(self, url: str, face_id: str, sha256: str | None) -> str | None:
        """Why a face must go, or None: removed_url, removed_host, removed_hash, removed_sample or removed_face."""
        if self.names_url(url):
            return "removed_url" if url in self.urls else "removed_host"
        if sha256 in self.sha256:
            return "removed_hash"
        if face_id.rpartition("_")[0] in self.sample_ids:
            return "removed_sample"
        return "removed_face" if face_id in self.face_ids else None

    def names_url(self, url: str) -> bool:
        """Whether a URL as written, its host, or a parent domain of it is listed."""
        return url in self.urls or (bool(self.hosts) and self.names_host(_host_of(url)))

    def names_host(self, host: str) -> bool:
        """Whether a host, or a parent domain of it, is listed."""
        labels = host.lower().strip(".").split(".")
        return any(".".join(labels[start:]) in self.hosts for start in range(len(labels)))


def list_text(path: str, options: Mapping[str, str] | None = None) -> str:
    """The text of a list. Raises RemovalListError where it cannot be read, FileNotFoundError where it is absent."""
    try:
        return read_object(path, options).decode()
    except (StoreError, UnicodeDecodeError) as error:
        raise RemovalListError(f"list {path}: cannot be read: {error}") from error


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # such as http://[broken, which nobody can fetch either
        return ""
