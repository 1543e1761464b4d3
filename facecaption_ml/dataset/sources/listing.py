"""The files of a source: one file, a folder with all that its links lead to, or a prefix on S3."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from facecaption_ml.dataset.sources.counts import ManifestCounts, SourceError, in_words, shown
from facecaption_ml.dataset.sources.names import (
    TABLE_SUFFIXES,
    TEXT_SUFFIX,
    is_picture,
    passed_over_kind,
    suffix_kind,
    table_name,
)
from facecaption_ml.decoding import PICTURE_SUFFIXES
from facecaption_ml.storage.base import S3, StoreError, normalize_scheme
from facecaption_ml.storage.objects import list_address

_NO_TARGET, _NO_FILE, _CLOSED = -1, -2, -3  # sizes of what is no file
_OF_NO_USE: Final = {
    _NO_TARGET: "link that leads nowhere",
    _NO_FILE: "pipe, socket or device",
    _CLOSED: "folder without permission",
}


@dataclass
class Listing:
    """The files of a source, sorted, by what they are. Addresses are full; the names are those given, links not resolved."""

    root: str  # the folder or prefix; of one file that in which it lies
    single: bool = False
    tables: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)

    def key(self, address: str) -> str:
        """A file's path from the root."""
        return address.removeprefix(self.root).lstrip("/")


def list_source(location: str, counts: ManifestCounts, options: Mapping[str, str] | None = None) -> Listing:
    """What is at ``location``; files that belong to no source are counted as passed over.

    Raises SourceError where there is nothing, or nothing that could be read.
    """
    location = normalize_scheme(location)
    files, listing = _files(location, options)
    for address, size in files:
        key = listing.key(address)
        kind = None if listing.single else passed_over_kind(key)
        table = table_name(key)
        if size in _OF_NO_USE:
            counts.pass_over(_OF_NO_USE[size], key)
        elif kind is not None:
            counts.pass_over(kind, key)
        elif is_picture(key):
            listing.pictures.append(address)
        elif table is None:
            counts.pass_over(suffix_kind(key), key)
        elif size == 0 and not listing.single:
            counts.pass_over("empty table", key)
        else:
            (listing.texts if table.kind == TEXT_SUFFIX[1:] else listing.tables).append(address)
    if not (listing.tables or listing.texts or listing.pictures):
        passed = f"; passed over: {in_words(counts.passed_over)}" if counts.passed_over and not listing.single else ""
        raise SourceError(
            f"source {shown(location)}: no table ({', '.join(TABLE_SUFFIXES)}, also .gz, .bz2, .xz, .zst; .txt) and no "
            f"picture ({', '.join(PICTURE_SUFFIXES)}) in it{passed}"
        )
    for addresses in (listing.tables, listing.texts, listing.pictures):
        addresses.sort()
    return listing


def _files(location: str, options: Mapping[str, str] | None) -> tuple[list[tuple[str, int]], Listing]:
    """Address and size of every file, and a listing that has none yet."""
    try:
        if location.startswith(S3):
            found = [(address, stored.size) for address, stored in list_address(location, options)]
            single = [address for address, _ in found] == [location.rstrip("/")]
            root = location.rstrip("/").rpartition("/")[0] if single else location.rstrip("/")
            there = bool(found)
        else:
            path = Path(location).expanduser()
            single, there = path.is_file(), path.exists()
            root = str((path.parent if single else path).resolve())
            own = f"{root.rstrip('/')}/{path.name}"
            found = [(own, path.stat().st_size)] if single else list(_walk(root)) if path.is_dir() else []
    except (OSError, ValueError, StoreError) as error:
        said = (error.strerror if isinstance(error, OSError) else None) or error
        where = (error.filename if isinstance(error, OSError) else None) or location
        raise SourceError(f"source {shown(where)}: {shown(said)}") from error
    if there:
        return found, Listing(root, single)
    scheme, separator, _ = location.partition("://")
    if separator and not location.startswith(S3):
        raise SourceError(f"source {shown(location)}: {scheme}:// is not read; give a file, a folder or s3://…")
    what = "object or prefix" if location.startswith(S3) else "file or folder"
    raise SourceError(f"source {shown(location)}: no such {what}")


def _walk(root: str) -> Iterator[tuple[str, int]]:
    """Every file below ``root``, links followed.

    A folder that several links lead to, or that holds a link to one above it, is entered once: by its own name where it has
    one here, else by the first of its links. Raises OSError for one that may not be read, unless it would be passed over.
    """
    own, linked = deque([root]), deque[str]()
    entered: set[tuple[int, int]] = set()
    while own or linked:
        folder = (own or linked).popleft()
        identity = Path(folder).stat()
        if (identity.st_dev, identity.st_ino) in entered:
            continue
        entered.add((identity.st_dev, identity.st_ino))
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except PermissionError:
            if passed_over_kind(f"{folder.removeprefix(root).lstrip('/')}/") is None:
                raise
            yield folder, _CLOSED
            continue
        for entry in entries:
            try:
                size = entry.stat().st_size
            except OSError:  # of a link to nothing, or in a circle
                yield entry.path, _NO_TARGET
                continue
            if entry.is_dir():
                (linked if entry.is_symlink() else own).append(entry.path)
            else:
                yield entry.path, size if entry.is_file() else _NO_FILE
