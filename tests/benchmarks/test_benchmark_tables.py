"""The tables of measured and published numbers: what stands in them, beside what, and what is said of it."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from statistics import mean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecaption_ml.benchmarks.report.ablation import ablation_table
from facecaption_ml.benchmarks.report.page import html
from facecaption_ml.benchmarks.report.table import Cell, Column, Row, Table
from facecaption_ml.benchmarks.report.tables import benchmark_tables, percent
from facecaption_ml.benchmarks.result import Measurement
from facecaption_ml.errors import FaceCaptionError
from invented_results import attributes, retrieval, seeded


def shown(table: Table, kind: str, name: str) -> dict[tuple[str, ...], str]:
    """The cells of the one row of a kind and name, by headings."""
    (row,) = [row for row in table.rows if row.kind == kind and row.cells[0].lines == (name,)]
    headings = [(*(column.block.lines if column.block else ()), *column.heading.lines) for column in table.columns]
    return {h: cell.lines[0] for h, cell in zip(headings[2:], row.cells[2:], strict=True)}


def footnoted(table: Table, cell: Cell) -> list[str]:
    return [table.footnotes[number - 1] for number in cell.notes]


def headings_of(table: Table, *names: str) -> list[Cell]:
    """The heading of every block with one of the names, once for each of its columns."""
    return [column.block for column in table.columns if column.block and column.block.lines[0] in names]


def test_without_results_the_tables_are_the_papers() -> None:
    tables = benchmark_tables([])
    assert [table.name for table in tables] == ["retrieval", "attributes", "sketches"]
    assert {row.kind for table in tables for row in table.rows} == {"published"}
    assert shown(tables[0], "published", "BLIP")["MM-CelebA", "image → text", "R@10"] == "33.38"
    assert shown(tables[1], "published", "FLIP-based (ours)")["CelebA", "10 %", "accuracy"] == "–"
    assert shown(tables[2], "published", "RL-B")["User-SDE", "sketch", "m@A"] == "–"


def test_rows_stand_by_what_they_are_and_models_in_the_papers_order() -> None:
    results = [retrieval(model, "mm_celeba_hq") for model in ("zebra", "clip", "flip_alt_text", "flip", "a_run")]
    table = benchmark_tables(results)[0]
    assert [(row.kind, row.cells[0].lines[0]) for row in table.rows] == [
        ("baseline", "chance"),
        ("measured", "FLIP"),
        ("delta", "FLIP"),
        ("measured", "FLIP†"),
        ("delta", "FLIP†"),
        ("measured", "CLIP"),
        ("delta", "CLIP"),
        ("measured", "a_run"),
        ("measured", "zebra"),
        *(("published", name) for name in ("ALIGN", "BLIP", "CLIP", "FLIP*", "FLIP†", "FLIP (ours)")),
    ]
    assert all(row.cells[1].lines == ("published",) for row in table.rows if row.kind == "published")


def test_a_difference_is_in_points_from_the_same_model_on_the_same_data() -> None:
    measured = replace(retrieval("flip", "mm_celeba_hq"), measurements=[
        Measurement("text → image", "R@1", 0.1),
        Measurement("text → image", "R@5", 0.27104),  # 26.1 is published
        Measurement("text → image", "R@10", 0.35),  # 35.75
        Measurement("image → text", "R@5", 0.270512),  # 27.05
        Measurement("image → text", "R@10", None, why="nobody knows"),
    ])  # fmt: skip
    delta = shown(benchmark_tables([measured])[0], "delta", "FLIP")
    differences = {key[1:]: text for key, text in delta.items() if text}
    assert differences == {
        ("text → image", "R@5"): "+1.00",
        ("text → image", "R@10"): "−0.75",
        ("image → text", "R@5"): "0.00",
    }


def test_published_numbers_are_compared_with_accuracy_and_never_with_average_precision() -> None:
    table = benchmark_tables([attributes("flip", "celeba", 0.9)])[1]
    delta = {key[1:]: text for key, text in shown(table, "delta", "FLIP").items() if text}
    assert delta == {("100 %", "accuracy"): "−2.27"}
    assert {c.notes for c in headings_of(table, "CelebA")} != {()}
    for cell in headings_of(table, "CelebA", "LFWA"):
        assert any("report mean accuracy" in note for note in footnoted(table, cell))
    for cell in headings_of(table, "LFWA"):
        assert any("trains LFWA on its test split" in note for note in footnoted(table, cell))


def test_the_two_shares_of_one_printed_column_say_so_on_celeba_only() -> None:
    table = benchmark_tables([])[1]
    noted = [
        (column.block.lines[0], column.heading.lines[0])
        for column in table.columns
        if column.block and any("without a slash" in note for note in footnoted(table, column.heading))
    ]
    assert noted == [("CelebA", "2 %"), ("CelebA", "10 %")]


@pytest.mark.slow
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["flip", "flip_template", "flip_alt_text", "clip", "blip", "align", "a_run"]),
            st.sampled_from(["celeba_caption", "mm_celeba_hq", "sample", "elsewhere"]),
            st.none() | st.floats(0, 1),
        ),
        max_size=8,
        unique_by=lambda drawn: drawn[:2],
    ),
    st.randoms(use_true_random=False),
)
def test_nothing_but_published_data_has_differences_and_no_order_matters(
    drawn: list[tuple[str, str, float | None]], shuffle: random.Random
) -> None:
    results = [retrieval(*one) for one in drawn]
    tables = benchmark_tables(results)
    for row in tables[0].rows:
        for column, cell in zip(tables[0].columns, row.cells, strict=True):
            heading = column.block.lines[0] if column.block else ""
            if row.kind == "published" and heading in ("Drawn sample", "elsewhere"):
                assert cell.lines == ("–",)
            if row.kind == "delta" and heading in ("Drawn sample", "elsewhere"):
                assert cell.lines == ("",)
    known = {(m, d) for m, d, v in drawn if v is not None and m != "a_run" and d not in ("sample", "elsewhere")}
    assert sum(row.kind == "delta" for row in tables[0].rows) == len({model for model, _ in known})
    shuffled = shuffle.sample(results, len(results))
    assert benchmark_tables(shuffled) == tables
    assert html(benchmark_tables(shuffled), {}) == html(tables, {})


def test_what_is_undefined_says_why_and_what_is_missing_is_a_dash() -> None:
    table = benchmark_tables([retrieval("flip", "sample", None), retrieval("clip", "mm_celeba_hq", 0.123456)])[0]
    (row,) = [row for row in table.rows if row.kind == "measured" and row.cells[0].lines == ("FLIP",)]
    undefined = [cell for cell in row.cells if cell.lines == ("n/a",)]
    assert len(undefined) == 4
    assert {tuple(footnoted(table, cell)) for cell in undefined} == {("Not defined: a gallery of 3, smaller than 5.",)}
    assert shown(table, "measured", "FLIP")["CelebA-Caption", "text → image", "R@5"] == "–"
    assert shown(table, "measured", "CLIP")["MM-CelebA", "text → image", "R@5"] == "12.35"


def test_spread_is_one_standard_deviation_over_the_seeds() -> None:
    table = benchmark_tables([attributes("flip", "lfwa", 0.825, 0.0123)])[1]
    assert shown(table, "measured", "FLIP")["LFWA", "100 %", "average precision"] == "82.50 ± 1.23"
    assert "± one standard deviation over 3 seeds." in table.remarks


def test_a_baseline_stands_once_unless_models_disagree_on_it() -> None:
    same = [retrieval("flip", "sample"), retrieval("clip", "sample"), retrieval("clip", "mm_celeba_hq")]
    assert shown(benchmark_tables(same)[0], "baseline", "chance")["Drawn sample", "text → image", "R@5"] == "5.00"
    other = retrieval("clip", "sample", baselines={"chance": [Measurement("text → image", "R@5", 0.07)]})
    table = benchmark_tables([same[0], other])[0]
    assert shown(table, "baseline", "chance, beside FLIP")["Drawn sample", "text → image", "R@5"] == "5.00"
    assert shown(table, "baseline", "chance, beside CLIP")["Drawn sample", "text → image", "R@5"] == "7.00"


def test_notes_of_results_stand_on_their_data_set() -> None:
    results = [
        retrieval("flip", "sample", notes=["drawn portraits", "one view"]),
        retrieval("clip", "sample", notes=["drawn portraits"]),
    ]
    table = benchmark_tables(results)[0]
    for cell in headings_of(table, "Drawn sample"):
        assert footnoted(table, cell) == ["Measured: drawn portraits", "Measured, FLIP: one view"]


def test_provenance_tells_versions_protocol_counts_and_notes_of_each_result() -> None:
    result = retrieval(
        "flip", "sample",
        versions={"model": "m1", "data": "d1"}, protocol={"views": "4", "epochs": "20"},
        counts={"test": 19_962}, notes=["drawn"],
    )  # fmt: skip
    table = benchmark_tables([result, retrieval("clip", "sample")])[-1]
    assert table.name == "provenance"
    assert [cell.lines for cell in table.rows[0].cells] == [
        ("flip",), ("sample",), ("data: d1", "model: m1"), ("epochs: 20", "views: 4"), ("test: 19,962",), ("drawn",),
    ]  # fmt: skip
    assert [cell.lines for cell in table.rows[1].cells[2:]] == [("–",)] * 4


def test_results_that_no_table_can_hold_are_named() -> None:
    with pytest.raises(FaceCaptionError, match=r"benchmarks/retrieval/sample/flip: two results.*ablation_table"):
        benchmark_tables([retrieval("flip", "sample"), retrieval("flip", "sample", 0.6)])
    with pytest.raises(FaceCaptionError, match="no task 'recognition'"):
        benchmark_tables([retrieval("flip", "sample", task="recognition")])


def test_an_ablation_is_mean_and_standard_deviation_over_training_seeds() -> None:
    values, others = [0.51, 0.55, 0.47], [0.30, 0.31]
    results = [*seeded("flip_template", others), *seeded("flip", values)]
    table = ablation_table(results)
    headings = [column.heading.lines[0] for column in table.columns]
    assert headings == ["Data set", "Setting", "Metric", "FLIP", "FLIP*"]
    assert [cell.lines[0] for cell in table.rows[0].cells] == [
        "Drawn sample", "text → image", "R@5",
        f"{100 * mean(values):.2f} ± {100 * stdev(values):.2f}",
        f"{100 * mean(others):.2f} ± {100 * stdev(others):.2f}",
    ]  # fmt: skip
    assert len(table.rows) == 4
    assert table.remarks[1:] == ["FLIP: training seeds 0, 1, 2.", "FLIP*: training seeds 0, 1."]
    assert ablation_table(results[::-1]) == table


def test_an_ablation_says_where_seeds_are_missing() -> None:
    table = ablation_table([*seeded("flip", [0.5, None]), *seeded("clip", [None]), *seeded("blip", [0.25])])
    flip, clip, blip = table.rows[0].cells[3:]
    assert (flip.lines, footnoted(table, flip)) == (("50.00",), ["Over 1 of 2 training seeds."])
    assert (clip.lines, footnoted(table, clip)) == (("n/a",), ["Not defined: a gallery of 3, smaller than 5."])
    assert (blip.lines, blip.notes) == (("25.00",), ())


def test_an_ablation_needs_different_training_seeds() -> None:
    with pytest.raises(FaceCaptionError, match="'training seed'"):
        ablation_table([retrieval("flip", "sample")])
    with pytest.raises(FaceCaptionError, match="two results of training seed 0"):
        ablation_table([*seeded("flip", [0.5]), *seeded("flip", [0.6])])


def test_a_short_row_is_named() -> None:
    with pytest.raises(ValueError, match="t, row 0: 1 cells for 2 columns"):
        Table("t", "T", [Column(Cell(("a",)), True)] * 2, [Row("measured", "", (Cell(("1",)),))])


@given(st.floats(0, 1))
def test_percent_has_two_decimals(value: float) -> None:
    assert re.fullmatch(r"\d{1,3}\.\d\d", percent(value))
    assert abs(float(percent(value)) - 100 * value) <= 0.005 + 1e-9
