"""What must hold of each statistic. Each function looks at the finished tables and returns one check."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

from facecaption_assets.factories.check import Check
from facecaption_assets.factories.whole_dataset import COMPLETE

DATASET_COMPARISON: Final[Mapping[str, str]] = {
    "published_unchanged": "The published rows are those of the paper's Table 1, beside one measured row.",
    "rows_counted": "The measured row counts every row of the shards, and no more texts than rows.",
}
TEXT_STATISTICS: Final[Mapping[str, str]] = {
    "texts_conserved": "For each source, texts + empty = rows of the shards, and the histogram holds every text once.",
    "shares_sum_to_one": "The categories' shares, and each source's shares of lengths, sum to 1 where there are any.",
    "unique_at_most_all": "The curve of unique 4-grams never falls, and ends at no more than all of them.",
}
IMAGE_QUALITY: Final[Mapping[str, str]] = {
    "sample_conserved": "For each metric, scored + unreadable + undefined = pictures sampled.",
    "scores_in_range": "CLIP-IQA's scores lie in 0 … 1, and quantiles ascend.",
    COMPLETE: "All models and folders that the settings can name were there.",
}
IMAGE_TEXT_MATCHING: Final[Mapping[str, str]] = {
    "sample_conserved": "For each source of text, scored + without text + unreadable = faces sampled.",
    "scores_in_range": "Probabilities of a match lie in 0 … 1, and quantiles ascend.",
    COMPLETE: "A matching model was there.",
}
_QUANTILES: Final = ("p05", "p25", "median", "p75", "p95")


def published_unchanged(table: pl.DataFrame, published: Sequence[Mapping[str, Any]]) -> Check:
    """``published`` are the rows of the library's own file."""
    rows = table.filter(pl.col("origin") == "published").to_dicts()
    measured = int((table["origin"] == "measured").sum())
    same = rows == [dict(row) for row in published]
    kept = "those of the library's file" if same else "not those of the library's file"
    found = f"{len(rows)} published rows, {kept}, beside {measured} measured"
    metadata = {"published": len(rows), "measured": measured}
    return Check("published_unchanged", same and measured == 1, metadata, found=found)


def rows_counted(table: pl.DataFrame, rows: int) -> Check:
    row = table.filter(pl.col("origin") == "measured").row(0, named=True)
    holds = row["samples"] == rows and 0 <= row["text_samples"] <= rows
    metadata = {"rows": rows, "measured": row["samples"], "texts": row["text_samples"]}
    found = f"{row['samples']:,} of {rows:,} rows are counted, {row['text_samples']:,} of them with a text"
    return Check("rows_counted", holds, metadata, found=found)


def texts_conserved(table: pl.DataFrame, lengths: pl.DataFrame, rows: int) -> Check:
    by_length = dict(lengths.group_by("source").agg(pl.col("texts").sum()).iter_rows())
    wrong = [
        source
        for source, texts, empty in table.select("source", "texts", "empty").iter_rows()
        if texts + empty != rows or by_length.get(source, 0) != texts
    ]
    found = f"texts + empty = {rows:,} rows for {len(table) - len(wrong)} of {len(table)} sources{_such(wrong)}"
    return Check("texts_conserved", not wrong and len(table) > 0, {"rows": rows, "wrong": wrong}, found=found)


def shares_sum_to_one(categories: pl.DataFrame, lengths: pl.DataFrame) -> Check:
    """Shares are all null where there is no label at all."""
    sums = {"labels": float(categories["share"].sum())} if categories["labels"].sum() else {}
    sums |= dict(lengths.group_by("source").agg(pl.col("share").sum()).sort("source").iter_rows())
    wrong = [f"{name} sums to {value:g}" for name, value in sums.items() if not math.isclose(value, 1, abs_tol=1e-9)]
    found = f"{len(sums) - len(wrong)} of {len(sums)} distributions sum to 1{_such(wrong)}"
    return Check("shares_sum_to_one", not wrong, sums, found=found)


def unique_at_most_all(table: pl.DataFrame, curve: pl.DataFrame) -> Check:
    wrong = []
    for source, grams, unique in table.select("source", "grams", "unique_4_grams").iter_rows():
        points = curve.filter(pl.col("source") == source)["unique_4_grams"].to_list()
        if points != sorted(points) or not points or points[-1] != unique or unique > grams:
            wrong.append(source)
    found = f"the curves of {len(table) - len(wrong)} of {len(table)} sources rise to their own count{_such(wrong)}"
    return Check("unique_at_most_all", not wrong, {"wrong": wrong}, found=found)


def quality_conserved(table: pl.DataFrame, sampled: Mapping[str, int]) -> Check:
    """``sampled``: data set → pictures that were taken from it."""
    columns = table.select("data_set", "metric", "images", "scored", "unreadable", "undefined")
    wrong = [
        f"{data_set}: {metric}"
        for data_set, metric, images, *parts in columns.iter_rows()
        if sum(parts) != images or images != sampled[data_set]
    ]
    return _conserved(wrong, len(table), "metrics", sum(sampled.values()), **sampled)


def quality_in_range(table: pl.DataFrame) -> Check:
    return _in_range(table, pl.col("metric").str.starts_with("clip_iqa"), "metric")


def matching_conserved(table: pl.DataFrame, sampled: int) -> Check:
    faces, parts = pl.col("faces"), pl.sum_horizontal("scored", "no_text", "unreadable")
    wrong = table.filter((parts != faces) | (faces != sampled))["source"].to_list()
    return _conserved(wrong, len(table), "sources of text", sampled, sampled=sampled)


def matching_in_range(table: pl.DataFrame) -> Check:
    return _in_range(table, pl.lit(True), "source")


def _in_range(table: pl.DataFrame, probabilities: pl.Expr, show: str) -> Check:
    """Quantiles ascend everywhere; where ``probabilities`` holds, mean and quantiles lie in 0 … 1."""
    ascend = pl.all_horizontal(pl.col(low) <= pl.col(high) for low, high in itertools.pairwise(_QUANTILES))
    inside = pl.all_horizontal(pl.col(name).is_between(0, 1) for name in ("mean", *_QUANTILES))
    wrong = table.filter((pl.col("scored") > 0) & ~(ascend & (inside | ~probabilities)).fill_null(False))
    names = wrong[show].to_list()
    scored = int((table["scored"] > 0).sum())
    found = f"{scored - len(names)} of {scored} score distributions lie in their range{_such(names)}"
    return Check("scores_in_range", not names, {"rows": len(table), "wrong": names}, found=found)


def _conserved(wrong: list[str], of: int, what: str, pictures: int, **metadata: int) -> Check:
    found = (
        f"every one of {pictures:,} sampled faces is accounted for in {of - len(wrong)} of {of} {what}{_such(wrong)}"
    )
    return Check("sample_conserved", not wrong, {"wrong": wrong, **metadata}, found=found)


def _such(wrong: Sequence[str]) -> str:
    return f"; not {wrong[0]}" if wrong else ""
