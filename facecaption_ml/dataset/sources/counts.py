"""What became of every row of a source, counted while it is read, with the first examples of each kind by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.texts import LINE, shortened

EXAMPLES: Final = 5
"""Rows of each reason that are named."""


class SourceError(FaceCaptionError):
    """The source cannot be used; the message names the file, folder or column."""


class SourceColumnError(SourceError):
    """The source has no column of that name for its URLs."""


class SourceKindError(SourceError):
    """A folder holds tables and pictures, and nothing says which are meant."""


class SourceOutcome(StrEnum):
    """What became of a row of the source: kept, or why it was dropped."""

    KEPT = "kept"
    NSFW = "nsfw"
    NO_URL = "no_url"
    URL_TOO_LONG = "url_too_long"
    URL_NOT_TEXT = "url_not_text"  # a list, a struct
    LINE_TOO_LONG = "line_too_long"
    MALFORMED_JSON = "malformed_json"  # also nested too deeply
    NOT_AN_OBJECT = "not_an_object"  # JSON, but no object
    UNREADABLE_ROW_GROUP = "unreadable_row_group"
    ROW_GROUP_TOO_LARGE = "row_group_too_large"
    MISSING_FILE = "missing_file"  # a table of pictures names one that is not there
    FILE_OUTSIDE = "file_outside"  # or one outside its folder


class Repair(StrEnum):
    """What was repaired in a row that was kept."""

    INVALID_UTF8 = "invalid_utf8"  # bytes became U+FFFD
    LONE_SURROGATE = "lone_surrogate"  # became U+FFFD
    STRAY_QUOTE = "stray_quote"  # one that nothing closes is text
    SURPLUS_FIELDS = "surplus_fields"  # more than the header: joined to the text, or cut
    MISSING_FIELDS = "missing_fields"  # fewer than the header: empty
    TEXT_CUT = "text_cut"
    TEXT_NOT_TEXT = "text_not_text"  # a list, a struct: empty
    NSFW_NOT_TEXT = "nsfw_not_text"  # a list, a struct: it excludes nothing

    @classmethod
    def of_nested(cls, field: str) -> Repair | None:
        """Of a field of SourceColumns that holds a list or a struct; None for sizes, which are only hints."""
        return {"text": cls.TEXT_NOT_TEXT, "nsfw": cls.NSFW_NOT_TEXT}.get(field)


class Example(NamedTuple):
    """A row by its file, its place there (``line 7``, ``row 7``), what happened, and what it holds."""

    file: str
    place: str
    reason: str
    excerpt: str


@dataclass
class ManifestCounts:
    """Rows of the source by outcome, what was repaired, and what was passed over.

    ``records`` is how many rows the source has by a count of its own: line ends of the bytes as they come (less those that are
    headers, blank or within a quoted field), the footer of a Parquet file, the files of a listing. It is None where nothing
    counted them.
    ``duplicates`` are kept rows whose URL had occurred before. ``passed_over`` counts files by kind.
    """

    by_outcome: Counter[str] = field(default_factory=Counter)
    duplicates: int = 0
    records: int | None = None
    repaired: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)
    files: int = 0
    continued_lines: int = 0  # lines that are the inside of a quoted field
    notes: list[str] = field(default_factory=list)
    dropped_examples: list[Example] = field(default_factory=list)
    repaired_examples: list[Example] = field(default_factory=list)
    passed_over_examples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(self.by_outcome.values())

    @property
    def dropped(self) -> dict[str, int]:
        """Rows by reason."""
        return {reason: count for reason, count in self.by_outcome.items() if reason != SourceOutcome.KEPT}

    def add_records(self, count: int) -> None:
        self.records = (self.records or 0) + count

    def drop(self, outcome: SourceOutcome, file: str, place: str, excerpt: object = "", rows: int = 1) -> None:
        """Count rows that the reader does not hand on."""
        named = self.by_outcome[outcome.value]
        self.by_outcome[outcome.value] += rows
        if named < EXAMPLES:
            self.name_dropped(outcome.value, file, place, excerpt)

    def name_dropped(self, outcome: str, file: str, place: str, excerpt: object = "") -> None:
        """One of the rows that are counted already."""
        self.dropped_examples.append(Example(shown(file), place, outcome, shown(excerpt)))

    def note_repair(self, repair: Repair, file: str, place: str, excerpt: object = "", rows: int = 1) -> None:
        """Count rows that are kept after a repair."""
        named = self.repaired[repair.value]
        self.repaired[repair.value] += rows
        if named < EXAMPLES:
            self.repaired_examples.append(Example(shown(file), place, repair.value, shown(excerpt)))

    def pass_over(self, kind: str, name: str) -> None:
        """Count a file that is no part of the source."""
        self.passed_over[kind] += 1
        examples = self.passed_over_examples.setdefault(kind, [])
        if len(examples) < EXAMPLES:
            examples.append(shown(name))

    def lines(self) -> list[str]:
        """What a reader of the log must know, a line each; empty where every row was taken as it is."""
        said = list(self.notes)
        if self.dropped:
            said.append(f"rows dropped: {in_words(self.dropped)}{_first(self.dropped_examples)}")
        if self.repaired:
            said.append(f"rows kept after a repair: {in_words(self.repaired)}{_first(self.repaired_examples)}")
        if self.passed_over:
            examples = ", ".join(names[0] for names in list(self.passed_over_examples.values())[:3])
            said.append(f"files passed over: {in_words(self.passed_over)}, such as {examples}")
        return said


def in_words(counts: Mapping[str, int]) -> str:
    """``3 no_url, 1 nsfw``: the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {name}" for name, count in ordered)


def shown(value: object) -> str:
    """A name or a row in one short line that every log and table can hold."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    if not text.isascii():
        text = text[: 2 * LINE]
        text = text.encode("utf-8", "surrogateescape" if _escaped(text) else "replace").decode("utf-8", "replace")
    return shortened(text.replace("\x00", "\ufffd"))


def _escaped(text: str) -> bool:
    """Whether its surrogates stand for bytes of a file name."""
    return all(0xDC80 <= ord(c) <= 0xDCFF for c in text if 0xD800 <= ord(c) <= 0xDFFF)


def _first(examples: list[Example]) -> str:
    if not examples:
        return ""
    first = examples[0]
    return f"; first: {first.file}, {first.place} ({first.reason})"
