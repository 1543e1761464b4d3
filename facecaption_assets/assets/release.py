"""The released data set: shards of it, and the packed folder with its data card."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import dagster as dg
import polars as pl

from facecaption_assets.checks import tables as checks
from facecaption_assets.factories import previews, sheets
from facecaption_assets.factories.asset import configured_asset
from facecaption_assets.factories.check import Check
from facecaption_assets.factories.dataset_inputs import SAME_SETTINGS, DatasetInputs
from facecaption_assets.factories.progress import Progress
from facecaption_assets.factories.records import COST, DETECTOR_WEIGHTS, PREDICTOR, TOKENS, summed, told
from facecaption_assets.factories.shards import ShardFunction, ShardResult, ShardWork, shard_asset
from facecaption_assets.machines.compute import CPU
from facecaption_assets.partitions import STATISTICS_ASSETS
from facecaption_assets.resources.data import removals
from facecaption_assets.settings import Settings
from facecaption_ml import figures
from facecaption_ml.dataset.data_card import data_card, summary_json
from facecaption_ml.dataset.funnel import STAGES, total_counts
from facecaption_ml.dataset.label_rules import in_words, label_rules
from facecaption_ml.dataset.provenance import package_version
from facecaption_ml.dataset.release import (
    image_hashes,
    release_table,
    released_captions,
    require_one_form,
    split_of,
    write_release,
)
from facecaption_ml.dataset.release_files import PREFIX, SPLITS
from facecaption_ml.dataset.release_summary import ReleaseSummary
from facecaption_ml.dataset.sources import sample_id
from facecaption_ml.errors import naming
from facecaption_ml.schemas import DATASET, SCHEMAS
from facecaption_ml.statistics.report import card_sections
from facecaption_ml.storage.store import Store, StoreError

GROUP = "release"
PIXELS_SETTING = "FACECAPTION_RELEASE_IMAGES"


def release_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """``facecaption_dataset`` and ``facecaption_release``."""
    return [
        shard_asset(
            name=DATASET,
            open_work=_open_release,
            deps=["raw_images", "face_crops", "face_attributes", "template_captions", "llm_captions"],
            checks=checks.FACECAPTION_DATASET,
            group=GROUP,
            kinds={"polars", "parquet"},
            description=(
                "URL, face box, captions and who wrote them, labels with their probabilities and split of each pair; no pixels "
                "unless FACECAPTION_RELEASE_IMAGES. What the removal list names is left out on every rebuild."
            ),
            code_version="2",
            reads=("release",),
            compute=CPU,
            settings=settings,
        ),
        _facecaption_release(settings),
    ]


@contextlib.contextmanager
def _open_release(work: ShardWork) -> Iterator[ShardFunction]:
    settings = work.settings
    columns = ["face_id", "sample_id", "url", "box", "alt_text", *(["image"] if settings.release.images else [])]

    def release(shard: str) -> ShardResult:
        removed = removals(settings)
        captions = released_captions(work.store, shard)
        crops = work.store.read_table("face_crops", shard, columns=columns)
        sha256_of = dict(image_hashes(work.store, shard).iter_rows())
        released, outcomes = release_table(
            crops, captions, sha256_of, removed, settings.release.validation_share, settings.release.test_share
        )
        dropped = {reason: count for reason, count in outcomes.items() if reason != "released"}
        return ShardResult(
            frame=released,
            metadata={
                **sheets.caption_sheet(work.store, [shard], released),
                **previews.counts("faces", outcomes),
                **previews.counts("split", {split: int((released["split"] == split).sum()) for split in SPLITS}),
                **previews.counts("captions by", Counter(released["caption_source"])),
                "facecaption": package_version(),
                "examples": previews.rows(
                    ["face", "URL", "caption", "by", "alt text"],
                    list(
                        released.select("face_id", "url", "caption", "caption_source", "alt_text").head(8).iter_rows()
                    ),
                ),
                **_trace(released),
            },
            checks=[
                checks.conserved("faces_conserved", len(captions), len(released), dropped, "captioned faces"),
                checks.removals_honoured(released, sha256_of, removed),
                checks.one_split_per_url(released),
                checks.provenance(released),
                checks.unique(released, "face_id", "unique_faces"),
            ],
        )

    yield release


def _trace(released: pl.DataFrame) -> dict[str, str]:
    """How to see the way of a face from here back to its URL."""
    face = released["face_id"][0] if len(released) else "FACE_ID"
    return {"where a row comes from": f"facecaption trace {face}"}


def _facecaption_release(settings: Settings) -> dg.AssetsDefinition:
    @configured_asset(
        settings,
        CPU,
        team="data",
        code_version="2",
        reads=("release", "captions", "profile"),
        checks={**checks.FACECAPTION_RELEASE, **SAME_SETTINGS},
        resources=["grammar"],
        table="facecaption_release",
        schema=SCHEMAS[DATASET],
        deps=[DATASET, "raw_images", *STATISTICS_ASSETS],
        group_name=GROUP,
        kinds={"parquet", "huggingface"},
    )
    def facecaption_release(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """Every finished shard packed into a folder that ``datasets.load_dataset`` opens, with a data card.

        Images that another URL has already brought are left out. Shards that are not there yet are named in the metadata
        and do not hold the release up, neither do statistics that are missing in the card.
        """
        store: Store = context.resources.store.open()
        expected, shards = store.shards("source_manifest"), store.registered_shards(DATASET)
        if not shards:
            raise StoreError("no shard of facecaption_dataset is there yet: materialize it first")
        with naming(PIXELS_SETTING):
            require_one_form(store, shards, settings.release.images)
        inputs = DatasetInputs.of(context.instance, shards)
        funnel = total_counts(store, expected)
        rules = in_words(label_rules(store, shards))
        versions = {
            **_networks(context.instance, shards),
            "label rule": rules,
            "grammar": context.resources.grammar.load().version,
            "profile": settings.profile,
            "facecaption": package_version(),
        }
        spent = _spent(context.instance, shards)
        rows = sum(store.row_count(DATASET, shard) for shard in shards)
        statistics, pictures = card_sections(store, STATISTICS_ASSETS, rows)

        def card(summary: ReleaseSummary) -> dict[str, bytes]:
            funnel[STAGES[-1][1]] = summary.faces  # of the tables' rows, those that are in the release
            return {
                "README.md": data_card(
                    summary,
                    funnel,
                    versions,
                    settings.release.images,
                    statistics,
                    label_rule=rules,
                    kept_out=settings.captions.exclude,
                    spent=spent,
                ),
                "summary.json": summary_json(summary, funnel),
                "figures/funnel.png": _funnel_picture(funnel),
                **{f"figures/{name}": picture for name, picture in pictures.items()},
            }

        progress = Progress("facecaption_release", "shards")
        summary = write_release(store, shards, card, progress, removed=removals(settings))
        inputs.write(store, "facecaption_release")
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": summary.faces,
                "dagster/uri": store.uri(PREFIX),
                "from URLs to pairs": previews.amounts(funnel, "what is left after each stage"),
                **sheets.caption_sheet(store, shards),
                "shards": f"{len(shards)} of {len(expected)}",
                **inputs.metadata,
                "missing shards": ", ".join(sorted(set(expected) - set(shards))[:20]) or "none",
                **previews.counts("split", summary.by_split),
                "faces of repeated images left out": summary.duplicate_faces,
                **previews.counts("left out", summary.left_out),
                **previews.counts("captions by", summary.captions.sources),
                "label rule": rules,
                "mean words": round(summary.mean_words, 2),
                "mean side, px": round(summary.mean_side, 1),
                "funnel": previews.rows(["stage", "count"], list(funnel.items())),
                "statistics in the card": ", ".join(Path(name).stem for name in pictures) or "none",
                "where a row comes from": "facecaption trace FACE_ID",
                "data card": dg.MetadataValue.path(store.uri(f"{PREFIX}/README.md")),
            },
            check_results=[_images_in_one_split(store, settings).result(), inputs.check().result()],
        )

    return facecaption_release


def _networks(instance: dg.DagsterInstance, shards: Sequence[str]) -> dict[str, str]:
    """The versions of the networks that found and labelled the faces, as the shards' records have them."""
    recorded = {
        "detector": told(instance, "face_crops", shards, DETECTOR_WEIGHTS),
        "predictor": told(instance, "face_attributes", shards, PREDICTOR),
    }
    return {part: in_words(versions) if versions else "not recorded" for part, versions in recorded.items()}


