"""Tables as LaTeX: a booktabs tabular each, to be read in by a document with \\usepackage{booktabs,graphicx}."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Final

from facecaption_ml.benchmarks.report.table import Cell, Span, Table, heading_rows, plain

_PREAMBLE: Final = "% Needs \\usepackage{booktabs} and \\usepackage{graphicx}."
_WIDE: Final = 9  # columns that still fit a page at \small; a block of more is scaled to its width
_NOTHING: Final = (("",), ("–",))
_LAST_LETTER: Final = "\u017f"  # what T1 fonts have; pdfTeX stops at other letters, so those are spelled by number

_ESCAPES: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    "[": "{[}",  # after the end of a row it would begin an option
    "]": "{]}",
    "*": r"\textasteriskcentered{}",  # after the end of a row it would be its starred form
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
    "−": r"$-$",
    "×": r"$\times$",
    "·": r"\textperiodcentered{}",
    "√": r"$\surd$",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "…": r"\dots{}",
    "‘": r"\textquoteleft{}",
    "’": r"\textquoteright{}",
    "“": r"\textquotedblleft{}",
    "”": r"\textquotedblright{}",
}


def latex(tables: Sequence[Table]) -> str:
    """A ``table*`` for each table, with its remarks and footnotes below, ending in a newline.

    A table too wide for a page has its blocks of columns one below the other, each with the rows that have a number there.
    Letters that pdfTeX's T1 fonts lack are spelled by number ("[U+4E2D]").
    """
    return "\n\n".join([_PREAMBLE, *(_table(table) for table in tables)]) + "\n"


def _table(table: Table) -> str:
    below = [_text(remark) for remark in table.remarks]
    below += [f"{_marks([number])}~{_text(note)}" for number, note in enumerate(table.footnotes, start=1)]
    lines = [
        r"\begin{table*}",
        r"\centering\small\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{_text(table.title)}}}",
        rf"\label{{tab:{''.join(c for c in table.name if c.isascii() and c.isalnum())}}}",
        *(line for number, block in enumerate(_blocks(table)) for line in _scaled(block, first=not number)),
        *([r"\par\smallskip\begin{minipage}{\textwidth}\footnotesize\raggedright"] if below else []),
        *(rf"{line}\par" for line in below),
        *([r"\end{minipage}"] if below else []),
        r"\end{table*}",
    ]
    return "\n".join(lines)


def _blocks(table: Table) -> list[Table]:
    """A wide table cut into its blocks of columns, each with the names of its rows; any other as it is."""
    spans = heading_rows(table)[0]
    blocks = [range(span.start, span.start + span.columns) for span in spans if span.rows == 1]
    if len(table.columns) <= _WIDE or len(blocks) < 2:
        return [table]
    names = [span.start for span in spans if span.rows > 1]
    cut = []
    for block in blocks:
        rows = [row for row in table.rows if any(row.cells[i].lines not in _NOTHING for i in block)]
        kept = [*names, *block]
        cells = [replace(row, cells=tuple(row.cells[i] for i in kept)) for row in rows]
        cut.append(replace(table, columns=[table.columns[i] for i in kept], rows=cells))
    return cut


def _scaled(table: Table, first: bool) -> list[str]:
    lines = [] if first else [r"\par\medskip"]
    if len(table.columns) <= _WIDE:
        return [*lines, *_tabular(table)]
    return [*lines, r"\resizebox{\textwidth}{!}{%", *_tabular(table), "}"]


def _tabular(table: Table) -> list[str]:
    lines = [rf"\begin{{tabular}}{{{_alignment(table)}}}", r"\toprule"]
    levels = heading_rows(table)
    for number, spans in enumerate(levels):
        lines.append(_heading_line(spans, len(table.columns)))
        if number < len(levels) - 1:
            lines += [rf"\cmidrule(lr){{{s.start + 1}-{s.start + s.columns}}}" for s in spans if s.rows == 1]
    for _, rows in groupby(table.rows, key=lambda row: row.part):
        lines.append(r"\midrule")
        for row in rows:
            # what is published stands in italics, so that no glance takes it for measured
            font = r"\itshape " if row.kind == "published" else ""
            cells = [_cell(cell, font, column.numeric) for cell, column in zip(row.cells, table.columns, strict=True)]
            lines.append(" & ".join(cells) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _alignment(table: Table) -> str:
    """Numbers right, names left; a table of words alone shares the width of the page."""
    if any(column.numeric for column in table.columns):
        return "".join("r" if column.numeric else "l" for column in table.columns)
    return rf"p{{{0.9 / len(table.columns):.3f}\textwidth}}" * len(table.columns)


def _heading_line(spans: Sequence[Span], columns: int) -> str:
    cells: list[str] = []
    at = 0
    for span in spans:
        cells += [""] * (span.start - at)
        text = _cell(span.cell, "", True)
        cells.append(rf"\multicolumn{{{span.columns}}}{{c}}{{{text}}}" if span.columns > 1 else text)
        at = span.start + span.columns
    cells += [""] * (columns - at)
    return " & ".join(cells) + r" \\"


def _cell(cell: Cell, font: str, numeric: bool) -> str:
    text = r"\newline ".join(_text(line) for line in cell.lines) + _marks(cell.notes)
    if len(cell.lines) > 1 and not numeric:
        return rf"{{\raggedright {font}{text}\par}}"
    return rf"{{{font}{text}}}" if font else text


def _marks(notes: Iterable[int]) -> str:
    numbers = ",".join(str(number) for number in notes)
    return rf"\textsuperscript{{{numbers}}}" if numbers else ""


def _text(text: str) -> str:
    """A text that LaTeX prints as it is, ligatures of hyphens and commas included."""
    found: list[str] = []
    for character in plain(text):
        if found and character in "-," and found[-1] == character:
            found.append("{}")
        found.append(_ESCAPES.get(character) or _letter(character))
    return "".join(found)


def _letter(character: str) -> str:
    return character if character <= _LAST_LETTER else f"{{[}}U+{ord(character):04X}{{]}}"
