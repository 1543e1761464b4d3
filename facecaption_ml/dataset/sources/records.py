"""Records of delimited text as people write it, line by line: for what does not keep to RFC 4180.

A quote within an unquoted field is text. A quoted field that ends on its line ends as Python's csv module has it; one that runs
over lines must be closed by a quote before a delimiter or a line end, and must not join lines each of which is a row itself:
else the quote that opened it is text, and the line a row like any other. A carriage return alone ends a row where what is
before and behind it are rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from facecaption_ml.dataset.sources.names import is_picture

_URL: Final = re.compile(r"""[\s"]*[a-zA-Z][a-zA-Z0-9+.-]*://""")
MAX_RECORD_CHARACTERS: Final = 4 * 2**20
"""A quoted field that is still open after so much is taken for a stray quote."""
_MOST_STRAYS: Final = 20  # quotes of one line that are looked at one by one
_MOST_OPEN: Final = 100  # fields of one record that run over lines


class Record(NamedTuple):
    """A row: the place of its first line, its fields, over how many lines it runs (0: it shares the line of the one before),
    whether an opening quote in it is text."""

    place: int
    fields: list[str]
    lines: int = 1
    stray: bool = False


class RecordReader:
    """Cuts lines into records; ``columns`` is how many fields the header has, 0 while that is not known.

    ``address``: the place of the field that has the picture's URL or, with ``files``, its file's name.
    """

    def __init__(self, delimiter: str, quoting: bool, columns: int, address: int = 0, *, files: bool = False) -> None:
        self._delimiter, self._quoting, self._columns, self._address = delimiter, quoting, columns, address
        self._is_address: Callable[[str], object] = _is_file if files else _URL.match

    def read(self, lines: Sequence[str], *, final: bool) -> tuple[list[Record], int, int]:
        """The records of ``lines`` (without their ``\\n``), how many lines were taken, and how many of those were blank.

        Less than all unless ``final``: where a quoted field is open at the end, its record waits for further lines.
        """
        records: list[Record] = []
        place = blank = 0
        while place < len(lines):
            text = lines[place].rstrip("\r")
            if not text:
                place += 1
                blank += 1
                continue
            several = self._several(place, text) if "\r" in text else []
            if several:
                records += several
                place += 1
                continue
            if self._quoting and '"' in text:
                record = self._quoted(lines, place, final)
                if record is None:
                    break
            else:
                record = Record(place, text.split(self._delimiter))
            records.append(record)
            place += record.lines
        return records, place, blank

    def looks_like_a_row(self, line: str) -> bool:
        """Whether a line on its own has the header's number of fields, and an address where that has one."""
        if self._columns < 1 or line.count(self._delimiter) < self._columns - 1:
            return False
        fields = self._split(line)[0] if self._quoting else line.split(self._delimiter)
        return self._is_row(fields)

    def _is_row(self, fields: list[str]) -> bool:
        return len(fields) == self._columns and bool(self._is_address(fields[self._address]))

    def _several(self, place: int, text: str) -> list[Record]:
        """The records of a line in which carriage returns part rows; none where it is one."""
        parts = [part for part in text.split("\r") if part]
        for part in parts:
            if not self.looks_like_a_row(part) or (self._quoting and self._split(part)[1] is not None):
                return []
        cells = [self._split(part)[0] if self._quoting else part.split(self._delimiter) for part in parts]
        return [Record(place, fields, int(number == 0)) for number, fields in enumerate(cells)]

    def _quoted(self, lines: Sequence[str], place: int, final: bool) -> Record | None:
        """The record that begins in a line with quotes; None where its end is not among ``lines``."""
        text = lines[place].rstrip("\r")
        fields, opened = first = self._split(text)
        count, most = 1, self._columns or len(lines)
        for _ in range(_MOST_OPEN):
            if opened is None or len(fields) > most:
                break
            last = self._closing_line(lines, place + count)
            if last is None:
                waits = not final and sum(map(len, lines[place:])) <= MAX_RECORD_CHARACTERS
                return None if waits else self._with_stray(place, text, first[1])
            if last < 0:
                break
            count = last - place + 1
            fields, opened = self._split("\n".join(lines[place : last + 1]).rstrip("\r"))
        if opened is not None:
            return self._with_stray(place, text, first[1])
        if count > 1:
            single = self._with_stray(place, text, first[1])
            wrong = len(fields) != self._columns and len(single.fields) == self._columns
            rows = self._is_row(single.fields) and all(map(self.looks_like_a_row, lines[place + 1 : place + count]))
            if wrong or rows:
                return single
        return Record(place, fields, count)

    def _closing_line(self, lines: Sequence[str], start: int) -> int | None:
        """The line from ``start`` on in which a quoted field ends; None: not among them, -1: a quote there ends none."""
        size = 0
        for place in range(start, len(lines)):
            line = lines[place].rstrip("\r")
            at = line.find('"')
            while at >= 0:
                following = line[at + 1 : at + 2]
                if following == '"':
                    at = line.find('"', at + 2)
                    continue
                return place if following in ("", self._delimiter) else -1
            size += len(line)
            if size > MAX_RECORD_CHARACTERS:
                return -1
        return None

    def _with_stray(self, place: int, text: str, opened: int | None) -> Record:
        """One line as a record of its own, in which quotes that nothing closes are text."""
        literal: set[int] = set()
        fields: list[str] = []
        while opened is not None and len(literal) < _MOST_STRAYS:
            literal.add(opened)
            fields, opened = self._split(text, literal)
        return Record(place, fields if opened is None else text.split(self._delimiter), 1, True)

    def _split(self, text: str, literal: set[int] | None = None) -> tuple[list[str], int | None]:
        """The fields, and where the last of them opened with a quote that is not closed; ``literal``: quotes that are text."""
        fields: list[str] = []
        at, end = 0, len(text)
        while True:
            if text.startswith('"', at) and not (literal and at in literal):
                close = text.find('"', at + 1)
                while close >= 0 and text.startswith('"', close + 1):
                    close = text.find('"', close + 2)
                if close < 0:
                    return [*fields, text[at:]], at
                after = text.find(self._delimiter, close + 1)
                stop = end if after < 0 else after
                fields.append(text[at + 1 : close].replace('""', '"') + text[close + 1 : stop])
            else:
                after = text.find(self._delimiter, at)
                stop = end if after < 0 else after
                fields.append(text[at:stop])
            if after < 0:
                return fields, None
            at = after + 1


def _is_file(field: str) -> bool:
    return is_picture(field.strip(' "'))
