"""Table 1 of the paper: published facial image data sets, and this one as measured."""

from __future__ import annotations

import operator
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from facecaption_ml.markdown import escape_cell, markdown_table
from facecaption_ml.statistics.ngrams import words
from facecaption_ml.statistics.report import Report, require_columns, shown
from facecaption_ml.taxonomy import ATTRIBUTES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PUBLISHED: Final = "published"
MEASURED: Final = "measured"
COMPARISON_SCHEMA: Final[Mapping[str, type[pl.DataType]]] = {
    "dataset": pl.String,
    "origin": pl.String,  # published or measured
    "source": pl.String,  # where the figures are from
    "samples": pl.Int64,  # images or videos
    "mean_width": pl.Float64,  # pixels
    "mean_height": pl.Float64,
    "at_least": pl.Boolean,  # the resolution is a lower bound
    "annotations": pl.Int64,
    "aligned": pl.Boolean,
    "text_samples": pl.Int64,
    "mean_words": pl.Float64,
    "natural": pl.Boolean,
    "relevant": pl.Boolean,
}
_PER_PIXEL: Final = 1024
_HEADINGS: Final = (
    "data set", "figures", "samples", "mean resolution", "annotations", "aligned", "texts", "mean words", "natural",
    "relevant",
)  # fmt: skip


@dataclass(frozen=True)
class ComparisonTally:
    """The sums behind the measured row: of one shard or, merged, of all. Order and cuts of the rows do not matter."""

    samples: int = 0
    width: int = 0  # sum over the boxes in 1/1024 source pixels: whole numbers, so that sums are equal in any order
    height: int = 0
    text_samples: int = 0
    words: int = 0

    @classmethod
    def of(cls, frames: Iterable[pl.DataFrame]) -> ComparisonTally:
        """Of frames of ``facecaption_dataset`` (columns box, caption), read once and one at a time.

        Raises SchemaError for a missing column.
        """
        total = cls()
        for frame in frames:
            total = total.merge(cls._of_frame(frame))
        return total

    @classmethod
    def _of_frame(cls, frame: pl.DataFrame) -> ComparisonTally:
        require_columns(frame, ("box", "caption"))
        left, top, right, bottom = (frame["box"].arr.get(i).cast(pl.Float64) for i in range(4))
        lengths = words(frame["caption"]).list.len()
        return cls(
            samples=frame.height,
            width=int(((right - left) * _PER_PIXEL).round().cast(pl.Int64).sum()),
            height=int(((bottom - top) * _PER_PIXEL).round().cast(pl.Int64).sum()),
            text_samples=int((lengths > 0).sum()),
            words=int(lengths.sum()),
        )

    def merge(self, other: ComparisonTally) -> ComparisonTally:
        return ComparisonTally(*map(operator.add, astuple(self), astuple(other)))

    def row(self, name: str) -> dict[str, Any]:
        """The measured row (:data:`COMPARISON_SCHEMA`), null where there is nothing to measure.

        Resolution: mean width and mean height of the face boxes in their sources' pixels. Aligned, natural and relevant hold
        by construction and in the table's own sense: a picture is one face turned upright, and its caption is prose
        about this face's attributes (the paper counts MM-CelebA's grammar-made sentences as natural).
        """
        text = True if self.text_samples else None
        return {
            "dataset": name,
            "origin": MEASURED,
            "source": "facecaption_dataset",
            "samples": self.samples,
            "mean_width": self.width / self.samples / _PER_PIXEL if self.samples else None,
            "mean_height": self.height / self.samples / _PER_PIXEL if self.samples else None,
            "at_least": False,
            "annotations": len(ATTRIBUTES),
            "aligned": True if self.samples else None,
            "text_samples": self.text_samples,
            "mean_words": self.words / self.text_samples if self.text_samples else None,
            "natural": text,
            "relevant": text,
        }


def comparison_table(measured: ComparisonTally, name: str = "This data set") -> pl.DataFrame:
    """Table 1 (:data:`COMPARISON_SCHEMA`): the published rows in the paper's order, then the measured one under ``name``."""
    return pl.DataFrame([*published_rows(), measured.row(name)], schema=dict(COMPARISON_SCHEMA))


