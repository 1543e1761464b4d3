"""Parquet, a row group at a time, in batches whose memory does not depend on what the file's dictionaries say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from facecaption_ml.dataset.sources.columns import MAX_TEXT_CHARACTERS, MAX_URL_BYTES, typed
from facecaption_ml.dataset.sources.counts import ManifestCounts, Repair, SourceError, SourceOutcome, shown
from facecaption_ml.dataset.sources.text_files import open_bytes, reading

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS: Final = 8192
_BUFFER_BYTES: Final = 2**20
_MOST_ROW_GROUP_BYTES: Final = 2**30
_MOST_ROW_BYTES: Final = 2**12
"""A row group with more bytes a row than that, and more in all than _MOST_ROW_GROUP_BYTES, is not decoded."""
_MOST_DICTIONARY_BYTES: Final = 2**28
"""Nor is one with a larger dictionary; writers stop at some MiB."""
_MOST_BYTES: Final = {"url": MAX_URL_BYTES, "text": 4 * MAX_TEXT_CHARACTERS, "nsfw": 4_000, "file": MAX_URL_BYTES}


class ParquetTable:
    """One Parquet file. ``rows`` is what its footer says."""

    def __init__(self, name: str, counts: ManifestCounts, options: Mapping[str, str] | None = None) -> None:
        """Raises SourceError where it is none."""
        self.name, self.counts, self._options = name, counts, options
        with self._opened() as parquet:
            self.header = [str(column) for column in parquet.schema_arrow.names]
            self.rows = int(parquet.metadata.num_rows)
            leaves = parquet.metadata.schema
            self._leaves = {leaves.column(place).path for place in range(len(leaves))}

    def batches(self, found: dict[str, int]) -> Iterator[pl.DataFrame]:
        """Typed batches of the columns ``found``, by their places, with the number of each row, counted from 1.

        Rows of a group that cannot be decoded are dropped and counted.
        """
        import pyarrow as pa

        names = [self.header[place] for place in found.values() if self.header[place] in self._leaves]
        with self._opened(names) as parquet:
            schema = parquet.schema_arrow
            flat = {field: place for field, place in found.items() if not pa.types.is_nested(schema.field(place).type)}
            first = 1
            for group in range(parquet.num_row_groups):
                metadata = parquet.metadata.row_group(group)
                end = first + metadata.num_rows
                wanted = [self.header[place] for place in dict.fromkeys(flat.values())]
                too_large = self._too_large(metadata, wanted)
                if too_large:
                    self._drop(SourceOutcome.ROW_GROUP_TOO_LARGE, group, first, end, too_large)
                elif wanted:
                    yield from self._group(parquet, group, first, end, flat, found)
                else:
                    yield from self._framed({}, metadata.num_rows, first, found)
                first = end

    def _group(
        self, parquet: Any, group: int, first: int, end: int, flat: dict[str, int], found: dict[str, int]
    ) -> Iterator[pl.DataFrame]:
        import pyarrow as pa

        wanted = list(dict.fromkeys(self.header[place] for place in flat.values()))
        batches = parquet.iter_batches(_BATCH_ROWS, row_groups=[group], columns=wanted, use_threads=False)
        while first < end:
            try:
                batch = next(batches, None)
                if batch is None:
                    break
                names = batch.schema.names  # of which two may be the same
                columns = {
                    field: self._series(field, batch.column(names.index(self.header[place])), first)
                    for field, place in flat.items()
                }
            except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
                self._drop(SourceOutcome.UNREADABLE_ROW_GROUP, group, first, end, error)
                return
            yield from self._framed(columns, batch.num_rows, first, found)
            first += batch.num_rows

    def _framed(
        self, columns: dict[str, pl.Series], rows: int, first: int, found: dict[str, int]
    ) -> Iterator[pl.DataFrame]:
        """A typed batch; where the URLs are lists or structs its rows are dropped."""
        address = "url" if "url" in found else "file"
        if address not in columns:
            self.counts.drop(SourceOutcome.URL_NOT_TEXT, self.name, f"row {first}", "", rows)
            return
        for field in found.keys() - columns.keys():
            repair = Repair.of_nested(field)
            if repair:
                self.counts.note_repair(repair, self.name, f"row {first}", "", rows)
        yield typed(
            pl.DataFrame(columns).with_columns(
                source_place=pl.int_range(first, first + rows, dtype=pl.Int64, eager=True)
            )
        )

    def _series(self, field: str, column: pa.Array, first: int) -> pl.Series:
        """A column as text or numbers; of values that are too long the beginning is copied."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if isinstance(column, pa.ExtensionArray):
            column = column.storage
        kind = column.type
        if pa.types.is_dictionary(kind) and not _is_text(kind.value_type):
            column, kind = column.cast(kind.value_type), kind.value_type
        if pa.types.is_dictionary(kind):
            return self._text(field, pc.take(self._cut(field, column.dictionary), column.indices), first)
        if _is_text(kind):
            return self._text(field, self._cut(field, column), first)
        if pa.types.is_integer(kind) or pa.types.is_float64(kind) or pa.types.is_float32(kind):
            return pl.Series(column)
        try:
            return pl.Series(column.cast(pa.large_string()))
        except pa.ArrowException:  # of a type that has no text of its own
            texts = [None if value is None else str(value) for value in column.to_pylist()]
            return pl.Series(texts, dtype=pl.String)

    def _cut(self, field: str, values: pa.Array) -> pa.Array:
        """Bytes of at most the field's limit and one more, which tells that there were more."""
        import pyarrow as pa
        import pyarrow.compute as pc

        values = values.cast(pa.large_binary())
        limit = _MOST_BYTES.get(field, 100)
        if (pc.max(pc.binary_length(values)).as_py() or 0) <= limit:
            return values
        short = [bytes(memoryview(value.as_buffer())[: limit + 1]) if value.is_valid else None for value in values]
        return pa.array(short, pa.large_binary())

    def _text(self, field: str, values: pa.Array, first: int) -> pl.Series:
        import pyarrow as pa

        try:
            return pl.Series(values.cast(pa.large_string()))
        except pa.ArrowInvalid:
            pass
        texts: list[str | None] = []
        for place, value in enumerate(values.to_pylist(), start=first):
            try:
                texts.append(value if value is None else value.decode())
            except UnicodeDecodeError:
                texts.append(value.decode("utf-8", "replace"))
                if len(value) <= _MOST_BYTES.get(field, 100):  # else it was cut within a character
                    self.counts.note_repair(Repair.INVALID_UTF8, self.name, f"row {place}", texts[-1])
        return pl.Series(texts, dtype=pl.String)

    def _too_large(self, metadata: Any, wanted: list[str]) -> str:
        """Why a row group would take too much memory, in words; empty where it does not."""
        columns = [metadata.column(place) for place in range(metadata.num_columns)]
        columns = [column for column in columns if column.path_in_schema in wanted]
        size = sum(column.total_uncompressed_size for column in columns)
        if size > max(_MOST_ROW_GROUP_BYTES, metadata.num_rows * _MOST_ROW_BYTES):
            return f"{size:,} bytes"
        with open_bytes(self.name, self._options) as file:
            for column in columns:
                if column.has_dictionary_page and column.total_uncompressed_size > _MOST_DICTIONARY_BYTES:
                    file.seek(column.dictionary_page_offset)
                    dictionary = _dictionary_bytes(bytes(file.read(24)))
                    if dictionary > _MOST_DICTIONARY_BYTES:
                        return f"a dictionary of {dictionary:,} bytes"
        return ""

    def _drop(self, outcome: SourceOutcome, group: int, first: int, end: int, said: object) -> None:
        self.counts.drop(outcome, self.name, f"row group {group}, rows {first} to {end - 1}", said, end - first)

    @contextlib.contextmanager
    def _opened(self, dictionaries: list[str] | None = None) -> Iterator[Any]:
        """The file, with text columns as dictionaries: a value that occurs often is in memory once."""
        import pyarrow as pa
        from pyarrow import parquet as pq

        with reading(self.name), open_bytes(self.name, self._options) as file:
            try:
                opened = pq.ParquetFile(file, read_dictionary=dictionaries, buffer_size=_BUFFER_BYTES)
            except (pa.ArrowException, ValueError) as error:
                raise SourceError(f"source {shown(self.name)}: cannot be read as parquet: {shown(error)}") from error
            yield opened


def _dictionary_bytes(header: bytes) -> int:
    """The size of a page once it is decompressed, by its header (Parquet format, PageHeader in Thrift's compact protocol).

    Its first two fields are integers: the kind of the page and that size.
    """
    value = shift = field = 0
    for byte in header[1:]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            field += 1
            if field == 3:  # the second is the byte that announces the size
                break
            value = shift = 0
    return (value >> 1) ^ -(value & 1)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    checks = ("is_string", "is_large_string", "is_binary", "is_large_binary", "is_fixed_size_binary")
    views = ("is_string_view", "is_binary_view")
    return any(getattr(pa.types, check)(kind) for check in checks) or any(
        getattr(pa.types, check)(kind) for check in views if hasattr(pa.types, check)
    )
