"""Markdown and HTML of the benchmark tables: everything is shown, and no name or note becomes markup."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecaption_ml.benchmarks.report.page import html
from facecaption_ml.benchmarks.report.table import Cell, Column, Row, Table, by_block, markdown, plain
from facecaption_ml.benchmarks.report.tables import benchmark_tables
from facecaption_ml.benchmarks.result import BenchmarkResult, Measurement
from invented_results import attributes, retrieval

PLAIN = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
PNG = b"\x89PNG\r\n\x1a\n" + b"\x00" * 16
HOSTILE = st.text(st.characters() | st.sampled_from("<>&\"'|\\`*_{}[]$%#~^±→†−-,!\n\r\t"), min_size=1, max_size=20)
EXAMPLE = (
    retrieval("flip", "sample", None, notes=["drawn"]),
    retrieval("clip", "mm_celeba_hq", versions={"data": "a_b", "model": "50 %"}),
    attributes("flip", "celeba", 0.9, 0.01),
)


def with_hostile(text: str) -> list[Table]:
    """The two tables that show a result whose model, notes, reasons, counts and versions are ``text``."""
    measured = [Measurement("text → image", "R@5", None, why=text), Measurement(f"to {text}", f"R@{text}", 0.5)]
    result = BenchmarkResult(
        "retrieval", text, "mm_celeba_hq", measured, {text: measured}, {text: 3}, {text: text}, {text: text}, {}, [text]
    )
    tables = benchmark_tables([result])
    return [tables[0], tables[-1]]


class Page(HTMLParser):
    """A page's tags with their attributes' names, its text, and what is not balanced."""

    VOID = ("meta", "br", "img")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.attributes += attrs
        self.open += [] if tag in self.VOID else [tag]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.mark.slow
@given(HOSTILE)
def test_no_name_or_note_becomes_html(text: str) -> None:
    page, tame = html(with_hostile(text), {text: PNG}), html(with_hostile("tame"), {"tame": PNG})
    assert Page(page).tags == Page(tame).tags
    assert plain(text) in Page(page).texts or not plain(text)
    body = re.sub(r"<[^<>]*>", "", page.split("</style>")[1])
    assert not re.search(r"[<>]|&(?!(amp|lt|gt|#34|#39);)", body)
    page.encode()


@given(HOSTILE)
def test_no_name_or_note_becomes_markdown(text: str) -> None:
    tables = with_hostile(text)
    lines = [line for line in markdown(tables).split("\n") if line.startswith("|")]
    pipes = [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines]
    narrow = [part for table in tables for part in by_block(table)]
    assert pipes == [len(table.columns) + 1 for table in narrow for _ in range(len(table.rows) + 2)]
    prose = re.sub(r"\\[\\`*_{}\[\]#|~$!]|^### ", "", markdown(tables), flags=re.MULTILINE)
    assert not set("\\`*_{}[]#~$!<>") & set(prose)
    assert not re.search(r"&(?!(amp|lt|gt);)", prose)


def test_a_page_is_one_file_that_asks_for_nothing() -> None:
    page = html(benchmark_tables(EXAMPLE), {"early_retrieval.png": PNG, "b": b"\xff\xd8\xff\xe0"})
    parsed = Page(page)
    assert page.startswith("<!DOCTYPE html>\n")
    assert {tag for tag, _ in parsed.tags} & {"script", "link", "iframe", "object", "form"} == set()
    assert not re.search(r"https?:|//|url\(|@import", re.sub(r"base64,[\w+/=]*", "", page))
    anchors = [value for name, value in parsed.attributes if name == "id"]
    links = {value for name, value in parsed.attributes if name == "href"}
    assert len(anchors) == len(set(anchors))
    assert links
    assert links <= {f"#{anchor}" for anchor in anchors}
    assert "prefers-color-scheme: dark" in page
    assert f"data:image/png;base64,{base64.b64encode(PNG).decode()}" in page
    assert [value for name, value in parsed.attributes if name == "alt"] == ["b", "early retrieval"]


def test_every_cell_is_in_the_page_and_published_rows_are_set_apart() -> None:
    tables = benchmark_tables(EXAMPLE)
    page = html(tables, {})
    assert page.count('<tr class="published">') == sum(row.kind == "published" for t in tables for row in t.rows) == 27
    assert page.count('<tr class="delta">') == 2
    texts = set(Page(page).texts)
    for table in tables:
        assert {line for row in table.rows for cell in row.cells for line in cell.lines if line} <= texts
        assert {*table.remarks, *table.footnotes} <= texts


def test_a_picture_of_another_format_is_named() -> None:
    with pytest.raises(ValueError, match=r"'curve.gif' is none of PNG, JPEG and SVG"):
        html([], {"curve.gif": b"GIF89a"})


def test_markdown_shows_names_numbers_and_footnotes() -> None:
    text = markdown(benchmark_tables(EXAMPLE))
    assert "### Text–image retrieval (Table 2)" in text
    assert re.search(r"^\| FLIP \| measured \|.*\| n/a[⁰-⁹¹²³]+ \|", text, re.MULTILINE)
    assert re.search(r"\| FLIP\\\*[⁰-⁹¹²³]+ \|", text)
    assert re.search(r"^[⁰-⁹¹²³]+ Not defined: a gallery of 3, smaller than 5\.$", text, re.MULTILINE)
    assert "<" not in text


def test_markdown_has_a_table_for_each_data_set_that_no_reader_cuts_off() -> None:
    text = markdown(benchmark_tables(EXAMPLE))
    sections = {section.split("\n")[0]: section for section in text.split("### ")[1:]}
    assert len(sections) == text.count("### ")
    assert "| FLIP | measured |" in sections["Text–image retrieval (Table 2): Drawn sample"]
    assert "| CLIP | minus published |" in sections["Text–image retrieval (Table 2): MM-CelebA"]
    assert "FLIP†" not in sections["Text–image retrieval (Table 2): Drawn sample"]  # the paper has no number on it
    for heading, section in sections.items():
        columns = section.split("\n\n")[1].split("\n")[0].count(" | ") + 1
        assert columns <= 12, heading
        marks = set(re.findall(r"(?:[^\s,|]|\u2009)([⁰¹²³⁴-⁹]+)", section))
        notes = re.findall(r"^([⁰¹²³⁴-⁹]+) ", section, re.MULTILINE)
        assert notes == sorted(notes, key=lambda mark: int(mark.translate(PLAIN)))
        assert marks <= set(notes)


def test_footnotes_beyond_nine_are_told_apart_and_a_mark_behind_a_number_is_no_power() -> None:
    notes = [f"note {number}" for number in range(1, 13)]
    row = Row("measured", "", (Cell(("FLIP",), (1, 12)), Cell(("68.5",), (3,))))
    unused = Row("measured", "", (Cell(("other",), tuple(range(1, 13))), Cell(("1.0 ± 0.1",))))
    columns = [Column(Cell(("Model",)), False), Column(Cell(("R@1",)), True)]
    text = markdown([Table("t", "T", columns, [row, unused], (), notes)])
    assert "| FLIP¹, ¹² | 68.5\u2009³ |" in text
    assert "¹⁰ note 10\n\n¹¹ note 11\n\n¹² note 12" in text
