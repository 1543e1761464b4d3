"""What a statistic leaves behind: its numbers as Parquet and JSON, its figure as SVG and PNG, and its part of the data card.

Everything lies under ``statistics/<name>/`` of the store: a Parquet file for each table, ``<name>.json`` with all numbers,
what they were made from and what is missing, ``<name>.svg`` and ``<name>.png``.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from facecaption_ml import figures
from facecaption_ml.errors import first_line
from facecaption_ml.markdown import escape_cell, markdown_table
from facecaption_ml.schemas import SchemaError
from facecaption_ml.storage.store import Store, StoreError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PREFIX: Final = "statistics"
SOURCES: Final = ("caption", "template_caption", "alt_text")
"""The columns of ``facecaption_dataset`` with a text of the face."""


@dataclass(frozen=True)
class Report:
    """A measured statistic.

    ``tables`` by file name, the main one first; ``markdown`` is what the data card shows of them; ``made_from`` holds plain
    numbers and words, ``rows`` among them; ``notes`` say in one line each what could not be measured and why.
    """

    title: str
    tables: Mapping[str, pl.DataFrame]
    markdown: str
    figure: Figure | None
    made_from: Mapping[str, int | str]
    notes: Sequence[str] = ()

    def as_json(self) -> bytes:
        """All numbers and words; equal statistics give equal bytes."""
        content = {
            "title": self.title,
            "made_from": dict(self.made_from),
            "notes": list(self.notes),
            "markdown": self.markdown,
            "tables": {name: table.to_dicts() for name, table in self.tables.items()},
        }
        return json.dumps(content, indent=1, ensure_ascii=False).encode()

    @property
    def version(self) -> str:
        """16 hex digits that differ where a number, or what it was made from, does."""
        return hashlib.sha256(self.as_json()).hexdigest()[:16]

    def files(self, name: str) -> dict[str, bytes]:
        """Every file of the statistic ``name`` with its bytes."""
        drawn = figures.files(self.figure, name) if self.figure else {}
        return {
            **{f"{table}.parquet": _parquet(frame) for table, frame in self.tables.items()},
            f"{name}.json": self.as_json(),
            **drawn,
        }


def key(name: str, file: str) -> str:
    """Where a file of the statistic ``name`` lies in the store."""
    return f"{PREFIX}/{name}/{file}"


def write_files(store: Store, name: str, files: Mapping[str, bytes]) -> None:
    """Write the files of a statistic; what an earlier run left and this one does not have is removed."""
    before = set(store.keys(f"{PREFIX}/{name}/"))
    for file, data in files.items():
        store.write_bytes(key(name, file), data)
    for old in before - {key(name, file) for file in files}:
        store.delete(old)


def card_sections(store: Store, names: Sequence[str], rows: int) -> tuple[str, dict[str, bytes]]:
    """The data card's sections on the statistics ``names``, and the figures they show, PNG by file name.

    A statistic that is not there or cannot be read is one line instead of a section, and one that was measured on another
    number of rows than the ``rows`` of ``facecaption_dataset`` now says so: nothing here holds a release up.
    """
    sections, pictures, missing = [], {}, []
    for name in names:
        try:
            if not store.exists(key(name, f"{name}.json")):
                missing.append(f"- `{name}` is not part of this card: the asset has not been materialized.")
                continue
            text, drawn = _section(store, name, rows)
        except (StoreError, OSError, ValueError, KeyError) as error:
            line = first_line(error)
            missing.append(f"- `{name}` is not part of this card: {line}")
            continue
        sections.append(text)
        pictures.update(drawn)
    return "\n\n".join([*sections, *(["\n".join(missing)] if missing else [])]), pictures


def require_columns(frame: pl.DataFrame, names: Sequence[str]) -> None:
    """Raises SchemaError for a frame of ``facecaption_dataset`` without one of the columns."""
    for name in names:
        if name not in frame.columns:
            raise SchemaError(f"table facecaption_dataset: column {name!r} is missing")


def frame_markdown(frame: pl.DataFrame, columns: Mapping[str, str] | None = None) -> str:
    """A frame as a Markdown table; ``columns`` chooses columns and gives their headings. Null is shown as "–"."""
    headings = columns or {name: name for name in frame.columns}
    rows = ([shown(row[name]) for name in headings] for row in frame.iter_rows(named=True))
    align = "".join("r" if frame.schema[name].is_numeric() else "l" for name in headings)
    return markdown_table(list(headings.values()), rows, align)


def transposed_markdown(frame: pl.DataFrame, by: str) -> str:
    """A frame with few rows as a Markdown table with a column for each of them, headed by its value of ``by``."""
    rows = {name: [shown(value) for value in frame[name]] for name in frame.columns}
    head = [by, *rows.pop(by)]
    return markdown_table(
        head, [[name.replace("_", " "), *cells] for name, cells in rows.items()], "l" + "r" * len(frame)
    )


def _section(store: Store, name: str, rows: int) -> tuple[str, dict[str, bytes]]:
    report = json.loads(store.read_bytes(key(name, f"{name}.json")))
    measured, picture = report["made_from"]["rows"], key(name, f"{name}.png")
    parts = [f"### {report['title']}"]
    if measured != rows:
        parts.append(f"Measured on {measured:,} rows; `facecaption_dataset` has {rows:,} now.")
    drawn = {}
    if store.exists(picture):
        drawn[f"{name}.png"] = store.read_bytes(picture)
        parts.append(f"![{report['title']}](figures/{name}.png)")
    if report["markdown"]:
        parts.append(report["markdown"].strip())
    if report["notes"]:
        parts.append("\n".join(f"- {note}" for note in report["notes"]))
    return "\n\n".join(parts), drawn


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def shown(value: Any) -> str:
    """A value as a cell of a Markdown table."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"
    return escape_cell(str(value))
