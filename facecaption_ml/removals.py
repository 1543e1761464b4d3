"""Lists of what must not be fetched or released: URLs, hosts, image hashes, sample ids and face ids, one a line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

_PATTERNS: Final = {
    "sha256": re.compile(r"[0-9a-f]{64}"),
    "face_ids": re.compile(r"[0-9a-f]{16}_\d+"),
    "sample_ids": re.compile(r"[0-9a-f]{16}"),
    "hosts": re.compile(r"host:\S+"),
}


class RemovalListError(ValueError):
    """A removal or deny list is missing or has a line that is none of the five kinds; the message names file and line."""


@dataclass(frozen=True)
class RemovalList:
    """What a list names. An empty list removes nothing."""

    urls: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    sha256: frozenset[str] = frozenset()
    sample_ids: frozenset[str] = frozenset()
    face_ids: frozenset[str] = frozenset()

    @classmethod
    def read(cls, path: str) -> RemovalList:
        """From a text file; an empty ``path`` gives an empty list. Blank lines and lines that start with # are skipped.

        A line is a URL (``https://…``), ``host:example.org``, a SHA-256 of the image file (64 hex digits), a sample id (16)
        or a face id (16 hex digits, underscore, number). Raises RemovalListError for anything else, since a removal request
        that is silently skipped would be worse than a stop.
        """
        if not path:
            return cls()
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise RemovalListError(f"list {path}: cannot be read: {error}") from error
        return cls.parse(lines, f"list {path}")

    @classmethod
    def parse(cls, lines: Sequence[str], name: str) -> RemovalList:
        """From the lines of a list that errors call ``name``. Raises RemovalListError as ``read`` does."""
        found: dict[str, set[str]] = {kind: set() for kind in ("urls", *_PATTERNS)}
        for number, line in enumerate(map(str.strip, lines), start=1):
            if line and not line.startswith("#"):
                kind, value = _classify(line, name, number)
                found[kind].add(value)
        return cls(**{kind: frozenset(values) for kind, values in found.items()})

    def __or__(self, other: RemovalList) -> RemovalList:
        return RemovalList(
            self.urls | other.urls,
            self.hosts | other.hosts,
            self.sha256 | other.sha256,
            self.sample_ids | other.sample_ids,
            self.face_ids | other.face_ids,
        )

    def __len__(self) -> int:
        return sum(map(len, (self.urls, self.hosts, self.sha256, self.sample_ids, self.face_ids)))

    def reason(self, url: str, face_id: str, sha256: str | None) -> str | None:
        """Why a face must go, or None: removed_url, removed_host, removed_hash, removed_sample or removed_face."""
        if url in self.urls:
            return "removed_url"
        if self.hosts and self._host_removed(urlsplit(url).hostname or ""):
            return "removed_host"
        if sha256 in self.sha256:
            return "removed_hash"
        if face_id.rpartition("_")[0] in self.sample_ids:
            return "removed_sample"
        return "removed_face" if face_id in self.face_ids else None

    def _host_removed(self, host: str) -> bool:
        """A host is removed with all its subdomains."""
        parts = host.split(".")
        return any(".".join(parts[start:]) in self.hosts for start in range(len(parts)))


def _classify(line: str, name: str, number: int) -> tuple[str, str]:
    for kind, pattern in _PATTERNS.items():
        if pattern.fullmatch(line.lower()):
            return kind, line.lower().removeprefix("host:")
    if "://" in line:
        return "urls", line
    raise RemovalListError(f"{name}, line {number}: {line[:80]!r} is no URL, host:NAME, SHA-256, sample id or face id")
