"""The data set's statistics: Table 1 and Figures 3, 4 and 5 of the paper, over all finished shards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import dagster as dg
import polars as pl

from facecaption_assets.checks import statistics as checks
from facecaption_assets.factories.progress import Progress
from facecaption_assets.factories.shards import Check
from facecaption_assets.factories.whole_dataset import DATASET, DatasetWork, complete, statistics_asset
from facecaption_assets.machines.compute import CPU, ONE_A100
from facecaption_assets.settings import THIS_DATA_SET, Settings
from facecaption_ml.statistics.report import Report, markdown_table, transposed_markdown

if TYPE_CHECKING:
    import numpy as np

    from facecaption_ml.statistics.matching import Matcher
    from facecaption_ml.statistics.quality import Picture, QualitySummary

_QUALITY_COLUMNS: Final = {
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
_MATCHING_COLUMNS: Final = {
    "source": "source",
    "scored": "scored",
    "mean": "mean",
    "median": "median",
    "mismatched_mean": "mean with another face",
    "auc": "area under ROC",
}
_CATEGORY_COLUMNS: Final = {
    "category": "category",
    "share": "share of labels",
    "published_share": "published, FaceCaption-15M",
    "share_of_faces": "share of faces with one",
}


def statistics_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """``dataset_comparison``, ``text_statistics``, ``image_quality`` and ``image_text_matching``."""
    return [
        statistics_asset(
            name="dataset_comparison",
            measure=_compare,
            checks=checks.DATASET_COMPARISON,
            deps=[DATASET],
            kinds={"polars", "parquet"},
            description="Table 1 of the paper: published facial data sets beside this one as measured.",
            code_version="1",
            compute=CPU.under(settings),
            settings=settings,
        ),
        statistics_asset(
            name="text_statistics",
            measure=_text,
            checks=checks.TEXT_STATISTICS,
            deps=[DATASET],
            kinds={"polars", "parquet"},
            description=(
                "Figure 4 of the paper for caption, template caption and alt text side by side: categories, words, unique "
                "4-grams and diversity, in memory that does not grow with the number of captions."
            ),
            code_version="1",
            compute=CPU.under(settings),
            settings=settings,
        ),
        statistics_asset(
            name="image_quality",
            measure=_quality,
            checks=checks.IMAGE_QUALITY,
            deps=[DATASET, "face_crops"],
            kinds={"pytorch", "parquet"},
            description=(
                "Figure 3 of the paper: BRISQUE and CLIP-IQA of a seeded sample of the released crops, beside the folders "
                "of FACECAPTION_QUALITY_FOLDERS. CLIP-IQA needs the weights that FACECAPTION_CLIP names."
            ),
            code_version="1",
            compute=ONE_A100.under(settings),
            settings=settings,
            required_resources={"quality_scorers"},
        ),
        statistics_asset(
            name="image_text_matching",
            measure=_matching,
            checks=checks.IMAGE_TEXT_MATCHING,
            deps=[DATASET, "face_crops"],
            kinds={"pytorch", "parquet"},
            description=(
                "Figure 5 of the paper: how well each source of text matches its face, and another face as a baseline, on a "
                "seeded sample. Needs the weights that FACECAPTION_ITM_MODEL names; empty without."
            ),
            code_version="1",
            compute=ONE_A100.under(settings),
            settings=settings,
            required_resources={"matcher"},
        ),
    ]


def _compare(work: DatasetWork) -> tuple[Report, Sequence[Check]]:
    from facecaption_ml.statistics.comparison import (
        ComparisonTally,
        comparison_figure,
        comparison_markdown,
        comparison_table,
        published_rows,
    )

    table = comparison_table(ComparisonTally.of(work.frames(("box", "caption"))), THIS_DATA_SET)
    report = Report(
        title="Beside published data sets",
        tables={"dataset_comparison": table},
        markdown=comparison_markdown(table),
        figure=comparison_figure(table),
        made_from=work.made_from(),
    )
    return report, [checks.published_unchanged(table, published_rows()), checks.rows_counted(table, work.rows)]


def _text(work: DatasetWork) -> tuple[Report, Sequence[Check]]:
    from facecaption_ml.statistics.text import TextStatistics
    from facecaption_ml.statistics.text_tally import COLUMNS

    progress = Progress("text_statistics", "rows")
    found = TextStatistics.of(
        work.frames(COLUMNS),
        scratch=work.settings.home / "cache",
        seed=work.settings.seed,
        on_progress=lambda done: progress(done, work.rows),
    )
    table, curve, categories, lengths = (
        found.table(),
        found.curve_table(),
        found.category_table(),
        found.words_table(),
    )
    report = Report(
        title="Captions, template captions and alt texts",
        tables={"text_statistics": table, "categories": categories, "unique_4_grams": curve, "words_per_text": lengths},
        markdown=f"{transposed_markdown(table, 'source')}\n\n{markdown_table(categories, _CATEGORY_COLUMNS)}",
        figure=found.figure() if work.rows else None,
        made_from=work.made_from(),
    )
    return report, [
        checks.texts_conserved(table, lengths, work.rows),
        checks.shares_sum_to_one(categories, lengths),
        checks.unique_at_most_all(table, curve),
    ]


def _quality(work: DatasetWork) -> tuple[Report, Sequence[Check]]:
    from facecaption_ml.statistics.quality import (
        PictureFolderError,
        QualitySummary,
        folder_pictures,
        quality_figure,
        quality_table,
    )

    settings = work.settings
    scorers, notes = work.resources.quality_scorers.load()
    data_sets, sampled = {THIS_DATA_SET: QualitySummary()}, {THIS_DATA_SET: 0}
    progress = Progress("image_quality", "pictures")

    def measure(name: str, pictures: Iterable[Picture], total: int) -> None:
        summary = data_sets.setdefault(name, QualitySummary())
        before = sampled.setdefault(name, 0)

        def counted() -> Iterator[Picture]:
            for number, picture in enumerate(pictures, start=1):
                sampled[name] = before + number
                progress(sampled[name], total)
                yield picture

        summary.add(counted(), scorers)

    chosen = _chosen(work, settings.quality_sample) if scorers else {}
    total = sum(map(len, chosen.values()))
    if scorers and not work.shards:
        measure(THIS_DATA_SET, [], 0)
    for shard, face_ids in chosen.items():
        measure(THIS_DATA_SET, _crops(work, shard, face_ids), total)
    for name, folder in settings.quality_folders.items() if scorers else ():
        try:
            measure(name, folder_pictures(folder, settings.quality_sample, settings.seed), 0)
        except PictureFolderError as error:
            notes.append(str(error))
            continue
        if not sampled[name]:
            notes.append(f"FACECAPTION_QUALITY_FOLDERS: {str(folder)!r} holds no JPEG, PNG, WebP or GIF file")
    table = quality_table(data_sets)
    report = Report(
        title="Picture quality",
        tables={"image_quality": table, "unreadable": _reasons(data_sets)},
        markdown=_quality_markdown(table, settings.clip),
        figure=quality_figure(data_sets) if any(sampled.values()) else None,
        made_from=work.made_from(
            sampled=sampled[THIS_DATA_SET],
            models=", ".join(type(scorer).__name__ for scorer in scorers) or "none",
            clip=settings.clip or "none",
            folders=", ".join(settings.quality_folders) or "none",
        ),
        notes=notes,
    )
    return report, [
        checks.quality_conserved(table, sampled),
        checks.quality_in_range(table),
        complete(notes),
    ]


def _quality_markdown(table: pl.DataFrame, clip: str) -> str:
    if table.is_empty():
        return ""
    scored_by_clip = table["metric"].str.starts_with("clip_iqa").any()
    model = f"CLIP-IQA by `{clip}`.\n\n" if scored_by_clip else ""
    return model + markdown_table(table, _QUALITY_COLUMNS)


def _reasons(data_sets: dict[str, QualitySummary]) -> pl.DataFrame:
    """Pictures that could not be read, by what was wrong."""
    rows = [(name, *item) for name, summary in data_sets.items() for item in sorted(summary.reasons.items())]
    return pl.DataFrame(rows, schema={"data_set": pl.String, "reason": pl.String, "pictures": pl.Int64}, orient="row")


def _matching(work: DatasetWork) -> tuple[Report, Sequence[Check]]:
    from facecaption_ml.statistics.matching import (
        MATCHING_SCHEMA,
        SOURCES,
        MatchingSummary,
        matching_figure,
        matching_sample,
        matching_table,
    )

    settings = work.settings
    matcher, notes = work.resources.matcher.load(work.store)
    table, figure, sampled = pl.DataFrame(schema=MATCHING_SCHEMA), None, 0
    if matcher is not None:
        sample = matching_sample(
            work.frames(("face_id", *SOURCES)), _all_crops(work), settings.matching_sample, settings.seed
        )
        summary, sampled = MatchingSummary(), len(sample)
        summary.add(sample, _Counting(matcher), settings.seed)
        table = matching_table(summary)
        figure = matching_figure(summary) if sampled else None
    report = Report(
        title="Match of texts and faces",
        tables={"image_text_matching": table},
        markdown=f"Scored by `{settings.itm_model}`.\n\n{markdown_table(table, _MATCHING_COLUMNS)}"
        if len(table)
        else "",
        figure=figure,
        made_from=work.made_from(sampled=sampled, model=settings.itm_model or "none"),
        notes=notes,
    )
    return report, [
        checks.matching_conserved(table, sampled),
        checks.matching_in_range(table),
        complete(notes),
    ]


class _Counting:
    """A matcher that says how far it has come."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher, self._done, self._progress = matcher, 0, Progress("image_text_matching", "pairs")

    def match(self, images: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
        chances = self._matcher.match(images, texts)
        self._done += len(texts)
        self._progress(self._done, 0)
        return chances


def _chosen(work: DatasetWork, limit: int) -> dict[str, list[str]]:
    """Shard → the face ids of the seeded sample that lie in it; the sample does not depend on the shards."""
    from facecaption_ml.statistics.sampling import hashed_sample

    faces = (
        (face_id, shard)
        for shard in work.shards
        for frame in work.store.iter_table(DATASET, shard, columns=("face_id",), batch_rows=10_000)
        for face_id in frame["face_id"].to_list()
    )
    by_shard: dict[str, list[str]] = defaultdict(list)
    for face_id, shard in hashed_sample(faces, limit, work.settings.seed):
        by_shard[shard].append(face_id)
    return dict(sorted(by_shard.items()))


def _crops(work: DatasetWork, shard: str, face_ids: Sequence[str]) -> Iterator[Picture]:
    """The encoded crops of these faces, None for one that ``face_crops`` does not hold any more."""
    left = set(face_ids)
    if work.store.has_table("face_crops", shard):
        for frame in work.store.iter_table("face_crops", shard, columns=("face_id", "image")):
            found = frame.filter(pl.col("face_id").is_in(list(left)))
            for face_id, data in found.select("face_id", pl.col("image").struct.field("bytes")).iter_rows():
                left.discard(face_id)
                yield data
            if not left:
                return
    yield from [None] * len(left)


def _all_crops(work: DatasetWork) -> Iterator[pl.DataFrame]:
    for shard in work.shards:
        if work.store.has_table("face_crops", shard):
            yield from work.store.iter_table("face_crops", shard, columns=("face_id", "image"))
