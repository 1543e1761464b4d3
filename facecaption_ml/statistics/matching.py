"""Image-text matching (paper §4.3, Figure 5): how well each source of text fits the faces.

Every text is scored with its own face and, as a baseline, a text of another face with this face, so that a model that
answers "matches" to everything is seen to separate nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from facecaption_ml.decoding import UndecodableImage, as_rgb
from facecaption_ml.schemas import IMAGE
from facecaption_ml.statistics.report import SOURCES, Report, frame_markdown
from facecaption_ml.statistics.sampling import hashed_sample, sample_key
from facecaption_ml.statistics.score_distribution import SUMMARY_COLUMNS, ScoreDistribution, roc_auc

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BATCH: Final = 16  # faces
_PROBABILITIES: Final = (0.0, 1.0, 1000)
# Matchers are often nearly certain, so their order is told apart on the scale of log odds; float32 ends at ±17 or so.
_LOG_ODDS: Final = (-20.0, 20.0, 4000)
_PARTNERS_TRIED: Final = 100

MATCHING_SCHEMA: Final = {
    "source": pl.String,
    "faces": pl.Int64,  # scored + no_text + unreadable
    "scored": pl.Int64,
    "no_text": pl.Int64,
    "unreadable": pl.Int64,
    **SUMMARY_COLUMNS,  # of the probability that the text matches its own face
    "mismatched": pl.Int64,  # faces scored with a text of another face
    "mismatched_mean": pl.Float64,
    "mismatched_median": pl.Float64,
    "auc": pl.Float64,  # probability that an own text scores above another face's text
}
_SHOWN_COLUMNS: Final = {
    "source": "source",
    "scored": "scored",
    "mean": "mean",
    "median": "median",
    "mismatched_mean": "mean with another face",
    "auc": "area under ROC",
}


class Matcher(Protocol):
    """Tells how probably a text belongs to a picture."""

    def match(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 [N], 0 … 1: the probability that ``images[i]`` (RGB uint8 [H, W, 3]) and ``texts[i]`` match.

        One picture may come several times as the same object, with other texts.
        """


@dataclass
class PairScores:
    """Scores of pairs: their distribution as probabilities, and as log odds for comparing two of these."""

    probabilities: ScoreDistribution = field(default_factory=lambda: ScoreDistribution(*_PROBABILITIES))
    log_odds: ScoreDistribution = field(default_factory=lambda: ScoreDistribution(*_LOG_ODDS))

    def add(self, probabilities: npt.NDArray[np.float32]) -> None:
        self.probabilities.add(probabilities)
        p = np.asarray(probabilities, np.float64)
        with np.errstate(divide="ignore"):
            self.log_odds.add(np.clip(np.log(p) - np.log1p(-p), *_LOG_ODDS[:2]))


@dataclass
class SourceScores:
    """One source of text: scores with its own faces and with others', and the faces that have none."""

    own: PairScores = field(default_factory=PairScores)
    other: PairScores = field(default_factory=PairScores)
    no_text: int = 0
    unreadable: int = 0


