"""Picture quality of whole data sets (paper §4.1, Figure 3): distributions of BRISQUE and CLIP-IQA scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from facecaption_ml.decoding import PICTURE_SUFFIXES, UndecodableImage, as_rgb, decode_image
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.statistics.report import Report, frame_markdown
from facecaption_ml.statistics.sampling import crops_of, hashed_sample, sampled_faces
from facecaption_ml.statistics.score_distribution import SUMMARY_COLUMNS, ScoreDistribution
from facecaption_ml.storage.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = np.ndarray | bytes | None
"""RGB uint8 [H, W, 3], encoded bytes, or None for a file that could not be read."""

SUFFIXES: Final = frozenset(PICTURE_SUFFIXES)
MAX_PIXELS: Final = 30_000_000
"""Larger pictures count as unreadable: BRISQUE would take more than 2 GB for one."""
BRISQUE: Final = "brisque"
CLIP_IQA: Final = "clip_iqa_quality"
UNREADABLE_FILE: Final = "unreadable_file"
_FIGURE_BINS: Final = 40
_BATCH_PICTURES: Final = 16
_BATCH_PIXELS: Final = 16_000_000
# BRISQUE's regression gives 156 for features like no picture of LIVE, and less than 0 for some good pictures.
_BINS: Final = {BRISQUE: (-100.0, 200.0, 3000)}
_PROBABILITIES: Final = (0.0, 1.0, 1000)

QUALITY_SCHEMA: Final = {
    "data_set": pl.String,
    "metric": pl.String,
    "better": pl.String,  # lower or higher
    "images": pl.Int64,  # scored + unreadable + undefined
    "scored": pl.Int64,
    "unreadable": pl.Int64,  # no picture could be decoded
    "undefined": pl.Int64,  # the metric has no score for it: too small, or one flat colour
    **SUMMARY_COLUMNS,
}


_SHOWN_COLUMNS: Final = {
    "data_set": "data set",
    "metric": "metric",
    "better": "better",
    "scored": "scored",
    "mean": "mean",
    "sd": "sd",
    "median": "median",
    "p05": "5 %",
    "p95": "95 %",
}


class PictureFolderError(FaceCaptionError):
    """A folder of pictures that is not there, or holds none; the message names it."""


class QualityScorer(Protocol):
    """What gives one or more quality scores per picture, such as Brisque and ClipIqa."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """One name per score."""

    def score(self, images: Sequence[np.ndarray | bytes]) -> npt.NDArray[np.float32]:
        """float32 [N, metrics]; NaN where a score is not defined."""


@dataclass
class MetricSummary:
    """One metric over some pictures: ``scores`` of those that have one, and the numbers of the others."""

    scores: ScoreDistribution
    unreadable: int = 0
    undefined: int = 0


@dataclass
class QualitySummary:
    """Scores of the pictures of one data set.

    ``reasons`` counts the unreadable pictures by what was wrong: too_many_pixels, not_an_image, undecodable or
    unreadable_file. ``sampled`` counts all that were looked at.
    """

    metrics: dict[str, MetricSummary] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    sampled: int = 0

    def add(
        self,
        pictures: Iterable[Picture],
        scorers: Sequence[QualityScorer],
        on_progress: Callable[[int, int], None] | None = None,
        total: int = 0,
    ) -> None:
        """Score ``pictures`` with each of ``scorers``; a picture is decoded once, and a few are held at a time.

        ``on_progress(done, total)`` is called for every picture; a total of 0 is not known.
        """
        for scorer in scorers:
            for metric in scorer.metrics:
                bins = _BINS.get(metric, _PROBABILITIES)
                self.metrics.setdefault(metric, MetricSummary(ScoreDistribution(*bins)))
        for batch, unreadable in _batches(self._counted(pictures, on_progress, total)):
            self.reasons.update(unreadable)
            for scorer in scorers:
                scores = scorer.score(batch)
                for metric, column in zip(scorer.metrics, scores.T, strict=True):
                    summary = self.metrics[metric]
                    known = np.isfinite(column)
                    summary.scores.add(column[known])
                    summary.undefined += int((~known).sum())
                    summary.unreadable += len(unreadable)

    def _counted(
        self, pictures: Iterable[Picture], on_progress: Callable[[int, int], None] | None, total: int
    ) -> Iterator[Picture]:
        for picture in pictures:
            self.sampled += 1
            if on_progress:
                on_progress(self.sampled, total)
            yield picture


def measure_quality(
    store: Store,
    shards: Sequence[str],
    scorers: Sequence[QualityScorer],
    *,
    name: str,
    folders: Mapping[str, Path] | None = None,
    limit: int,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, QualitySummary], list[str]]:
    """Summaries of the crops of released faces, under ``name``, and of each of ``folders``; nothing without scorers.

    Of each at most ``limit`` pictures, chosen with ``seed``. The lines say which folders are not there or have no pictures.
    ``on_progress(done, total)`` as in ``QualitySummary.add``.
    """
    summaries, missing = {name: QualitySummary()}, list[str]()
    if not scorers:
        return summaries, missing
    if not shards:
        summaries[name].add([], scorers)  # a row for each metric, of no pictures
    chosen = sampled_faces(store, shards, limit, seed)
    total = sum(map(len, chosen.values()))
    for shard, face_ids in chosen.items():
        summaries[name].add(crops_of(store, shard, face_ids), scorers, on_progress, total)
    for folder_name, folder in (folders or {}).items():
        try:
            pictures = folder_pictures(folder, limit, seed)
        except PictureFolderError as error:
            missing.append(str(error))
            continue
        summary = summaries.setdefault(folder_name, QualitySummary())
        summary.add(pictures, scorers, on_progress)
        if not summary.sampled:
            missing.append(f"{str(folder)!r} holds no JPEG, PNG, WebP or GIF file")
    return summaries, missing


def quality_report(
    data_sets: Mapping[str, QualitySummary], made_from: Mapping[str, int | str], notes: Sequence[str], clip: str
) -> Report:
    """The statistic ``image_quality``; ``clip`` names the checkpoint of CLIP-IQA."""
    table = quality_table(data_sets)
    reasons = [(name, *item) for name, summary in data_sets.items() for item in sorted(summary.reasons.items())]
    columns = {"data_set": pl.String, "reason": pl.String, "pictures": pl.Int64}
    unreadable = pl.DataFrame(reasons, schema=columns, orient="row")
    by_clip = f"CLIP-IQA by `{clip}`.\n\n" if table["metric"].str.starts_with("clip_iqa").any() else ""
    return Report(
        title="Picture quality",
        tables={"image_quality": table, "unreadable": unreadable},
        markdown="" if table.is_empty() else by_clip + frame_markdown(table, _SHOWN_COLUMNS),
        figure=quality_figure(data_sets) if any(summary.sampled for summary in data_sets.values()) else None,
        made_from=made_from,
        notes=notes,
    )


def folder_pictures(folder: str | Path, limit: int | None = None, seed: int = 0) -> Iterator[Picture]:
    """The bytes of the picture files in ``folder`` and its subfolders, by suffix (SUFFIXES); None for an unreadable file.

    At most ``limit``, chosen by the path below ``folder``. Raises PictureFolderError, at once, where it is no folder.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise PictureFolderError(f"{str(folder)!r} is no folder; name folders of JPEG, PNG, WebP or GIF files")
    pictures = (path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES and not path.is_dir())
    chosen = hashed_sample(((path.relative_to(root).as_posix(), path) for path in pictures), limit, seed)
    return (_read(path) for _, path in chosen)


