"""Markdown tables: what GitHub reads as columns, whatever stands in the cells."""

from __future__ import annotations

import pytest

from facecaption_ml.markdown import escape_cell, markdown_table


def test_a_table_has_a_heading_a_rule_and_a_line_for_each_row() -> None:
    assert markdown_table(("name", "count", "mark"), [("a", "1,000", "x"), ("b", "2", "")], "lrc") == (
        "| name | count | mark |\n| --- | ---: | :---: |\n| a | 1,000 | x |\n| b | 2 |  |"
    )
    assert markdown_table(("name",), []) == "| name |\n| --- |"


def test_a_padded_table_has_lines_of_one_length() -> None:
    text = markdown_table(("n", "longer", "c"), [("1,000", "x", "middle")], "rlc", padded=True)
    assert text.splitlines() == [
        "|     n | longer |   c    |",
        "| ----: | ------ | :----: |",
        "| 1,000 | x      | middle |",
    ]


def test_rows_and_alignments_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="row 1 has 1 cells for 2 columns"):
        markdown_table(("a", "b"), [("1", "2"), ("3",)])
    for align in ("lll", "x"):
        with pytest.raises(ValueError, match=f"align is '{align}'"):
            markdown_table(("a", "b"), [], align)


def test_no_text_ends_its_cell() -> None:
    assert escape_cell("a|b\nc") == "a\\|b c"
