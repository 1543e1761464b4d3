"""Captions of labelled faces."""

import contextlib
from collections.abc import Iterator

import dagster as dg
import polars as pl

from facecaption_assets import checks, previews
from facecaption_assets.compute import CPU
from facecaption_assets.progress import Progress
from facecaption_assets.settings import Settings
from facecaption_assets.shards import ShardFunction, ShardResult, ShardWork, shard_asset
from facecaption_ml.captions import caption_table

GROUP = "captions"


def caption_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """``template_captions``."""
    return [
        shard_asset(
            name="template_captions",
            open_work=_open_grammar,
            deps=["face_attributes"],
            checks=checks.TEMPLATE_CAPTIONS,
            group=GROUP,
            kinds={"python", "parquet"},
            description=(
                "A caption of several short sentences for each labelled face, drawn from a probabilistic grammar that is "
                "conditioned on the labels (paper §3.3). A pure function of labels, grammar version, seed and face id."
            ),
            code_version="1",
            compute=CPU,
            settings=settings,
            required_resources={"grammar"},
        )
    ]


@contextlib.contextmanager
def _open_grammar(work: ShardWork) -> Iterator[ShardFunction]:
    grammar = work.context.resources.grammar.load()

    def caption(shard: str) -> ShardResult:
        attributes = work.store.read_table("face_attributes", shard)
        progress = Progress(f"template_captions {shard}", "faces")
        captions = caption_table(
            attributes, grammar, work.settings.seed, on_progress=lambda done: progress(done, len(attributes))
        )
        words = captions["template_caption"].str.split(" ").list.len()
        metadata = {
            "grammar version": grammar.version,
            "seed": work.settings.seed,
            "mean words": round(sum(words) / max(len(words), 1), 2),
            "examples": previews.rows(
                ["face", "caption", "labels"],
                [(face_id, text, ", ".join(labels)) for face_id, text, labels, _ in captions.head(12).iter_rows()],
            ),
        }
        if len(captions):
            metadata["words per caption"] = previews.figure(
                previews.histogram(words.to_numpy(), "words per caption"), "words per caption"
            )
        return ShardResult(
            frame=captions,
            metadata=metadata,
            checks=[
                checks.conserved("faces_conserved", len(attributes), len(captions), {}),
                checks.faithful(captions),
                checks.unique(captions, "face_id", "unique_faces"),
            ],
        )

    yield caption


def released_captions(work: ShardWork, shard: str) -> pl.DataFrame:
    """``face_id, caption, template_caption, labels`` of a shard."""
    template = work.store.read_table("template_captions", shard)
    return template.select("face_id", "template_caption", "labels", caption="template_caption")
