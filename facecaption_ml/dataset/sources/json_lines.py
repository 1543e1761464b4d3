"""JSON lines, one object each, and plain lists with one URL a line."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from facecaption_ml.dataset.options import SourceColumns
from facecaption_ml.dataset.sources.columns import as_frame, find_columns
from facecaption_ml.dataset.sources.counts import ManifestCounts, Repair, SourceOutcome
from facecaption_ml.dataset.sources.text_files import Block, TextFile

_BLANKS: Final = f"{string.whitespace}\ufeff"  # U+FEFF begins each of some files that were put together
_MOST_LAYOUTS: Final = 1_000  # of objects, by their keys, that are remembered


@dataclass
class JsonLines:
    """One JSONL file. ``other_lines`` counts its blank lines, less the objects behind a carriage return within a line.

    A line that is no object is dropped and counted, whatever it holds; surrogates without their other half become U+FFFD.
    """

    file: TextFile
    counts: ManifestCounts
    other_lines: int = 0
    found: tuple[str, ...] = ()  # fields of SourceColumns that are looked for, known with the first batch

    def keys(self) -> list[str]:
        """The names in the first objects."""
        for block in self.file.blocks():
            values = [value for value in map(_loaded, block.data.split(b"\n")) if isinstance(value, dict)]
            if values:
                return list({key: None for value in values[:1000] for key in value})
        return []

    def batches(
        self, columns: SourceColumns, *, pictures: bool = False, prefer: bool = False
    ) -> Iterator[pl.DataFrame]:
        """Typed batches with the line of each row. Raises SourceError, also where the first objects name no URL."""
        names = columns.model_dump()
        first, has_text = ManifestCounts(), False
        for block in self.file.blocks():
            rows = self._objects(block)
            if not self.found and rows:
                present = list({key: None for _, row in rows for key in row})
                address = find_columns(self.file.name, present, columns, first, pictures=pictures, prefer=prefer)
                other = "url" if "file" in address else "file"
                self.found = tuple(field for field in names if field != other)  # any object may be the first with a key
            layouts: dict[tuple[str, ...], dict[str, str]] = {}
            cells: dict[str, list[str | None]] = {field: [] for field in self.found}
            places = []
            for line, row in rows:
                keys = tuple(row)
                layout = layouts.get(keys)
                if layout is None:
                    if len(layouts) > _MOST_LAYOUTS:
                        layouts.clear()
                    layout = layouts[keys] = {field: _key(row, names[field]) for field in self.found}
                    has_text = has_text or layout["text"] in row
                values = {field: row.get(key) for field, key in layout.items()}
                location = values.get("url", values.get("file"))
                if isinstance(location, list | dict):
                    self.counts.drop(SourceOutcome.URL_NOT_TEXT, self.file.name, f"line {line}", location)
                    continue
                places.append(line)
                for field, value in values.items():
                    cells[field].append(self._text(field, value, line))
            if places:
                yield as_frame(cells, places)
        self.counts.notes += [] if has_text else first.notes

    def _objects(self, block: Block) -> list[tuple[int, dict[str, Any]]]:
        """The objects of a block with their lines."""
        rows: list[tuple[int, dict[str, Any]]] = []
        for line, data in enumerate(block.data.split(b"\n")[:-1], start=block.line):
            if not data.strip():
                self.other_lines += 1
                continue
            value = _loaded(data)
            parts = [_loaded(part) for part in data.split(b"\r") if part] if value is _MALFORMED else []
            objects = [part for part in parts if isinstance(part, dict)]
            if isinstance(value, dict):
                rows.append((line, value))
            elif objects and len(objects) == len(parts):
                rows += ((line, part) for part in objects)
                self.other_lines -= len(objects) - 1
            else:
                wrong = SourceOutcome.MALFORMED_JSON if value is _MALFORMED else SourceOutcome.NOT_AN_OBJECT
                self.counts.drop(wrong, self.file.name, f"line {line}", data[:200])
        return rows

    def _text(self, field: str, value: object, line: int) -> str | None:
        if value is None or value != value:  # NaN, as pandas has it for what is missing
            return None
        if isinstance(value, list | dict):
            repair = Repair.of_nested(field)
            if repair:
                self.counts.note_repair(repair, self.file.name, f"line {line}", str(value)[:200])
            return None
        text = value if isinstance(value, str) else str(value)
        if text.isascii():
            return text
        whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if whole != text:
            self.counts.note_repair(Repair.LONE_SURROGATE, self.file.name, f"line {line}", whole)
        return whole


@dataclass
class PlainLines:
    """A list with one URL a line. ``other_lines`` counts its blank lines, less the URLs behind a carriage return."""

    file: TextFile
    other_lines: int = 0

    def batches(self) -> Iterator[pl.DataFrame]:
        """Typed batches with the line of each row. Raises SourceError."""
        for block in self.file.blocks():
            lines = block.data.decode().split("\n")[:-1]
            urls = ((place, url.strip(_BLANKS)) for place, line in enumerate(lines) for url in line.split("\r"))
            kept = [(block.line + place, url) for place, url in urls if url]
            self.other_lines += len(lines) - len(kept)
            yield as_frame({"url": [url for _, url in kept]}, [line for line, _ in kept])


_MALFORMED: Final = object()


def _loaded(data: bytes) -> object:
    """What a line holds; ``_MALFORMED`` where it is no JSON, or nested more deeply than can be read."""
    try:
        return json.loads(data.decode().removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return _MALFORMED


def _key(row: dict[str, Any], wanted: str) -> str:
    """Under which key of an object a column stands: exactly, else without regard to case and blanks."""
    if wanted in row:
        return wanted
    folded = wanted.strip().casefold()
    return next((key for key in row if key.strip().casefold() == folded), wanted)
