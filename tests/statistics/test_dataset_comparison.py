"""Table 1: the paper's rows as printed, and this data set's row from its shards."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml import figures
from facecaption_ml.schemas import BOX, SchemaError, empty
from facecaption_ml.statistics.comparison import (
    COMPARISON_SCHEMA,
    ComparisonTally,
    comparison_figure,
    comparison_markdown,
    comparison_table,
    published_rows,
)

PAPER = Path(__file__).parents[2] / "../shared/paper.txt"


def frame_of(rows: list[tuple]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema={"box": BOX, "caption": pl.String}, orient="row")


def random_rows(count: int, seed: int) -> list[tuple]:
    draw = random.Random(seed)
    corners = [[draw.uniform(-20, 900) for _ in range(2)] for _ in range(count)]
    boxes = [[x, y, x + draw.uniform(1, 700), y + draw.uniform(1, 700)] for x, y in corners]
    return [(box, draw.choice([None, "", "A man.", "She has dark, wavy hair."])) for box in boxes]


def test_the_published_rows_say_what_the_paper_prints() -> None:
    """Every cell of Table 1, read from the paper's text."""
    if not PAPER.exists():
        pytest.skip("the paper's text is not at hand")
    lines = PAPER.read_text("utf-8").split("Table 1:")[1].splitlines()[4:12]
    assert len(published_rows()) == len(lines) == 8
    for line, row in zip(lines, published_rows(), strict=True):
        name, samples, resolution, annotations, aligned, texts, words, natural, relevant = line.strip("\n").split("\t")
        assert row["origin"] == "published"
        assert "Table 1" in row["source"]
        assert row["dataset"] == name.split(" [")[0]
        assert (row["samples"], row["text_samples"]) == (number(samples), number(texts))
        assert f"{row['mean_width']}*{row['mean_height']}{'+' if row['at_least'] else ''}" == resolution
        assert (row["annotations"], row["mean_words"]) == (number(annotations), number(words))
        marks = {"✓": True, "×": False, "-": None}
        assert [row["aligned"], row["natural"], row["relevant"]] == [marks[aligned], marks[natural], marks[relevant]]


def number(printed: str) -> int | None:
    if printed == "-":
        return None
    unit = {"K": 1_000, "M": 1_000_000}.get(printed[-1], 1)
    return round(float(printed.rstrip("KM")) * unit)


def test_the_measured_row() -> None:
    frames = [
        frame_of([([0.0, 0.0, 100.0, 200.0], "A man smiles."), ([10.0, 10.0, 210.5, 110.0], " ")]),
        frame_of([([5.0, 5.0, 305.0, 405.0], "She has clean-cut, dark hair.")]),
    ]
    table = comparison_table(ComparisonTally.of(frames), "Mine")
    assert dict(table.schema) == dict(COMPARISON_SCHEMA)
    assert table["origin"].to_list() == ["published"] * 8 + ["measured"]
    row = table.row(-1, named=True)
    assert (row["dataset"], row["samples"], row["text_samples"], row["annotations"]) == ("Mine", 3, 2, 40)
    assert (row["mean_width"], row["mean_height"]) == pytest.approx((200.1667, 233.3333), abs=1e-3)
    assert row["mean_words"] == 4
    assert (row["aligned"], row["natural"], row["relevant"]) == (True, True, True)


@examples(30)
@given(
    count=st.integers(0, 40),
    seed=st.integers(0, 1000),
    order=st.randoms(use_true_random=False),
    cuts=st.lists(st.integers(0, 40), max_size=4),
)
def test_shards_may_be_cut_and_merged_in_any_way(count: int, seed: int, order: random.Random, cuts: list[int]) -> None:
    rows = random_rows(count, seed)
    shuffled = order.sample(rows, len(rows))
    edges = [0, *sorted(min(cut, count) for cut in cuts), count]
    shards = [ComparisonTally.of([frame_of(shuffled[a:b])]) for a, b in pairwise(edges)]
    merged = ComparisonTally()
    for shard in order.sample(shards, len(shards)):
        merged = shard.merge(merged)
    assert merged == ComparisonTally.of([frame_of(rows)])
    if rows:
        plain = sum(box[2] - box[0] for box, _ in rows) / len(rows)
        assert merged.row("")["mean_width"] == pytest.approx(plain, abs=1e-2)


@pytest.mark.parametrize("frames", [[], [empty("facecaption_dataset")]], ids=["no shard", "empty shard"])
def test_without_rows_the_measured_row_has_nulls(frames: list[pl.DataFrame]) -> None:
    table = comparison_table(ComparisonTally.of(frames))
    assert dict(table.schema) == dict(COMPARISON_SCHEMA)
    row = table.row(-1, named=True)
    assert (row["samples"], row["text_samples"]) == (0, 0)
    unknown = ("mean_width", "mean_height", "mean_words", "aligned", "natural", "relevant")
    assert [row[name] for name in unknown] == [None] * 6
    assert (
        comparison_markdown(table).splitlines()[-1]
        == "| **This data set** | measured | 0 | – | 40 | – | 0 | – | – | – |"
    )
    assert figures.png(comparison_figure(table)).startswith(b"\x89PNG")


def test_a_missing_column_is_named() -> None:
    with pytest.raises(SchemaError, match="'box' is missing"):
        ComparisonTally.of([pl.DataFrame({"caption": ["a"]})])


def test_markdown_marks_what_is_measured_and_what_is_published() -> None:
    table = comparison_table(
        ComparisonTally.of([frame_of([([0.0, 0.0, 150.0, 180.4], "A man with dark hair.")])]), "A | B"
    )
    lines = comparison_markdown(table).splitlines()
    assert len(lines) == 2 + 9
    assert lines[2] == "| LFWA | published | 13,000 | 250 × 250 | 40 | yes | – | – | – | – |"
    assert lines[7].startswith("| CelebV-Text | published | 70,000 | 512 × 512 or more |")
    assert lines[-1] == "| **A \\| B** | measured | 1 | 150 × 180 | 40 | yes | 1 | 5 | yes | yes |"


def test_figure_shows_every_data_set_with_text_measured_ones_filled() -> None:
    measured = ComparisonTally.of([frame_of([([0.0, 0.0, 150.0, 180.0], "A man with dark hair.")])])
    (axes,) = comparison_figure(comparison_table(measured, "Mine")).axes
    points = {text.get_text(): line for text, line in zip(axes.texts, axes.lines, strict=True)}
    places = {name: np.asarray(line.get_xydata())[0] for name, line in points.items()}
    assert set(points) == {row["dataset"] for row in published_rows() if row["mean_words"]} | {"Mine"}
    assert places["Mine"].tolist() == [1, 5]
    assert [name for name, line in points.items() if line.get_markerfacecolor() != "none"] == ["Mine"]
    low, high = axes.get_ylim()
    assert all(low < words < high for _, words in places.values())