@lru_cache(maxsize=1)
def published_rows() -> tuple[Mapping[str, Any], ...]:
    """The rows of ``published_datasets.toml`` (:data:`COMPARISON_SCHEMA`), null where the paper has "-"."""
    stored = tomllib.loads(files("facecaption_ml.statistics").joinpath("published_datasets.toml").read_text("utf-8"))
    rows = []
    for dataset in stored["dataset"]:
        width, height = dataset["resolution"]
        row = {name: dataset.get(name) for name in COMPARISON_SCHEMA}
        row |= {"dataset": dataset["name"], "origin": PUBLISHED, "source": stored["source"]}
        rows.append(row | {"mean_width": width, "mean_height": height, "at_least": dataset.get("at_least", False)})
    return tuple(rows)


def comparison_markdown(table: pl.DataFrame) -> str:
    """A :func:`comparison_table` as a Markdown table; published rows in the paper's rounding, "–" where nothing is known."""
    rows = []
    for row in table.iter_rows(named=True):
        name = escape_cell(row["dataset"])
        cells = [
            f"**{name}**" if row["origin"] == MEASURED else name,
            row["origin"],
            shown(row["samples"]),
            _resolution(row),
            *(shown(row[column]) for column in ("annotations", "aligned", "text_samples")),
            "–" if row["mean_words"] is None else f"{row['mean_words']:.3g}",
            shown(row["natural"]),
            shown(row["relevant"]),
        ]
        rows.append(cells)
    return markdown_table(_HEADINGS, rows, "llrrrcrrcc") + "\n"


def comparison_report(measured: ComparisonTally, name: str, made_from: Mapping[str, int | str]) -> Report:
    """The statistic ``dataset_comparison``, with the measured row under ``name``."""
    table = comparison_table(measured, name)
    return Report(
        title="Beside published data sets",
        tables={"dataset_comparison": table},
        markdown=comparison_markdown(table),
        figure=comparison_figure(table),
        made_from=made_from,
    )


def comparison_figure(table: pl.DataFrame) -> Figure:
    """Number of texts against their mean words, of every data set with text: published hollow, measured filled."""
    from facecaption_ml import figures

    figure, (axes,) = figures.new_figure(6.4, 3.8)
    with_text = table.filter(pl.col("mean_words").is_not_null() & (pl.col("text_samples") > 0))
    for row in with_text.iter_rows(named=True):
        measured = row["origin"] == MEASURED
        colour = figures.COLOURS[1] if measured else figures.COLOURS[0]
        axes.plot(
            row["text_samples"],
            row["mean_words"],
            marker="o",
            markersize=8 if measured else 7,
            markerfacecolor=colour if measured else "none",
            markeredgecolor=colour,
            linestyle="none",
        )
        at_right = row["text_samples"] > 5_000_000
        axes.annotate(
            row["dataset"],
            (row["text_samples"], row["mean_words"]),
            (-8 if at_right else 8, -13 if measured else 6),  # apart even where a measured and a published point meet
            textcoords="offset points",
            ha="right" if at_right else "left",
            color=figures.INK,
            fontsize=8,
            fontweight="bold" if measured else "normal",
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    means = with_text["mean_words"]
    axes.set_ylim(min([8, *(means * 0.8)]), max([100, *(means * 1.2)]))
    axes.set_yticks([10, 20, 30, 50, 100], ["10", "20", "30", "50", "100"])
    axes.yaxis.minorticks_off()
    axes.margins(x=0.12)
    axes.set_xlabel("texts (hollow: as published; filled: measured)")
    axes.set_ylabel("mean words in a text")
    return figure


def _resolution(row: Mapping[str, Any]) -> str:
    if row["mean_width"] is None or row["mean_height"] is None:
        return "–"
    return f"{row['mean_width']:.0f} × {row['mean_height']:.0f}{' or more' if row['at_least'] else ''}"
