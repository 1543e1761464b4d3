"""The texts of the data set (paper §4.2, Fig. 4a–c): captions, template captions and alt texts side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from facecaption_ml.statistics.ngrams import stable_hashes
from facecaption_ml.statistics.report import SOURCES, Report, frame_markdown, transposed_markdown
from facecaption_ml.statistics.text_tally import (
    LONGEST,
    ORDERS,
    TENTHS,
    LabelTally,
    SourceStatistics,
    SourceTally,
    batches,
)
from facecaption_ml.taxonomy import CATEGORIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEMORY_BUDGET: Final = 512 << 20
_SMALLEST_BUDGET: Final = 4096
_BYTES_PER_RECORD: Final = 64  # of the three sources' buffers and one sort, for each 4-gram of a buffer
PUBLISHED_SHARES: Final[Mapping[str, float]] = {
    "elementary": 0.267,
    "beard": 0.149,
    "hair": 0.139,
    "accessories": 0.106,
    "facial": 0.339,
}
"""Shares of the labels in FaceCaption-15M as its paper gives them (§4.2, Fig. 4a)."""

TABLE_SCHEMA: Final[Mapping[str, type[pl.DataType]]] = {
    "source": pl.String,
    "texts": pl.Int64,
    "empty": pl.Int64,
    "words": pl.Int64,
    "mean_words": pl.Float64,
    "vocabulary": pl.Int64,
    "type_token_ratio": pl.Float64,
    "grams": pl.Int64,
    "unique_4_grams": pl.Int64,
    "sampled_texts": pl.Int64,
    "moving_average_ttr": pl.Float64,
    **{f"distinct_{n}": pl.Float64 for n in ORDERS},
    "self_bleu": pl.Float64,
}
CURVE_SCHEMA: Final[Mapping[str, type[pl.DataType]]] = {
    "source": pl.String,
    "share": pl.Float64,
    "texts": pl.Int64,
    "unique_4_grams": pl.Int64,
}
CATEGORY_SCHEMA: Final[Mapping[str, type[pl.DataType]]] = {
    "category": pl.String,
    "labels": pl.Int64,
    "share": pl.Float64,
    "published_share": pl.Float64,
    "share_of_faces": pl.Float64,
    **{f"mentioned_by_{source}": pl.Float64 for source in SOURCES},
}
_SHOWN_COLUMNS: Final = {
    "category": "category",
    "share": "share of labels",
    "published_share": "published, FaceCaption-15M",
    "share_of_faces": "share of faces with one",
}
WORDS_SCHEMA: Final[Mapping[str, type[pl.DataType]]] = {
    "source": pl.String,
    "words": pl.Int64,
    "texts": pl.Int64,
    "share": pl.Float64,
}


@dataclass(frozen=True)
class TextStatistics:
    """Statistics of the three text sources, and of the labels.

    Whole data, exact (but for equal hashes, see :mod:`ngrams`): words and texts; the vocabulary, and the plain
    type-token ratio = vocabulary / words, which falls as the data grow; the distinct 4-grams up to each tenth of the texts. The
    texts have an order for that, by a hash of their face's id and the seed, so neither the order of the rows nor how they are
    cut into frames changes anything. A tenth ends at the first of 65,536 places in that order that completes it: ``texts``
    says how many texts that are.

    On a sample, the first texts in that order: distinct-n, the moving-average type-token ratio (window 500),
    self-BLEU, and the share of texts that assert an attribute of each category. A text is empty, counted and left
    out where it is null or has no word.
    """

    rows: int
    labels: Mapping[str, int]  # category → labels given
    faces_with: Mapping[str, int]  # category → faces with a label of it
    sources: Mapping[str, SourceStatistics]

    @classmethod
    def of(
        cls,
        frames: Iterable[pl.DataFrame],
        *,
        scratch: Path,
        seed: int = 0,
        sample: int = 1000,
        memory_budget: int = MEMORY_BUDGET,
        total: int = 0,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> TextStatistics:
        """Read frames of ``facecaption_dataset`` once (columns face_id, caption, template_caption, alt_text, labels).

        Memory beyond one frame and a batch of 20,000 rows stays below ``memory_budget`` bytes, whatever the number of rows.
        A temporary folder inside ``scratch`` takes at most 10 bytes for each 4-gram of the data and each distinct word of a
        batch, less where they recur (15 million captions of 30 words: below 5 GB a source), and is removed at the end.
        ``on_progress(done, total)`` is called with the number of rows read so far; a ``total`` of 0 is not known.

        Raises SchemaError for a missing column, ValueError for an unknown label, a face without id or a setting out of
        range, OSError where ``scratch`` cannot be written.
        """
        if memory_budget < _SMALLEST_BUDGET:
            raise ValueError(f"memory_budget is {memory_budget} bytes, should be {_SMALLEST_BUDGET} or more")
        if sample < 0:
            raise ValueError(f"sample is {sample}, should be 0 or more")
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="text-statistics-", dir=scratch) as folder:
            capacity = memory_budget // _BYTES_PER_RECORD
            labels = LabelTally()
            sources = {source: SourceTally(Path(folder, source), capacity, sample) for source in SOURCES}
            for batch in batches(frames):
                if batch["face_id"].null_count():
                    raise ValueError("facecaption_dataset: column 'face_id' has nulls")
                keys = stable_hashes(batch["face_id"].to_list(), seed)
                labels.add(batch["labels"])
                for source, of_source in sources.items():
                    of_source.add(batch[source], batch["face_id"], keys)
                if on_progress:
                    on_progress(labels.faces, total)
            return cls(
                rows=labels.faces,
                labels={category: labels.labels[category] for category in CATEGORIES},
                faces_with={category: labels.faces_with[category] for category in CATEGORIES},
                sources={source: of_source.result() for source, of_source in sources.items()},
            )

    def table(self) -> pl.DataFrame:
        """A row for each source (:data:`TABLE_SCHEMA`); rates are null where no text defines them."""
        rows = [
            {
                "source": name,
                "texts": s.texts,
                "empty": s.empty,
                "words": s.words,
                "mean_words": _ratio(s.words, s.texts),
                "vocabulary": s.vocabulary,
                "type_token_ratio": _ratio(s.vocabulary, s.words),
                "grams": s.grams,
                "unique_4_grams": s.curve[-1][1],
                "sampled_texts": s.sampled,
                "moving_average_ttr": s.moving_average_ttr,
                **{f"distinct_{n}": value for n, value in zip(ORDERS, s.distinct, strict=True)},
                "self_bleu": s.self_bleu,
            }
            for name, s in self.sources.items()
        ]
        return pl.DataFrame(rows, schema=dict(TABLE_SCHEMA))

    def curve_table(self) -> pl.DataFrame:
        """Fig. 4c: the distinct 4-grams up to each tenth of the texts (:data:`CURVE_SCHEMA`)."""
        rows = [
            (name, tenth / 10, *point)
            for name, s in self.sources.items()
            for tenth, point in zip(TENTHS, s.curve, strict=True)
        ]
        return pl.DataFrame(rows, schema=dict(CURVE_SCHEMA), orient="row")

    def category_table(self) -> pl.DataFrame:
        """Fig. 4a: each category's share of the labels beside the published one (:data:`CATEGORY_SCHEMA`).

        ``share_of_faces`` have a label of the category; ``mentioned_by_…``: share of the sampled texts that assert one.
        """
        total = sum(self.labels.values())
        rows = [
            {
                "category": category,
                "labels": count,
                "share": _ratio(count, total),
                "published_share": PUBLISHED_SHARES[category],
                "share_of_faces": _ratio(self.faces_with[category], self.rows),
                **{f"mentioned_by_{name}": s.mentions[category] for name, s in self.sources.items()},
            }
            for category, count in self.labels.items()
        ]
        return pl.DataFrame(rows, schema=dict(CATEGORY_SCHEMA))

    def words_table(self) -> pl.DataFrame:
        """Fig. 4b: texts by number of words (:data:`WORDS_SCHEMA`); the last number stands for itself and more."""
        rows = [
            (name, length, count, _ratio(count, s.texts))
            for name, s in self.sources.items()
            for length, count in enumerate(s.by_length)
            if length and count
        ]
        return pl.DataFrame(rows, schema=dict(WORDS_SCHEMA), orient="row")

    def figure(self) -> Figure:
        """Three panels as in the paper's Fig. 4: (a) category shares, (b) words per text, (c) unique 4-grams."""
        from matplotlib.ticker import EngFormatter

        from facecaption_ml import figures

        figure, (shares, lengths, grams) = figures.new_figure(12.0, 3.6, panels=3)
        _draw_shares(shares, self.category_table())
        named = {f"{name}, mean {s.words / s.texts:.1f}" if s.texts else name: s for name, s in self.sources.items()}
        edges = [length - 0.5 for length in range(1, LONGEST + 2)]
        figures.distributions(lengths, edges, {name: s.by_length[1:] for name, s in named.items()}, "words in a text")
        lengths.set_xlim(0, self._longest_shown() + 1)
        lengths.set_ylim(top=1.4 * lengths.get_ylim()[1])  # room for the legend above the outlines
        lengths.set_ylabel("% of texts")
        lengths.set_title("(b) Words per text", fontsize=9)
        curves = {name: [point[1] for point in s.curve] for name, s in self.sources.items()}
        figures.curves(grams, [tenth * 10 for tenth in TENTHS], curves, "% of the texts", "unique 4-grams")
        grams.yaxis.set_major_formatter(EngFormatter())
        grams.set_title("(c) Unique 4-grams", fontsize=9)
        return figure

    def report(self, made_from: Mapping[str, int | str]) -> Report:
        """The statistic ``text_statistics``."""
        table, categories = self.table(), self.category_table()
        return Report(
            title="Captions, template captions and alt texts",
            tables={
                "text_statistics": table,
                "categories": categories,
                "unique_4_grams": self.curve_table(),
                "words_per_text": self.words_table(),
            },
            markdown=f"{transposed_markdown(table, 'source')}\n\n{frame_markdown(categories, _SHOWN_COLUMNS)}",
            figure=self.figure() if self.rows else None,
            made_from=made_from,
        )

    def _longest_shown(self) -> int:
        """The number of words that 99.5 % of each source's texts do not exceed."""
        quantiles = [np.searchsorted(np.cumsum(s.by_length[1:]), 0.995 * s.texts) for s in self.sources.values()]
        return 1 + int(max(quantiles))


