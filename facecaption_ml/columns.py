"""What the columns of the tables hold, in words: types as a reader would say them, descriptions from ``columns.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Final

import polars as pl
from polars.datatypes import DataType, DataTypeClass

from facecaption_ml.schemas import IMAGE, OPTIONAL, SCHEMAS, Schema
from facecaption_ml.taxonomy import ATTRIBUTES

BENCHMARK_RESULT: Final[Schema] = {
    "setting": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
    "spread": pl.Float64,
    "runs": pl.Int64,
    "why": pl.String,
}
"""A measurement of a benchmark's result, as its JSON has it."""
PolarsDataType = DataType | DataTypeClass
_EVERY_TABLE: Final = "every_table"
_ATTRIBUTE: Final = "*"


@dataclass(frozen=True)
class ColumnDescription:
    """A column's name, its type in plain words, and what it holds (empty where ``columns.toml`` does not say)."""

    name: str
    kind: str
    text: str


def described_columns(table: str, schema: Schema | None = None) -> list[ColumnDescription]:
    """The columns of a table in their order; ``schema``: its own, if it is none of ``SCHEMAS``."""
    schema = schema or {**SCHEMAS[table], **OPTIONAL.get(table, {})}
    return [ColumnDescription(name, plain_type(dtype), _described(table, name)) for name, dtype in schema.items()]


def plain_type(dtype: PolarsDataType) -> str:
    """A Polars type as a reader would say it: "text", "list of text", "4 × float32", "picture (bytes, path)"."""
    if dtype == IMAGE:
        return "picture (bytes, path)"
    if isinstance(dtype, pl.List):
        return f"list of {plain_type(dtype.inner)}"
    if isinstance(dtype, pl.Array):
        innermost: PolarsDataType = dtype
        while isinstance(innermost, pl.Array):
            innermost = innermost.inner
        return f"{' × '.join(map(str, dtype.shape))} × {plain_type(innermost)}"
    if isinstance(dtype, pl.Struct):
        return f"fields ({', '.join(f'{part.name}: {plain_type(part.dtype)}' for part in dtype.fields)})"
    if isinstance(dtype, pl.Datetime):
        return f"time ({dtype.time_zone})" if dtype.time_zone else "time"
    words = {pl.String: "text", pl.Boolean: "yes or no", pl.Binary: "bytes"}
    return next((word for kind, word in words.items() if dtype == kind), str(dtype).lower())


def _described(table: str, column: str) -> str:
    texts = _texts()
    own = texts.get(table, {})
    if column in ATTRIBUTES and _ATTRIBUTE in own:
        return own[_ATTRIBUTE].format(words=column.replace("_", " "))
    return own.get(column) or texts[_EVERY_TABLE].get(column, "")


@lru_cache(maxsize=1)
def _texts() -> Mapping[str, Mapping[str, str]]:
    return tomllib.loads(files("facecaption_ml").joinpath("columns.toml").read_text(encoding="utf-8"))
