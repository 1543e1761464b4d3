"""The data set's statistics: Table 1 and Figures 3, 4 and 5 of the paper, over all finished shards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import dagster as dg

from facecaption_assets.checks import statistics as checks
from facecaption_assets.factories.progress import Progress
from facecaption_assets.factories.shards import Check
from facecaption_assets.factories.whole_dataset import DATASET, DatasetWork, complete, statistics_asset
from facecaption_assets.machines.compute import CPU, ONE_A100
from facecaption_assets.settings import THIS_DATA_SET, Settings
from facecaption_ml.dataset.label_rules import in_words, label_rules
from facecaption_ml.statistics.comparison import COMPARISON_SCHEMA
from facecaption_ml.statistics.matching import MATCHING_SCHEMA
from facecaption_ml.statistics.quality import QUALITY_SCHEMA
from facecaption_ml.statistics.text import TABLE_SCHEMA

if TYPE_CHECKING:
    from facecaption_ml.statistics.report import Report

_FOLDERS_SETTING: Final = "FACECAPTION_QUALITY_FOLDERS"


def statistics_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """``dataset_comparison``, ``text_statistics``, ``image_quality`` and ``image_text_matching``."""
    return [
        statistics_asset(
            name="dataset_comparison",
            measure=_compare,
            schema=COMPARISON_SCHEMA,
            checks=checks.DATASET_COMPARISON,
            deps=[DATASET],
            kinds={"polars", "parquet"},
            description="Table 1 of the paper: published facial data sets beside this one as measured.",
            code_version="1",
            reads=("seed",),
            compute=CPU,
            settings=settings,
        ),
        statistics_asset(
            name="text_statistics",
            measure=_text,
            schema=TABLE_SCHEMA,
            checks=checks.TEXT_STATISTICS,
            deps=[DATASET],
            kinds={"polars", "parquet"},
            description=(
                "Figure 4 of the paper for caption, template caption and alt text side by side: categories, words, unique "
                "4-grams and diversity, in memory that does not grow with the number of captions."
            ),
            code_version="1",
            reads=("seed",),
            compute=CPU,
            settings=settings,
        ),
        statistics_asset(
            name="image_quality",
            measure=_quality,
            schema=QUALITY_SCHEMA,
            checks=checks.IMAGE_QUALITY,
            deps=[DATASET, "face_crops"],
            kinds={"pytorch", "parquet"},
            description=(
                "Figure 3 of the paper: BRISQUE and CLIP-IQA of a seeded sample of the released crops, beside the folders "
                "of FACECAPTION_QUALITY_FOLDERS. CLIP-IQA needs the weights that FACECAPTION_CLIP names."
            ),
            code_version="1",
            reads=("statistics.clip", "statistics.quality_folders", "statistics.quality_sample", "seed"),
            compute=ONE_A100,
            settings=settings,
            required_resources={"quality_scorers"},
        ),
        statistics_asset(
            name="image_text_matching",
            measure=_matching,
            schema=MATCHING_SCHEMA,
            checks=checks.IMAGE_TEXT_MATCHING,
            deps=[DATASET, "face_crops"],
            kinds={"pytorch", "parquet"},
            description=(
                "Figure 5 of the paper: how well each source of text matches its face, and another face as a baseline, on a "
                "seeded sample. Needs the weights that FACECAPTION_ITM_MODEL names; empty without."
            ),
            code_version="1",
            reads=("statistics.itm_model", "statistics.matching_sample", "seed"),
            compute=ONE_A100,
            settings=settings,
            required_resources={"matcher"},
        ),
    ]


def _compare(work: DatasetWork) -> tuple[Report, Sequence[Check]]:
    from facecaption_ml.statistics.comparison import ComparisonTally, comparison_report, published_rows

    tally = ComparisonTally.of(work.frames(("box", "caption")))
    report = comparison_report(tally, THIS_DATA_SET, work.made_from())
    table = report.tables["dataset_comparison"]
    return report, [checks.published_unchanged(table, published_rows()), checks.rows_counted(table, work.rows)]


def _text(work: DatasetWork) -> tuple[Report, Sequence[Check]]:
    from facecaption_ml.statistics.text import TextStatistics
    from facecaption_ml.statistics.text_tally import COLUMNS

    statistics = TextStatistics.of(
        work.frames(COLUMNS),
        scratch=work.settings.home / "cache",
        seed=work.settings.seed,
        total=work.rows,
        on_progress=Progress("text_statistics", "rows"),
    )
    report = statistics.report(work.made_from(label_rule=in_words(label_rules(work.store, work.shards))))
    table, lengths = report.tables["text_statistics"], report.tables["words_per_text"]
    return report, [
        checks.texts_conserved(table, lengths, work.rows),
        checks.shares_sum_to_one(report.tables["categories"], lengths),
        checks.unique_at_most_all(table, report.tables["unique_4_grams"]),
    ]


def _quality(work: DatasetWork) -> tuple[Report, Sequence[Check]]:
    from facecaption_ml.statistics.quality import measure_quality, quality_report

    settings = work.settings
    scorers, notes = work.resources.quality_scorers.load()
    summaries, missing = measure_quality(
        work.store,
        work.shards,
        scorers,
        name=THIS_DATA_SET,
        folders=settings.statistics.quality_folders,
        limit=settings.statistics.quality_sample,
        seed=settings.seed,
        on_progress=Progress("image_quality", "pictures"),
    )
    notes = [*notes, *(f"{_FOLDERS_SETTING}: {line}" for line in missing)]
    made_from = work.made_from(
        sampled=summaries[THIS_DATA_SET].sampled,
        models=", ".join(type(scorer).__name__ for scorer in scorers) or "none",
        clip=settings.statistics.clip or "none",
        folders=", ".join(settings.statistics.quality_folders) or "none",
    )
    report = quality_report(summaries, made_from, notes, settings.statistics.clip)
    table = report.tables["image_quality"]
    return report, [
        checks.quality_conserved(table, {name: summary.sampled for name, summary in summaries.items()}),
        checks.quality_in_range(table),
        complete(notes),
    ]


def _matching(work: DatasetWork) -> tuple[Report, Sequence[Check]]:
    from facecaption_ml.statistics.matching import SOURCES, matching_report, measure_matching
    from facecaption_ml.statistics.sampling import crop_frames

    settings = work.settings
    matcher, notes = work.resources.matcher.load(work.store)
    summary = None
    if matcher is not None:
        summary = measure_matching(
            work.frames(("face_id", *SOURCES)),
            crop_frames(work.store, work.shards),
            matcher,
            limit=settings.statistics.matching_sample,
            seed=settings.seed,
            on_progress=Progress("image_text_matching", "faces"),
        )
    sampled = summary.sampled if summary else 0
    made_from = work.made_from(sampled=sampled, model=settings.statistics.itm_model or "none")
    report = matching_report(summary, made_from, notes, settings.statistics.itm_model)
    table = report.tables["image_text_matching"]
    return report, [checks.matching_conserved(table, sampled), checks.matching_in_range(table), complete(notes)]
