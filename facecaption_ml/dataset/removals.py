"""Lists of what must not be fetched or released: URLs, hosts, image hashes, sample ids and face ids, one a line.

URLs and hosts compare in their normal form (``facecaption_ml.urls``), so that a request takes a picture however the list of
images and the request spell its address.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.storage.base import S3, StoreError
from facecaption_ml.storage.objects import read_object
from facecaption_ml.urls import canonical_host, canonical_url, host_of

REMOVED: Final = "removed"
"""Stands for the URL of a row that was removed on request; the row keeps its place and its sample id."""

_PATTERNS: Final = {
    "sha256": re.compile(r"[0-9a-f]{64}"),
    "face_ids": re.compile(r"[0-9a-f]{16}_(?:0|[1-9][0-9]*)"),
    "sample_ids": re.compile(r"[0-9a-f]{16}"),
    "hosts": re.compile(r"host:.*"),
}
_FETCHED: Final = ("http", "https", "file", "s3")
_HOST_NAME: Final = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*|\[[0-9a-f:.]+\]", re.ASCII)
# Another URL behind one, or a column behind a tab.
_MORE: Final = re.compile(r"\s\S*://|[,;|](?:https?|file|s3)://|\t", re.IGNORECASE)
# A blank behind the name of a picture, or before what ends no name: of "a b.jpg" the blank is part of the name.
_NOTE: Final = re.compile(
    r"\.(?:jpe?g|jfif|png|gif|webp|bmp|tiff?|avif|heic)\S?\s|\s(?!.*\.\w{2,5}(?:[?#]\S*)?$)", re.I
)
_LINE_ENDS: Final = re.compile(r"\r\n|\r|\n")


class RemovalListError(FaceCaptionError):
    """A removal or deny list is missing or has a line that names nothing; the message names file, line and what to write."""


@dataclass(frozen=True)
class RemovalList:
    """What a list names. An empty list removes nothing."""

    urls: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    sha256: frozenset[str] = frozenset()
    sample_ids: frozenset[str] = frozenset()
    face_ids: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """URLs and hosts are kept in normal form, hashes and ids in lower case. Raises RemovalListError for what is neither."""
        for kind in ("sha256", "face_ids", "sample_ids"):
            object.__setattr__(self, kind, frozenset(value.lower() for value in getattr(self, kind)))
        object.__setattr__(self, "urls", frozenset(map(_normal_url, self.urls)))
        object.__setattr__(self, "hosts", frozenset(map(_normal_host, self.hosts)))

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
        return cls.parse(lines_of(text), f"list {path}")

    @classmethod
    def parse(cls, lines: Sequence[str], name: str) -> RemovalList:
        """From the lines of a list that errors call ``name``. Raises RemovalListError as ``read`` does."""
        values: dict[str, set[str]] = {kind: set() for kind in ("urls", *_PATTERNS)}
        for number, written in enumerate(lines, start=1):
            line = written.strip().removeprefix("\ufeff").strip()
            if not line or line.startswith("#"):
                continue
            kind = next((kind for kind, pattern in _PATTERNS.items() if pattern.fullmatch(line.lower())), "urls")
            try:
                if kind == "urls":
                    values[kind].update(map(_normal_url, _readings(line)))
                else:
                    values[kind].add(_normal_host(line) if kind == "hosts" else line.lower())
            except RemovalListError as error:
                raise RemovalListError(f"{name}, line {number}: {error}") from None
        return cls(**{kind: frozenset(named) for kind, named in values.items()})

    def __or__(self, other: RemovalList) -> RemovalList:
        return RemovalList(**{kind: named | getattr(other, kind) for kind, named in vars(self).items()})

    def __len__(self) -> int:
        return sum(map(len, vars(self).values()))

    def reason(self, url: str | None, face_id: str, sha256: str | None) -> str | None:
        """Why a face must go, or None: removed_url, removed_host, removed_hash, removed_sample or removed_face."""
        if self.names_url(url):
            return "removed_url" if url == REMOVED or canonical_url(url) in self.urls else "removed_host"
        if sha256 in self.sha256:
            return "removed_hash"
        if face_id.rpartition("_")[0] in self.sample_ids:
            return "removed_sample"
        return "removed_face" if face_id in self.face_ids else None

    def names_url(self, url: str | None) -> bool:
        """Whether a URL in any spelling, its host, or a parent domain of it is listed, or it was taken out before."""
        if url == REMOVED:
            return True
        if not (self.urls or self.hosts):
            return False
        normal = canonical_url(url)
        return normal in self.urls or (bool(self.hosts) and self._lists(host_of(normal)))

    def names_host(self, host: str) -> bool:
        """Whether a host in any spelling, or a parent domain of it, is listed."""
        return bool(self.hosts) and self._lists(canonical_host(host))

    @property
    def samples_of_faces(self) -> frozenset[str]:
        """The ids of the pictures in which a listed face is."""
        return frozenset(face_id.rpartition("_")[0] for face_id in self.face_ids)

    def names_sample(self, sample_id: str, url: str | None, sha256: str | None = None) -> bool:
        """Whether a row is listed by its id, its URL or the hash of its picture; faces apart."""
        return sample_id in self.sample_ids or sha256 in self.sha256 or self.names_url(url)

    def _lists(self, host: str) -> bool:
        if host in self.hosts:
            return True
        end = host.find(".")
        while end >= 0 and not host.endswith("]"):
            if host[end + 1 :] in self.hosts:
                return True
            end = host.find(".", end + 1)
        return False


def without_removed(frame: pl.DataFrame, removed: RemovalList) -> pl.DataFrame:
    """Rows of ``source_manifest`` without the URL and text of those that a list names by sample id, URL or host."""
    named = pl.Series(
        [removed.names_sample(*row) for row in frame.select("sample_id", "url").iter_rows()], dtype=pl.Boolean
    )
    return without_addresses(frame, named)


def without_addresses(frame: pl.DataFrame, rows: pl.Series) -> pl.DataFrame:
    """A table with ``REMOVED`` for the URL of some rows and null for their text; place and sample id stay."""
    return frame.with_columns(
        url=pl.when(rows).then(pl.lit(REMOVED)).otherwise(pl.col("url")),
        alt_text=pl.when(rows).then(None).otherwise(pl.col("alt_text")),
    )


def lines_of(text: str) -> list[str]:
    """The lines of a list. Only line ends end them, no other character that Unicode calls one."""
    return _LINE_ENDS.split(text)


def list_text(path: str, options: Mapping[str, str] | None = None) -> str:
    """The text of a list. Raises RemovalListError where it cannot be read, FileNotFoundError where it is absent."""
    try:
        return text_of(read_object(path, options), path)
    except StoreError as error:
        raise RemovalListError(f"list {path}: cannot be read: {error}") from error


def text_of(data: bytes, path: str) -> str:
    """The text of a list's bytes. Raises RemovalListError where they are no UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise RemovalListError(f"list {path}: cannot be read: {error}") from error