def _spent(instance: dg.DagsterInstance, shards: Sequence[str]) -> dict[str, str]:
    """What the language model took, over the shards, as their records have it; nothing where it took nothing."""
    sums = summed(instance, "llm_captions", shards, (*TOKENS, COST))
    return {
        name: f"{amount:,.2f}" if isinstance(amount, float) else f"{amount:,}"
        for name, amount in sums.items()
        if amount
    }


def _funnel_picture(funnel: Mapping[str, int]) -> bytes:
    return figures.png(previews.bars({stage: float(count) for stage, count in funnel.items()}, "count"))


def _images_in_one_split(store: Store, settings: Settings) -> Check:
    """Read back from the packed files, since they are what users get.

    Each row's split must be the one that its URL alone decides; then no URL can be in two, and nothing has to be remembered
    from one file to the next.
    """
    rows, wrong = 0, []
    for key in store.keys(f"{PREFIX}/data/"):
        frame = pl.read_parquet(store.read_bytes(key), columns=["url", "split"]).unique()
        rows += len(frame)
        for url, split in frame.iter_rows():
            if split_of(sample_id(url), settings.release.validation_share, settings.release.test_share) != split:
                wrong.append(url)
    return Check.of_each("images_in_one_split", sorted(wrong), rows, "URLs are in the one split that they belong to")
