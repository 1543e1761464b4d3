"""Which files are tables of URLs, which are pictures, and which are neither: by the name given, wherever a link leads."""

from __future__ import annotations

from typing import Final, NamedTuple

from facecaption_ml.decoding import PICTURE_SUFFIXES

TABLE_SUFFIXES: Final = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")
TEXT_SUFFIX: Final = ".txt"
"""One URL a line; in a folder only where there is no other list, since notes and licences end in it too."""
COMPRESSIONS: Final = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}
"""Behind the suffix of a table of text."""
_UNFINISHED: Final = (".tmp", ".part", ".crdownload", ".partial")
_MARKERS: Final = ("_temporary", "_delta_log", "__macosx")
_SYSTEM: Final = ("@eadir", "#recycle", "$recycle.bin", "lost+found", "system volume information")
"""Folders in which disks and NAS boxes keep thumbnails and what was deleted."""


class TableName(NamedTuple):
    """What a file's name says: ``parquet``, ``csv`` …, and how it is compressed (``""``: not)."""

    kind: str
    compression: str


def table_name(name: str) -> TableName | None:
    """None for a name that is no table's."""
    lower = name.lower()
    compression = next((suffix for suffix in COMPRESSIONS if lower.endswith(suffix)), "")
    inner = lower.removesuffix(compression)
    suffix = next((suffix for suffix in (*TABLE_SUFFIXES, TEXT_SUFFIX) if inner.endswith(suffix)), None)
    if suffix is None or (compression and suffix == ".parquet"):
        return None
    return TableName(suffix[1:], COMPRESSIONS.get(compression, ""))


def is_table(name: str) -> bool:
    """Whether it is one of TABLE_SUFFIXES, compressed or not."""
    found = table_name(name)
    return found is not None and found.kind != TEXT_SUFFIX[1:]


def is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURE_SUFFIXES)


def passed_over_kind(key: str) -> str | None:
    """Why a file below a folder is no part of a source, by its path from there: hidden, unfinished …; None for one that may be.

    What starts with an underscore is a marker of Spark's and its like where it is a table or has no suffix: cameras name
    pictures so.
    """
    parts = key.split("/")
    lower = parts[-1].lower()
    if any(part.startswith(".") for part in parts):
        return "hidden"
    if lower.endswith(_UNFINISHED) or any(part.lower() in _MARKERS for part in parts):
        return "unfinished"
    if any(part.lower() in _SYSTEM for part in parts):
        return "system folder"
    if any(part.startswith("_") for part in parts) and not is_picture(lower):
        return "marker"
    return None


def suffix_kind(key: str) -> str:
    """The suffix of a file that is neither a table nor a picture, for counting."""
    name = key.rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return f".{suffix.lower()[:12]}" if dot and stem else "no suffix"
