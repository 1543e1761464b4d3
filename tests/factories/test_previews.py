"""What assets show in the UI: tables, texts and charts, each small enough for the event log and for the page."""

from __future__ import annotations

import base64
import io
import re
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from facecaption_assets.factories import inline_charts, previews
from facecaption_assets.factories.previews import MOST_ROWS
from facecaption_ml.statistics.text import PUBLISHED_SHARES
from facecaption_ml.taxonomy import ATTRIBUTES
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


def test_a_chart_of_all_attributes_takes_a_few_thousand_characters() -> None:
    chart = previews.shares(dict.fromkeys(ATTRIBUTES, 0.123), "shares").value or ""
    assert len(list(svg(chart).iter("{http://www.w3.org/2000/svg}text"))) == 40
    assert len(chart) < 6_000


@pytest.mark.parametrize("pictures", [1, 2])
@pytest.mark.parametrize("shape", [(2000, 1500), (40, 3000), (1, 1)])
def test_a_picture_of_a_shard_gets_smaller_until_it_fits(shape: tuple[int, int], pictures: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)  # nothing takes more
    found = previews.shard_picture(noise, "noise", pictures).value or ""
    data = base64.b64decode(found.removeprefix("![noise](data:image/webp;base64,").removesuffix(")"))
    assert len(data) <= previews.SHARD_PICTURE_BYTES / pictures
    shown = Image.open(io.BytesIO(data))
    assert shown.format == "WEBP"
    assert shown.width / shown.height == pytest.approx(shape[1] / shape[0], rel=0.3)
