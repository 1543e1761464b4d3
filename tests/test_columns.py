"""Every column of every table has a description, and its type is said in plain words."""

from __future__ import annotations

import re
import tomllib
from importlib.resources import files
from pathlib import Path

import polars as pl
import pytest

from facecaption_ml.columns import BENCHMARK_RESULT, described_columns, plain_type
from facecaption_ml.schemas import IMAGE, OPTIONAL, SCHEMAS, Schema
from facecaption_ml.statistics.comparison import COMPARISON_SCHEMA
from facecaption_ml.statistics.matching import MATCHING_SCHEMA
from facecaption_ml.statistics.quality import QUALITY_SCHEMA
from facecaption_ml.statistics.text import CATEGORY_SCHEMA, CURVE_SCHEMA, TABLE_SCHEMA, WORDS_SCHEMA
from facecaption_ml.taxonomy import ATTRIBUTES

TABLES: dict[str, Schema] = {
    **{name: {**schema, **OPTIONAL.get(name, {})} for name, schema in SCHEMAS.items()},
    "facecaption_release": SCHEMAS["facecaption_dataset"],
    "dataset_comparison": COMPARISON_SCHEMA,
    "text_statistics": TABLE_SCHEMA,
    "categories": CATEGORY_SCHEMA,
    "words_per_text": WORDS_SCHEMA,
    "unique_4_grams": CURVE_SCHEMA,
    "image_quality": QUALITY_SCHEMA,
    "image_text_matching": MATCHING_SCHEMA,
    "benchmark_result": BENCHMARK_RESULT,
}


@pytest.mark.parametrize("table", TABLES)
def test_no_column_lacks_a_description(table: str) -> None:
    columns = described_columns(table, TABLES[table])
    assert [column.name for column in columns] == list(TABLES[table])
    assert [column.name for column in columns if not column.text] == []


def test_no_description_is_of_a_column_that_there_is_not() -> None:
    given = tomllib.loads(files("facecaption_ml").joinpath("columns.toml").read_text(encoding="utf-8"))
    anywhere = {column for schema in TABLES.values() for column in schema}
    assert set(given.pop("every_table")) <= anywhere
    assert set(given) <= set(TABLES)
    for table, texts in given.items():
        assert set(texts) - {"*"} <= set(TABLES[table]), table


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        (pl.Float32, "float32"),
        (pl.Int16(), "int16"),
        (pl.String, "text"),
        (pl.Boolean, "yes or no"),
        (pl.List(pl.String), "list of text"),
        (pl.List(pl.List(pl.Int8)), "list of list of int8"),
        (pl.Array(pl.Float32, (5, 2)), "5 × 2 × float32"),
        (pl.Datetime("ms", "UTC"), "time (UTC)"),
        (IMAGE, "picture (bytes, path)"),
        (pl.Struct({"a": pl.Binary, "b": pl.List(pl.Int64)}), "fields (a: bytes, b: list of int64)"),
    ],
)
def test_a_type_is_said_in_plain_words(dtype: pl.DataType, words: str) -> None:
    assert plain_type(dtype) == words


def test_the_page_on_tables_names_every_column() -> None:
    page = (Path(__file__).parents[1] / "docs" / "pipeline.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|$", page, re.MULTILINE))
    for table, schema in SCHEMAS.items():
        unnamed = [name for name in schema if name not in ATTRIBUTES and not re.search(rf"\b{name}\b", rows[table])]
        assert unnamed == [], table
