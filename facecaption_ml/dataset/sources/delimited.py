"""CSV and TSV, in blocks: those in which every quote keeps to RFC 4180, or none begins a field, by Arrow; others record by
record (``records.py``).

What Arrow finds in a block must have as many records as the block has line ends outside quotes; else, and where a row is longer
or shorter than the header, the block is read record by record too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from facecaption_ml.dataset.sources.columns import as_frame, typed, without_empty
from facecaption_ml.dataset.sources.counts import ManifestCounts, Repair, SourceError, shown
from facecaption_ml.dataset.sources.records import MAX_RECORD_CHARACTERS, Record, RecordReader
from facecaption_ml.dataset.sources.text_files import Block, TextFile

_QUOTE, _NEWLINE, _RETURN = 0x22, 0x0A, 0x0D
_MOST_HEADER_LINES: Final = 100
_NUMBERS: Final = ("width", "height")


class _Shape(NamedTuple):
    """The records of a block that keeps to the RFC: up to where they are whole, and the line of each, counted from 0.

    ``quoting``: whether its quotes enclose fields; where none begins a field they are text.
    """

    quoting: bool
    used: int
    lines: np.ndarray
    continued: int
    blank: int


@dataclass
class DelimitedTable:
    """One CSV or TSV file. ``other_lines`` counts its lines that begin no record (header, blank, within a quoted field), less
    the records that begin within a line."""

    file: TextFile
    counts: ManifestCounts
    delimiter: str = ","
    quoting: bool = True
    other_lines: int = 0

    def __post_init__(self) -> None:
        self._blocks = self.file.blocks()
        self._rest = Block(1, b"")
        self.header = self._read_header()

    def batches(self, found: dict[str, int]) -> Iterator[pl.DataFrame]:
        """Typed batches of the columns ``found``, by their places, with the line of each row. Raises SourceError."""
        rest = self._rest
        self._reader = RecordReader(
            self.delimiter,
            self.quoting,
            len(self.header),
            found.get("url", found.get("file", 0)),
            files="file" in found,
        )
        for block in chain([Block(rest.line, b"")], self._blocks, [None]):
            if block is not None:
                data = rest.data + block.data
                rest = Block(block.line - rest.data.count(b"\n") if rest.data and block.data else block.line, data)
            while rest.data:
                frame, used = self._parse(rest, found, final=block is None)
                if not used:
                    break
                rest = Block(rest.line + rest.data.count(b"\n", 0, used), rest.data[used:])
                if len(frame):
                    yield frame

    def _read_header(self) -> list[str]:
        """Its cells. Raises SourceError where there is none."""
        for block in self._blocks:
            lines = block.data.decode().split("\n")[:-1]
            begin = next((place for place, line in enumerate(lines) if line.strip("\r")), None)
            if begin is None:
                self.other_lines += len(lines)
                continue
            near = lines[begin : begin + _MOST_HEADER_LINES]
            first = RecordReader(self.delimiter, self.quoting, 0).read(near, final=True)[0][0]
            used = begin + first.lines
            self.other_lines += used
            rest = "".join(f"{line}\n" for line in lines[used:]).encode()
            self._rest = Block(block.line + used, rest)
            return first.fields
        raise SourceError(f"source {shown(self.file.name)}: it is empty")

    def _parse(self, block: Block, found: dict[str, int], *, final: bool) -> tuple[pl.DataFrame, int]:
        """The rows of what is whole in ``block``, and how many bytes that is; 0 where more is needed."""
        shape = self._shape(block.data)
        if shape is not None and not shape.used and not final and len(block.data) <= MAX_RECORD_CHARACTERS:
            return pl.DataFrame(), 0
        if shape is not None and shape.used:
            frame = self._by_arrow(block, shape, found)
            if frame is not None:
                self.other_lines += shape.continued + shape.blank
                self.counts.continued_lines += shape.continued
                return frame, shape.used
        return self._by_record(block, found, final=final)

    def _shape(self, data: bytes) -> _Shape | None:
        """None where a quote or a carriage return is not as the RFC has it, or rows may be within a quoted field."""
        if data.count(b"\r") != data.count(b"\r\n"):
            return None
        values = np.frombuffer(data, np.uint8)
        newlines = np.flatnonzero(values == _NEWLINE)
        quotes = np.flatnonzero(values == _QUOTE) if self.quoting else np.empty(0, np.int64)
        before = values[quotes[quotes > 0] - 1]
        quoting = bool(len(before) < len(quotes) or (before == ord(self.delimiter)).any() or (before == _NEWLINE).any())
        quotes = quotes if quoting else quotes[:0]
        within = np.searchsorted(quotes, newlines) % 2 == 1
        ends = np.flatnonzero(~within)
        if not len(ends):
            return _Shape(quoting, 0, ends, 0, 0)
        used = int(newlines[ends[-1]]) + 1
        if not self._strict(values, quotes[quotes < used]) or self._swallows(data, newlines, within, int(ends[-1])):
            return None
        starts = np.concatenate([[0], newlines[ends[:-1]] + 1])
        blank = (values[starts] == _NEWLINE) | ((values[starts] == _RETURN) & (ends - np.append(-1, ends[:-1]) == 1))
        blank &= newlines[ends] - starts <= 1
        lines = np.concatenate([[0], ends[:-1] + 1])[~blank]
        return _Shape(quoting, used, lines, int(ends[-1]) + 1 - len(ends), int(blank.sum()))

    def _strict(self, values: np.ndarray, quotes: np.ndarray) -> bool:
        """Whether each quote opens a field at its start, closes it at its end, or is one of two within it."""
        opening, closing = quotes[0::2], quotes[1::2]
        before = values[opening[opening > 0] - 1]
        after = values[closing + 1]  # the last byte is a line end
        delimiter = ord(self.delimiter)
        opens = (before == delimiter) | (before == _NEWLINE) | (before == _QUOTE)
        closes = (after == delimiter) | (after == _NEWLINE) | (after == _RETURN) | (after == _QUOTE)
        return bool(opens.all() and closes.all())

    def _swallows(self, data: bytes, newlines: np.ndarray, within: np.ndarray, last: int) -> bool:
        """Whether a line within a quoted field could be a row."""
        for place in np.flatnonzero(within[:last]):
            line = data[newlines[place] + 1 : newlines[place + 1]]
            if self._reader.looks_like_a_row(line.decode()):
                return True
        return False

    def _by_arrow(self, block: Block, shape: _Shape, found: dict[str, int]) -> pl.DataFrame | None:
        """None where Arrow sees it otherwise."""
        import pyarrow as pa
        from pyarrow import csv

        if not len(shape.lines):
            return pl.DataFrame()
        names = [str(place) for place in range(len(self.header))]
        wanted = [str(place) for place in dict.fromkeys(found.values())]
        try:
            table = csv.read_csv(
                pa.py_buffer(memoryview(block.data)[: shape.used]),
                csv.ReadOptions(use_threads=False, block_size=shape.used + 1, column_names=names),
                csv.ParseOptions(
                    delimiter=self.delimiter, quote_char='"' if shape.quoting else False, newlines_in_values=True
                ),
                csv.ConvertOptions(
                    include_columns=wanted, column_types=dict.fromkeys(names, pa.large_string()), check_utf8=False
                ),
            )
        except pa.ArrowException:
            return None
        if table.num_rows != len(shape.lines):
            return None
        frame = pl.DataFrame(table).select(
            **{field: pl.col(str(place)) for field, place in found.items()},
            source_place=pl.Series(shape.lines + block.line, dtype=pl.Int64),
        )
        return typed(without_empty(frame))

    def _by_record(self, block: Block, found: dict[str, int], *, final: bool) -> tuple[pl.DataFrame, int]:
        lines = block.data.decode().split("\n")[:-1]
        records, used, blank = self._reader.read(lines, final=final)
        continued = sum(record.lines - 1 for record in records)
        self.other_lines += blank + continued
        self.counts.continued_lines += sum(max(0, record.lines - 1) for record in records)
        columns = len(self.header)
        rows = [
            self._cells(record, block.line, found) if record.stray or len(record.fields) != columns else record.fields
            for record in records
        ]
        values = {field: [row[place] for row in rows] for field, place in found.items()}
        frame = as_frame(values, [block.line + record.place for record in records])
        consumed = len(block.data) if used == len(lines) else sum(len(line.encode()) + 1 for line in lines[:used])
        return frame, consumed

    def _cells(self, record: Record, line: int, found: dict[str, int]) -> list[str]:
        """Its fields, with those that are too many or too few made fit."""
        fields, columns = record.fields, len(self.header)
        place = f"line {line + record.place}"
        if record.stray:
            self.counts.note_repair(Repair.STRAY_QUOTE, self.file.name, place, self.delimiter.join(fields))
        if len(fields) < columns:
            self.counts.note_repair(Repair.MISSING_FIELDS, self.file.name, place, self.delimiter.join(fields))
            return [*fields, *[""] * (max(found.values()) + 1 - len(fields))]
        if len(fields) > columns:
            self.counts.note_repair(Repair.SURPLUS_FIELDS, self.file.name, place, self.delimiter.join(fields))
            return self._joined(fields, found)
        return fields

    def _joined(self, fields: list[str], found: dict[str, int]) -> list[str]:
        """Surplus fields are commas of the text, unless width and height would then be no numbers: then they are cut off.

        Where each column is one that is read, and none of texts, they are commas of the address.
        """
        surplus, text = len(fields) - len(self.header), found.get("text")
        if text is None and set(found.values()) == set(range(len(self.header))):
            text = found.get("url", found.get("file"))
        if text is None or not any(field.strip() for field in fields[len(self.header) :]):
            return fields
        end = text + surplus + 1
        joined = [*fields[:text], self.delimiter.join(fields[text:end]), *fields[end:]]
        numbers = [joined[found[field]] for field in _NUMBERS if field in found]
        return joined if all(_is_number(number) for number in numbers) else fields


def _is_number(text: str) -> bool:
    try:
        float(text or "0")
    except ValueError:
        return False
    return True
