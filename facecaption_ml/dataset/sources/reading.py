"""A source as batches of rows: which files it is, how each is read, and that none of its rows goes uncounted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import polars as pl

from facecaption_ml.dataset.options import SourceColumns, SourceRules
from facecaption_ml.dataset.sources.columns import bounded, find_columns
from facecaption_ml.dataset.sources.counts import ManifestCounts, SourceError, SourceKindError, shown
from facecaption_ml.dataset.sources.delimited import DelimitedTable
from facecaption_ml.dataset.sources.json_lines import JsonLines, PlainLines
from facecaption_ml.dataset.sources.listing import Listing, list_source
from facecaption_ml.dataset.sources.names import table_name
from facecaption_ml.dataset.sources.parquet import ParquetTable
from facecaption_ml.dataset.sources.pictures import NamedPictures, listed_pictures
from facecaption_ml.dataset.sources.text_files import TextFile

Choice: TypeAlias = Literal["tables", "pictures", "named pictures"]


def read_source(
    location: str,
    columns: SourceColumns | None = None,
    storage_options: Mapping[str, str] | None = None,
    *,
    rules: SourceRules | None = None,
    counts: ManifestCounts | None = None,
    pictures: bool = True,
) -> Iterator[pl.DataFrame]:
    """Batches of ``url, alt_text, width, height, nsfw, source_place, source_file`` from a table, a folder of tables, a folder
    of pictures, or one of pictures with a table that names them.

    ``location`` is local or ``s3://…``. ``counts`` gets the rows that are dropped here, what is mended and passed over, and how
    many records there are by a count of its own. Without ``pictures``, tables have to have URLs: a list from elsewhere names no
    files of this machine.

    Raises SourceError where it is missing, unreadable, empty of anything usable, has no URL column, or holds both tables and
    pictures without a word on which are meant.
    """
    counts = counts if counts is not None else ManifestCounts()
    listing = list_source(location, counts, storage_options)
    reader = _Reader(columns or SourceColumns(), rules or SourceRules(), counts, storage_options)
    choice = _chosen(listing, reader)
    if choice == "pictures":
        counts.files += len(listing.pictures)
        for frame in listed_pictures(listing.pictures):
            counts.add_records(len(frame))
            yield bounded(listing.root, "picture", frame, counts)
        return
    named = None
    if pictures:
        named = NamedPictures(counts, listing.pictures if choice == "named pictures" else None)
    for name in listing.tables:
        yield from reader.rows(name, named, prefer=choice == "named pictures")
    if choice == "named pictures" and named is not None:
        for name in named.unnamed():
            counts.pass_over("picture that no table names", listing.key(name))


def names_pictures(location: str, columns: SourceColumns | None = None, rules: SourceRules | None = None) -> bool:
    """Whether a table on this machine names pictures by their files, and not by URLs. Raises nothing."""
    if table_name(location) is None:
        return False
    reader = _Reader(columns or SourceColumns(), rules or SourceRules(), ManifestCounts(), None)
    found = reader.found(location, pictures=True)
    return "file" in found


@dataclass(frozen=True)
class _Reader:
    """Reads the tables of one source."""

    columns: SourceColumns
    rules: SourceRules
    counts: ManifestCounts
    options: Mapping[str, str] | None

    def found(self, name: str, **places: bool) -> dict[str, int]:
        """The columns that a table has; none where it cannot be read or has no rows to fetch."""
        counts = ManifestCounts()
        try:
            return find_columns(name, self._header(name, counts), self.columns, counts, **places)
        except SourceError:
            return {}

    def rows(self, name: str, named: NamedPictures | None, *, prefer: bool) -> Iterator[pl.DataFrame]:
        """Bounded batches of a table; afterwards ``counts.records`` has what it holds by a count of its own."""
        counts, kind = self.counts, _kind(name)
        places = {"pictures": named is not None, "prefer": prefer}
        counts.files += 1
        file = TextFile(name, counts, self.options)
        if kind == "parquet":
            parquet = ParquetTable(name, counts, self.options)
            found = find_columns(name, parquet.header, self.columns, counts, **places)
            yield from self._finished(name, "row", parquet.batches(found), lambda: found, named)
            counts.add_records(parquet.rows)
            return
        table: Any
        if kind in ("jsonl", "ndjson"):
            table = JsonLines(file, counts)
            yield from self._finished(name, "line", table.batches(self.columns, **places), lambda: table.found, named)
        elif kind == "txt":
            table = PlainLines(file)
            yield from self._finished(name, "line", table.batches(), lambda: ("url",), named)
        else:
            table = self._delimited(kind, file, counts)
            found = find_columns(name, table.header, self.columns, counts, **places)
            yield from self._finished(name, "line", table.batches(found), lambda: found, named)
        counts.add_records(file.lines - table.other_lines)

    def _finished(
        self,
        name: str,
        unit: str,
        frames: Iterator[pl.DataFrame],
        found: Callable[[], Any],
        named: NamedPictures | None,
    ) -> Iterator[pl.DataFrame]:
        for frame in frames:
            rows = named.resolved(name, unit, frame) if named is not None and "file" in found() else frame
            yield bounded(name, unit, rows, self.counts)

    def _header(self, name: str, counts: ManifestCounts) -> list[str]:
        kind, file = _kind(name), TextFile(name, counts, self.options)
        if kind == "parquet":
            return ParquetTable(name, counts, self.options).header
        if kind in ("jsonl", "ndjson"):
            return JsonLines(file, counts).keys()
        return [] if kind == "txt" else self._delimited(kind, file, counts).header

    def _delimited(self, kind: str, file: TextFile, counts: ManifestCounts) -> DelimitedTable:
        tabs = kind == "tsv"
        return DelimitedTable(file, counts, "\t" if tabs else ",", quoting=not tabs or self.rules.tsv_quoting)


def _chosen(listing: Listing, reader: _Reader) -> Choice:
    """What is read of a folder. ``listing.tables`` become the tables that are; the rest is counted as passed over.

    Raises SourceError where both tables and pictures could be meant.
    """
    kind, counts = reader.rules.kind, reader.counts
    naming: list[str] = []
    choice: Choice
    if listing.pictures and listing.tables and kind != "tables":
        naming = [name for name in listing.tables if "file" in reader.found(name, pictures=True, prefer=True)]
        if kind == "auto" and len(naming) < len(listing.tables):
            other = next(name for name in listing.tables if name not in naming)
            raise SourceKindError(
                f"source {shown(listing.root)}: {len(listing.pictures):,} pictures and {len(listing.tables):,} tables lie "
                f"together, and {shown(listing.key(other))} does not name the pictures in a column "
                f"{reader.columns.file!r}: make a table alone the source to read its URLs, or set this to pictures or "
                "to tables"
            )
    if naming:
        choice = "named pictures"
    elif kind == "pictures" or (kind == "auto" and listing.pictures):
        choice = "pictures"
    else:
        choice = "tables"
    tables = naming or ([] if choice == "pictures" else listing.tables or listing.texts)
    if (choice != "tables" and not listing.pictures) or (choice == "tables" and not tables):
        raise SourceError(f"source {shown(listing.root)}: there are no {choice} in it")
    left = [("table", name) for name in listing.tables if name not in set(tables)]
    left += [(".txt", name) for name in listing.texts] if tables is not listing.texts else []
    left += [("picture", name) for name in listing.pictures] if choice == "tables" else []
    for label, name in left:
        counts.pass_over(label, listing.key(name))
    listing.tables = tables
    return choice


def _kind(name: str) -> str:
    found = table_name(name)
    assert found is not None
    return found.kind