@dataclass
class MatchingSummary:
    """Matching scores per source of text. ``sampled`` counts the faces that were looked at."""

    sources: dict[str, SourceScores] = field(default_factory=lambda: {source: SourceScores() for source in SOURCES})
    sampled: int = 0

    def add(
        self,
        faces: pl.DataFrame,
        matcher: Matcher,
        seed: int = 0,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Score one sample of faces: columns face_id, image and one column per source.

        The texts of other faces come from this sample, so it should be a shard's, not a batch of it.
        ``on_progress(done, total)`` counts its faces.
        """
        rows = faces.sort("face_id")
        ids = rows["face_id"].to_list()
        texts = {
            source: [text if text and text.strip() else None for text in rows[source].to_list()]
            for source in self.sources
        }
        others = {source: other_texts(ids, texts[source], seed) for source in self.sources}
        images = rows["image"].struct.field("bytes").to_list()
        for start in range(0, len(ids), _BATCH):
            batch = slice(start, start + _BATCH)
            self._add_batch(
                matcher,
                [_decoded(data) for data in images[batch]],
                {source: (texts[source][batch], others[source][batch]) for source in self.sources},
            )
            if on_progress:
                on_progress(min(start + _BATCH, len(ids)), len(ids))
        self.sampled += len(ids)

    def _add_batch(
        self,
        matcher: Matcher,
        images: list[np.ndarray | None],
        texts: dict[str, tuple[list[str | None], list[str | None]]],
    ) -> None:
        pairs: list[tuple[np.ndarray, str]] = []
        targets: list[PairScores] = []
        # All texts of one picture stand together: matchers then encode it once.
        for at, image in enumerate(images):
            for source, (own, others) in texts.items():
                scores, text, other = self.sources[source], own[at], others[at]
                if image is None:
                    scores.unreadable += 1
                elif text is None:
                    scores.no_text += 1
                else:
                    pairs.append((image, text))
                    targets.append(scores.own)
                    if other is not None:
                        pairs.append((image, other))
                        targets.append(scores.other)
        if pairs:
            probabilities = _matched(matcher, pairs)
            for target in {id(target): target for target in targets}.values():
                target.add(probabilities[[at is target for at in targets]])


def measure_matching(
    pairs: Iterable[pl.DataFrame],
    crops: Iterable[pl.DataFrame],
    matcher: Matcher,
    *,
    limit: int,
    seed: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> MatchingSummary:
    """The scores of a ``matching_sample`` of frames of ``facecaption_dataset`` and of ``face_crops``."""
    summary = MatchingSummary()
    summary.add(matching_sample(pairs, crops, limit, seed), matcher, seed, on_progress)
    return summary


def matching_report(
    summary: MatchingSummary | None, made_from: Mapping[str, int | str], notes: Sequence[str], model: str
) -> Report:
    """The statistic ``image_text_matching``; empty without a summary. ``model`` names the checkpoint that scored."""
    table = matching_table(summary) if summary else pl.DataFrame(schema=MATCHING_SCHEMA)
    shown = f"Scored by `{model}`.\n\n{frame_markdown(table, _SHOWN_COLUMNS)}" if len(table) else ""
    return Report(
        title="Match of texts and faces",
        tables={"image_text_matching": table},
        markdown=shown,
        figure=matching_figure(summary) if summary and summary.sampled else None,
        made_from=made_from,
        notes=notes,
    )


def matching_sample(
    pairs: Iterable[pl.DataFrame],
    crops: Iterable[pl.DataFrame],
    limit: int | None = 1000,
    seed: int = 0,
) -> pl.DataFrame:
    """At most ``limit`` faces of ``facecaption_dataset`` frames with their pictures of ``face_crops`` frames.

    Chosen by face_id, whatever the order of the rows; columns face_id, image and ``SOURCES``. ``limit`` bounds the
    memory, for the chosen pictures are held together. A face without a crop has a null image.
    """
    columns = ["face_id", *SOURCES]
    rows = ((row[0], row) for frame in pairs for row in frame.select(columns).rows())
    chosen = [row for _, row in hashed_sample(rows, limit, seed)]
    faces = pl.DataFrame(chosen, schema=dict.fromkeys(columns, pl.String), orient="row")
    wanted = faces.select("face_id")
    images = [frame.select("face_id", "image").join(wanted, on="face_id", how="semi") for frame in crops]
    held = pl.concat([pl.DataFrame(schema={"face_id": pl.String, "image": IMAGE}), *images])
    return faces.join(held, on="face_id", how="left").select("face_id", "image", *SOURCES)


def other_texts(face_ids: Sequence[str], texts: Sequence[str | None], seed: int = 0) -> list[str | None]:
    """For each face with a text, the text of another face of another picture that reads differently, else None.

    The faces stand in a circle in the order of their seeded hashes, and each takes the next suitable text.
    """
    circle = sorted(
        (at for at, text in enumerate(texts) if text is not None), key=lambda at: sample_key(face_ids[at], seed)
    )
    paired: list[str | None] = [None] * len(texts)
    for place, at in enumerate(circle):
        for step in range(1, min(len(circle), _PARTNERS_TRIED)):
            other = circle[(place + step) % len(circle)]
            # Faces of one picture, whose sample_id stands before the last underscore, share its alternative text.
            of_picture, of_other = (face_ids[face].rpartition("_")[0] for face in (at, other))
            if texts[other] != texts[at] and of_other != of_picture:
                paired[at] = texts[other]
                break
    return paired


def matching_table(summary: MatchingSummary) -> pl.DataFrame:
    """One row per source, MATCHING_SCHEMA; numbers are null where nothing was scored."""
    rows = []
    for source, scores in summary.sources.items():
        own, other = scores.own.probabilities, scores.other.probabilities
        rows.append(
            {
                "source": source,
                "faces": own.n + scores.no_text + scores.unreadable,
                "scored": own.n,
                "no_text": scores.no_text,
                "unreadable": scores.unreadable,
                **own.summary_stats(),
                "mismatched": other.n,
                "mismatched_mean": other.mean,
                "mismatched_median": other.quantile(0.5),
                "auc": roc_auc(scores.own.log_odds, scores.other.log_odds),
            }
        )
    return pl.DataFrame(rows, schema=MATCHING_SCHEMA)


def matching_figure(summary: MatchingSummary) -> Figure:
    """Figure 5: (a) texts with their own faces, (b) texts with other faces, one outline per source."""
    from facecaption_ml import figures

    figure, panes = figures.new_figure(width=10.0, panels=2)
    labels = ("(a) matching score with the own face", "(b) matching score with another face")
    for axes, label, kind in zip(panes, labels, ("own", "other"), strict=True):
        counts = {
            source: getattr(scores, kind).probabilities.rebin(0.0, 1.0, 40)
            for source, scores in summary.sources.items()
        }
        figures.distributions(axes, np.linspace(0, 1, 41).tolist(), counts, label)
    top = max(axes.get_ylim()[1] for axes in panes)
    for axes in panes:
        axes.set_ylim(0, top)
    return figure


def _matched(matcher: Matcher, pairs: list[tuple[np.ndarray, str]]) -> npt.NDArray[np.float32]:
    """The matcher's probabilities [N], held to its contract."""
    images, texts = zip(*pairs, strict=True)
    probabilities = np.asarray(matcher.match(images, texts))
    if probabilities.shape != (len(pairs),) or not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise ValueError(f"matcher: {type(matcher).__name__} gave no probability for each of {len(pairs)} pairs")
    return probabilities


def _decoded(data: bytes | None) -> np.ndarray | None:
    try:
        return None if data is None else as_rgb(data)
    except UndecodableImage:
        return None