def quality_table(data_sets: Mapping[str, QualitySummary]) -> pl.DataFrame:
    """One row per data set and metric, QUALITY_SCHEMA; numbers are null where nothing was scored."""
    rows = [
        {
            "data_set": name,
            "metric": metric,
            "better": "lower" if metric == BRISQUE else "higher",
            "images": part.scores.n + part.unreadable + part.undefined,
            "scored": part.scores.n,
            "unreadable": part.unreadable,
            "undefined": part.undefined,
            **part.scores.summary_stats(),
        }
        for name, summary in data_sets.items()
        for metric, part in summary.metrics.items()
    ]
    return pl.DataFrame(rows, schema=QUALITY_SCHEMA)


def quality_figure(data_sets: Mapping[str, QualitySummary]) -> Figure:
    """Figure 3: (a) BRISQUE, (b) CLIP-IQA's quality score, one outline per data set; without CLIP scores only (a)."""
    from facecaption_ml import figures

    panels = [(BRISQUE, -20.0, 100.0, "BRISQUE score (lower is better)")]
    if any(CLIP_IQA in summary.metrics for summary in data_sets.values()):
        panels.append((CLIP_IQA, 0.0, 1.0, "CLIP-IQA score (higher is better)"))
    figure, panes = figures.new_figure(width=5.0 * len(panels), panels=len(panels))
    for axes, letter, (metric, low, high, label) in zip(panes, "ab", panels, strict=False):
        edges = np.linspace(low, high, _FIGURE_BINS + 1).tolist()
        counts: dict[str, list[int]] = {}
        for name, summary in data_sets.items():
            part = summary.metrics.get(metric)
            counts[name] = part.scores.rebin(low, high, _FIGURE_BINS) if part else [0] * _FIGURE_BINS
        figures.distributions(axes, edges, counts, f"({letter}) {label}")
    return figure


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() else None  # a pipe would wait for a writer
    except OSError:
        return None


def _batches(pictures: Iterable[Picture]) -> Iterator[tuple[list[np.ndarray], list[str]]]:
    """Decoded pictures, a few at a time, with the reasons of those that could not be decoded."""
    batch: list[np.ndarray] = []
    reasons: list[str] = []
    for picture in pictures:
        try:
            if picture is None:
                reasons.append(UNREADABLE_FILE)
            else:
                batch.append(decode_image(picture, MAX_PIXELS) if isinstance(picture, bytes) else as_rgb(picture))
        except UndecodableImage as error:
            reasons.append(error.reason)
        full = len(batch) >= _BATCH_PICTURES or sum(image.size for image in batch) >= 3 * _BATCH_PIXELS
        if full or len(reasons) >= _BATCH_PICTURES:
            yield batch, reasons
            batch, reasons = [], []
    if batch or reasons:
        yield batch, reasons