def _draw_shares(axes: Axes, table: pl.DataFrame) -> None:
    """Measured shares as filled bars with their numbers, published ones as hollow bars below them."""
    from facecaption_ml import figures

    rows = table.sort("published_share")
    measured = [100 * (share or 0.0) for share in rows["share"]]
    published = [100 * share for share in rows["published_share"]]
    places = range(len(rows))
    bars = axes.barh([p + 0.2 for p in places], measured, 0.36, color=figures.COLOURS[0], label="this data set")
    axes.bar_label(bars, [f"{value:.1f}" for value in measured], color=figures.INK, fontsize=8, padding=3)
    hollow = axes.barh(
        [p - 0.2 for p in places],
        published,
        0.36,
        fill=False,
        edgecolor=figures.INK,
        label="published, FaceCaption-15M",
    )
    axes.bar_label(hollow, [f"{value:.1f}" for value in published], color=figures.INK, fontsize=8, padding=3)
    axes.set_yticks(list(places), rows["category"].to_list())
    axes.set_xlabel("% of labels")
    axes.margins(x=0.12)
    axes.set_ylim(-1.5, len(rows) - 0.5)  # leaves room for the legend below the bars
    axes.set_title("(a) Labels by category", fontsize=9)
    axes.legend(loc="lower right", frameon=False, labelcolor=figures.INK, fontsize=8)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