def _normal_url(line: str) -> str:
    """A URL of a list in normal form. Raises RemovalListError for one that no picture can have."""
    line = line.strip()
    shown, normal = line[:80], canonical_url(line)
    if re.search(r"\s#", line):
        raise RemovalListError(f"{shown!r} has a comment behind the URL: give the comment a line of its own")
    if _MORE.search(line):
        raise RemovalListError(f"{shown!r} is more than a URL: write one URL a line and nothing else")
    if not normal.startswith(S3) and _NOTE.search(line):
        raise RemovalListError(
            f"{shown!r} has a text behind the URL: give it a line of its own that starts with #, or write the blank as %20"
        )
    if normal.endswith("/*"):
        raise RemovalListError(
            f"{shown!r}: * stands for itself, so nothing would match; write one URL a line, or host:{host_of(normal)}"
        )
    host = host_of(normal)
    if normal and not normal.startswith(_FETCHED):
        raise RemovalListError(
            f"{shown!r}: no picture comes from there; a URL starts with http://, https://, file:// or s3://"
        )
    if not normal or (host and not _HOST_NAME.fullmatch(host)):
        raise RemovalListError(
            f"{shown!r} is no URL, host:NAME, SHA-256, sample id or face id{_instead(_candidates(line))}"
        )
    return normal


def _normal_host(line: str) -> str:
    """A host of a list (``host:`` before it or not) in normal form. Raises RemovalListError for one that no URL can have."""
    name = re.sub(r"^host:", "", line.strip(), flags=re.IGNORECASE)
    host = canonical_host(name)
    if name != name.strip() or not _HOST_NAME.fullmatch(host):
        raise RemovalListError(
            f"{line[:80]!r}: {name[:80]!r} is no host, so nothing would match{_instead(_candidates(name))}"
        )
    return host


def _readings(line: str) -> list[str]:
    """A line's URL as it stands, and without what a letter or a page adds to it; a request takes both.

    That is a comma or semicolon behind it, an invisible character, and & written as in HTML.
    """
    bare = line
    while bare and (bare[-1] in ",;" or unicodedata.category(bare[-1]) == "Cf"):
        bare = bare[:-1].rstrip()
    forms = [form for text in (line, bare) for form in (text, html.unescape(text))]
    return [line, *dict.fromkeys(form for form in forms if form != line and canonical_url(form))]


def _candidates(text: str) -> Iterable[str]:
    """What a line that names nothing may have been meant as."""
    bare = re.sub(
        r"^[a-z0-9+.-]*:/{1,2}|^(sha256|sample|face|url|host):", "", text.strip(), flags=re.IGNORECASE
    ).strip()
    yield bare.lower()
    bare = bare.removeprefix("*").lstrip(".")
    yield f"host:{host_of(f'http://{bare}')}"
    yield f"host:{host_of('http://' + re.sub(r'[.]{2,}', '.', bare))}"


def _instead(candidates: Iterable[str]) -> str:
    for candidate in candidates:
        kind = next((kind for kind, pattern in _PATTERNS.items() if pattern.fullmatch(candidate)), None)
        if kind and (kind != "hosts" or ("." in candidate and _HOST_NAME.fullmatch(candidate.removeprefix("host:")))):
            subdomains = ", which takes its subdomains too" if kind == "hosts" else ""
            return f"; write {candidate}{subdomains}"
    return ""
