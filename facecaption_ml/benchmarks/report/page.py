"""Tables and figures as one HTML page that needs nothing else: no scripts, no addresses, light and dark (``page.html``)."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, groupby
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from facecaption_ml.benchmarks.report.table import KIND_WORDS, Table, plain

_ENDING: Final = re.compile(r"\.(png|jpe?g|svg)$", re.IGNORECASE)
_SIGNATURES: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"<?xml", "image/svg+xml"),
    (b"<svg", "image/svg+xml"),
)


def html(tables: Sequence[Table], figures: Mapping[str, bytes]) -> str:
    """The page. ``figures`` are PNG, JPEG or SVG by name, shown by name; the name, without ending, is caption and alt text.

    Equal tables and figures give equal pages. Raises ValueError naming a figure of another format.
    """
    return _template().render(
        sections=[_section(table, f"t{number}") for number, table in enumerate(tables, start=1)],
        figures=[
            {"caption": _ENDING.sub("", name).replace("_", " "), "source": _data_uri(name, figures[name])}
            for name in sorted(figures)
        ],
        present={row.kind for table in tables for row in table.rows},
        kind_words=KIND_WORDS,
    )


def _section(table: Table, anchor: str) -> dict[str, Any]:
    """A table as the template walks it: runs of columns in one block, where blocks begin, and parts of rows."""
    runs = [
        [column for _, column in run]
        for _, run in groupby(enumerate(table.columns), key=lambda numbered: numbered[1].block or numbered[0])
    ]
    starts = accumulate((len(run) for run in runs), initial=0)
    return {
        "table": table,
        "anchor": anchor,
        "runs": runs,
        "edges": {start for start, run in zip(starts, runs, strict=False) if run[0].block},
        "parts": [list(rows) for _, rows in groupby(table.rows, key=lambda row: row.part)],
    }


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("facecaption_ml.benchmarks", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = plain
    return environment.get_template("page.html")


def _data_uri(name: str, data: bytes) -> str:
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return f"data:{kind};base64,{b64encode(data).decode()}"
    raise ValueError(f"figure {name!r} is none of PNG, JPEG and SVG")
