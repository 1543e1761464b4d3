"""Pictures that lie beside a table which names them, as Hugging Face's imagefolder has it, and folders of pictures alone."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import polars as pl

from facecaption_ml.dataset.sources.columns import as_frame
from facecaption_ml.dataset.sources.counts import ManifestCounts, SourceOutcome
from facecaption_ml.storage.base import S3

_BATCH_ROWS: Final = 100_000


def address_as_url(address: str) -> str:
    """``s3://…`` as it is; of a path the ``file://`` URL, in which every byte of its name can be told."""
    return address if address.startswith(S3) else Path(address).as_uri()


def listed_pictures(addresses: Sequence[str]) -> Iterator[pl.DataFrame]:
    """Typed batches of pictures without texts; ``source_place`` is their number in the listing."""
    for start in range(0, len(addresses), _BATCH_ROWS):
        part = [address_as_url(address) for address in addresses[start : start + _BATCH_ROWS]]
        yield as_frame({"url": part}, range(start + 1, start + 1 + len(part)))


class NamedPictures:
    """The pictures that tables name in a column, relative to the table's folder.

    ``listed`` are the addresses of those that are there, where a folder was listed; else each is looked for. ``unnamed`` says
    afterwards which no table named.
    """

    def __init__(self, counts: ManifestCounts, listed: Sequence[str] | None = None) -> None:
        self._counts = counts
        self._listed = None if listed is None else set(listed)
        self._named: set[str] = set()

    def resolved(self, table: str, unit: str, frame: pl.DataFrame) -> pl.DataFrame:
        """A typed batch whose ``url`` are file names, with addresses in their place.

        Rows that name a file which is not there or lies outside the table's folder are dropped and counted.
        """
        folder = table.rpartition("/")[0]
        urls: list[str | None] = []
        kept: list[bool] = []
        for place, name in frame.select("source_place", "url").iter_rows():
            if not name or not name.strip():
                urls.append(None)
                kept.append(True)
                continue
            outcome, address = self._found(folder, name)
            kept.append(outcome is None)
            urls.append(None if outcome else address_as_url(address))
            if outcome is not None:
                self._counts.drop(outcome, table, f"{unit} {place}", name)
        frame = frame.with_columns(url=pl.Series(urls, dtype=pl.String))
        return frame.filter(pl.Series(kept, dtype=pl.Boolean))

    def unnamed(self) -> list[str]:
        """Of the listed pictures, sorted."""
        return sorted((self._listed or set()) - self._named)

    def _found(self, folder: str, name: str) -> tuple[SourceOutcome | None, str]:
        for spelled in dict.fromkeys((name, name.strip(), name.strip().replace("\\", "/"))):
            relative = posixpath.normpath(spelled)
            if relative.startswith(("/", "../")) or relative in ("..", ".") or "://" in spelled or "\0" in spelled:
                return SourceOutcome.FILE_OUTSIDE, ""
            address = f"{folder}/{relative}"
            if address in self._listed if self._listed is not None else self._exists(address):
                self._named.add(address) if self._listed is not None else None
                return None, address
        return SourceOutcome.MISSING_FILE, ""

    @staticmethod
    def _exists(address: str) -> bool:
        return address.startswith(S3) or Path(address).is_file()
