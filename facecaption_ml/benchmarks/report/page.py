"""Tables and pictures as one HTML page that needs nothing else: no scripts, no addresses, light and dark."""

from __future__ import annotations

import re
import tomllib
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from html import escape
from importlib.resources import files
from itertools import groupby
from typing import Any, Final

from facecaption_ml.benchmarks.report.table import KIND_WORDS, Cell, Row, Span, Table, heading_rows, plain

_ENDING: Final = re.compile(r"\.(png|jpe?g|svg)$", re.IGNORECASE)
_SIGNATURES: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"<?xml", "image/svg+xml"),
    (b"<svg", "image/svg+xml"),
)


def html(tables: Sequence[Table], pictures: Mapping[str, bytes]) -> str:
    """The page. ``pictures`` are PNG, JPEG or SVG by name, shown by name; the name, without ending, is caption and alt text.

    Equal tables and pictures give equal pages. Raises ValueError naming a picture of another format.
    """
    words = _words()
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(words['title'])}</title>",
        f"<style>\n{words['style'].strip()}\n</style>",
        "</head>",
        "<body>",
        *_header(tables, bool(pictures), words),
        "<main>",
        *(line for number, table in enumerate(tables, start=1) for line in _section(table, f"t{number}")),
        *(_figures(pictures) if pictures else []),
        "</main>",
        "</body>",
        "</html>",
    ]
    return "\n".join(parts) + "\n"


@lru_cache(maxsize=1)
def _words() -> dict[str, Any]:
    return tomllib.loads(files("facecaption_ml.benchmarks.report").joinpath("page.toml").read_text("utf-8"))


def _header(tables: Sequence[Table], pictures: bool, words: Mapping[str, Any]) -> list[str]:
    entries = [(f"t{number}", table.title) for number, table in enumerate(tables, start=1)]
    entries += [("figures", "Figures")] if pictures else []
    links = [f'<li><a href="#{anchor}">{_text(title)}</a></li>' for anchor, title in entries]
    present = {row.kind for table in tables for row in table.rows}
    kinds = [
        f"<dt>{_badge(kind['kind'])}</dt><dd>{_text(kind['text'])}</dd>"
        for kind in words["kinds"]
        if kind["kind"] in present
    ]
    return [
        "<header>",
        f"<h1>{_text(words['title'])}</h1>",
        f'<p class="lead">{_text(words["lead"])}</p>',
        *(['<nav aria-label="Tables"><ul>', *links, "</ul></nav>"] if links else []),
        *(['<dl class="kinds">', *kinds, "</dl>"] if kinds else []),
        "</header>",
    ]


def _section(table: Table, anchor: str) -> list[str]:
    words = "" if any(column.numeric for column in table.columns) else ' class="words"'
    return [
        f'<section id="{anchor}">',
        f'<h2 id="{anchor}-title">{_text(table.title)}</h2>',
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{anchor}-title">',
        f"<table{words}>",
        "<thead>",
        *(f"<tr>{''.join(_heading(span, table, anchor) for span in spans)}</tr>" for spans in heading_rows(table)),
        "</thead>",
        *(
            line
            for part, rows in groupby(table.rows, key=lambda row: row.part)
            for line in _part(part, rows, table, anchor)
        ),
        "</table>",
        "</div>",
        *_notes(table, anchor),
        "</section>",
    ]


def _heading(span: Span, table: Table, anchor: str) -> str:
    column = table.columns[span.start]
    last = span.cell is column.headings[-1]
    kind = _classes(["number" if column.numeric else "stub"] * last + ["edge"] * _begins_block(table, span.start))
    over = f' colspan="{span.columns}"' if span.columns > 1 else ""
    over += f' rowspan="{span.rows}"' if span.rows > 1 else ""
    scope = "col" if last else "colgroup"
    return f'<th scope="{scope}"{kind}{over}>{_cell(span.cell, anchor)}</th>'


def _part(part: str, rows: Iterable[Row], table: Table, anchor: str) -> list[str]:
    found = list(rows)
    kind = ' class="published"' if found[0].kind == "published" else ""
    return [
        f"<tbody{kind}>",
        f'<tr class="part"><th scope="rowgroup" colspan="{len(table.columns)}"><span>{_text(part)}</span></th></tr>',
        *(_row(row, table, anchor) for row in found),
        "</tbody>",
    ]


def _row(row: Row, table: Table, anchor: str) -> str:
    cells = [f'<th scope="row">{_cell(row.cells[0], anchor)}</th>']
    for number, (cell, column) in enumerate(zip(row.cells[1:], table.columns[1:], strict=True), start=1):
        marked = cell.lines == (KIND_WORDS[row.kind],) and not column.numeric
        kind = _classes(["number"] * column.numeric + ["edge"] * _begins_block(table, number))
        cells.append(f"<td{kind}>{_badge(row.kind) if marked else _cell(cell, anchor)}</td>")
    return f'<tr class="{row.kind}">{"".join(cells)}</tr>'


def _begins_block(table: Table, number: int) -> bool:
    """Whether a block of columns under one heading begins with this column."""
    levels, before = table.columns[number].headings, table.columns[number - 1].headings if number else ()
    return len(levels) > 1 and levels[0] != (before[0] if before else None)


def _classes(names: Sequence[str]) -> str:
    return f' class="{" ".join(names)}"' if names else ""


def _cell(cell: Cell, anchor: str) -> str:
    links = ", ".join(f'<a href="#{anchor}-n{number}">{number}</a>' for number in cell.notes)
    return "<br>".join(_text(line) for line in cell.lines) + (f"<sup>{links}</sup>" if links else "")


def _badge(kind: str) -> str:
    words: Mapping[str, str] = {str(key): word for key, word in KIND_WORDS.items()}
    return f'<span class="badge {kind}">{_text(words[kind])}</span>'


def _notes(table: Table, anchor: str) -> list[str]:
    if not table.remarks and not table.footnotes:
        return []
    numbered = [f'<li id="{anchor}-n{n}">{_text(note)}</li>' for n, note in enumerate(table.footnotes, start=1)]
    return [
        '<div class="notes">',
        *(f"<p>{_text(remark)}</p>" for remark in table.remarks),
        *(["<ol>", *numbered, "</ol>"] if numbered else []),
        "</div>",
    ]


def _figures(pictures: Mapping[str, bytes]) -> list[str]:
    lines = ['<section id="figures">', "<h2>Figures</h2>", '<div class="figures">']
    for name in sorted(pictures):
        caption = _text(_ENDING.sub("", name).replace("_", " "))
        source = f"data:{_format(name, pictures[name])};base64,{b64encode(pictures[name]).decode()}"
        lines.append(f'<figure><img src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>')
    return [*lines, "</div>", "</section>"]


def _format(name: str, data: bytes) -> str:
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return kind
    raise ValueError(f"picture {name!r} is none of PNG, JPEG and SVG")


def _text(text: str) -> str:
    return escape(plain(text))
