"""What assets show in the UI: tables, texts and charts, each small enough for the event log and for the page."""

from __future__ import annotations

import re
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecaption_assets.factories import inline_charts, previews
from facecaption_assets.factories.previews import MOST_ROWS
from facecaption_ml.statistics.text import PUBLISHED_SHARES
from facecaption_ml.texts import LINE, shortened

DATA_URL = "data:image/png;base64," + "iVBORw0KGgo" * 4000


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("short", "short"),
        ("two\nlines\tand  blanks", "two lines and blanks"),
        ("x" * LINE, "x" * LINE),
        ("x" * (LINE + 1), "x" * (LINE - 1) + "…"),
        (f"https://a.test/{'p' * 5_000_000}", f"https://a.test/{'p' * (LINE - 16)}…"),
        (DATA_URL, "data:image/png,… (44,022 characters)"),
        ("DATA:text/html;charset=utf-8,<b>hello</b>", "data:text/html,… (41 characters)"),
        ("data:,", "data:,… (6 characters)"),
        ("", ""),
    ],
)
def test_a_text_of_a_table_is_cut(text: str, shown: str) -> None:
    assert shortened(text) == shown


@given(st.text(max_size=400))
def test_no_text_of_a_table_is_longer_than_its_bound_or_has_lines(text: str) -> None:
    assert len(shortened(text)) <= LINE
    assert "\n" not in shortened(text)


def test_a_table_of_a_thousand_rows_shows_twelve_lines_and_says_where_the_others_are() -> None:
    table = previews.rows(["URL", "width"], [(DATA_URL, number) for number in range(1000)], "the Parquet file")
    records = [dict(record.data) for record in table.records]
    assert len(records) == MOST_ROWS
    assert records[0] == {"URL": "data:image/png,… (44,022 characters)", "width": "0"}
    assert records[-1] == {"URL": "… 989 more in the Parquet file", "width": ""}


def svg(markdown: str) -> ElementTree.Element:
    """The chart of a Markdown picture; a reader of SVG must take it."""
    found = re.fullmatch(r"!\[[^\]]*\]\(<data:image/svg\+xml,([^<>\n]*)>\)", markdown)
    assert found
    return ElementTree.fromstring(unquote(found[1]))


def test_shares_of_the_categories_are_shown_in_place_beside_the_papers() -> None:
    chart = inline_charts.bars(dict.fromkeys(PUBLISHED_SHARES, 0.2), "shares", PUBLISHED_SHARES)
    assert len(chart) < 1000  # the UI shows longer Markdown behind a link
    texts = [node.text for node in svg(chart).iter("{http://www.w3.org/2000/svg}text")]
    assert texts == [f"{name} 20.0% ({share:.1%})" for name, share in PUBLISHED_SHARES.items()]


def test_a_histogram_is_shown_in_place_with_its_ends_and_its_median() -> None:
    values = np.random.default_rng(0).normal(200, 30, 100_000)
    chart = inline_charts.histogram([*values, 50.0, 400.0, float("nan")], "px", "sizes")
    assert len(chart) < 1000
    (foot,) = [node.text for node in svg(chart).iter("{http://www.w3.org/2000/svg}text")]
    assert foot == "50 to 400 px, median 200"
    assert inline_charts.histogram([], "px", "sizes") == "no values of sizes"


@given(st.dictionaries(st.text("abc<>&'\"%#() ]", min_size=1, max_size=8), st.floats(0, 1), max_size=6))
def test_no_name_breaks_a_chart(shares: dict[str, float]) -> None:
    chart = svg(inline_charts.bars(shares, "shares"))
    assert len(list(chart.iter("{http://www.w3.org/2000/svg}text"))) == len(shares)


def test_a_chart_that_is_too_long_to_be_shown_in_place_becomes_a_figure() -> None:
    many = {f"attribute {number}": 0.5 for number in range(40)}
    assert previews.shares(many, "shares").value.startswith("![shares](data:image/png;base64,")
    assert previews.shares({"a": 0.5}, "shares").value.startswith("![shares](<data:image/svg+xml,")
