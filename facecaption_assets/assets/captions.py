"""Captions of labelled faces: from the grammar, then rewritten by a chat model."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import dagster as dg
import polars as pl

from facecaption_assets.checks import tables as checks
from facecaption_assets.factories import previews
from facecaption_assets.factories.check import Check
from facecaption_assets.factories.progress import Progress
from facecaption_assets.factories.shards import ShardFunction, ShardResult, ShardWork, shard_asset
from facecaption_assets.machines.compute import CPU, ONE_A100
from facecaption_assets.resources.data import removals
from facecaption_assets.settings import Settings
from facecaption_ml.captions import caption_table
from facecaption_ml.captions.rewrite.answer_cache import AnswerCache, delete_answers, slug
from facecaption_ml.captions.rewrite.rewriting import LLM, unwritten
from facecaption_ml.dataset.provenance import package_version
from facecaption_ml.dataset.removal_requests import shows
from facecaption_ml.errors import naming_fields

GROUP = "captions"
LLM_PREFIX: Final = "FACECAPTION_LLM_"
_TREND: Final = 30  # shards in the picture of the acceptance rate


def caption_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """``template_captions`` and ``llm_captions``."""
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
        ),
        shard_asset(
            name="llm_captions",
            open_work=_open_rewriter,
            deps=["template_captions"],
            checks=checks.LLM_CAPTIONS,
            group=GROUP,
            kinds={"llm", "parquet"},
            description=(
                "Each template caption rewritten by a chat model into natural prose, best of several seeds (paper §3.3). A "
                "rewrite that loses or adds an attribute is not taken; the row then keeps its template caption and the reason."
            ),
            code_version="1",
            compute=ONE_A100,
            settings=settings,
            required_resources={"captioner"},
        ),
    ]


@contextlib.contextmanager
def _open_grammar(work: ShardWork) -> Iterator[ShardFunction]:
    grammar = work.context.resources.grammar.load()

    def caption(shard: str) -> ShardResult:
        attributes = work.store.read_table("face_attributes", shard)
        progress = Progress(f"template_captions {shard}", "faces")
        captions = caption_table(attributes, grammar, work.settings.seed, on_progress=progress)
        words = captions["template_caption"].str.split(" ").list.len()
        metadata = {
            "grammar version": grammar.version,
            "seed": work.settings.seed,
            "facecaption": package_version(),
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


@contextlib.contextmanager
def _open_rewriter(work: ShardWork) -> Iterator[ShardFunction]:
    with naming_fields(LLM_PREFIX):
        rewriter = work.context.resources.captioner.rewriter()
    removed = removals(work.settings)

    def rewrite(shard: str) -> ShardResult:
        templates = work.store.read_table("template_captions", shard)
        if rewriter is None:
            if shows(work.store, shard, removed):
                delete_answers(work.store, shard)
            return _rewritten(work, shard, templates, unwritten(templates, "FACECAPTION_LLM_BACKEND is none"), {})
        cache = AnswerCache(work.store, f"{slug(rewriter.model.model_id)}/{shard}")
        kept = len(cache)
        progress = Progress(f"llm_captions {shard}", "captions")
        with naming_fields(LLM_PREFIX):
            captions = rewriter.rewrite(templates, cache, on_progress=progress)
        if shows(work.store, shard, removed):
            cache.keep_only_used()
            delete_answers(work.store, shard, kept=cache.key)
        how = {
            "model": rewriter.model.model_id,
            "prompt version": rewriter.prompt.version,
            "guided decoding": rewriter.guided,
            "answers from the cache": kept,
            "answers asked for": len(cache) - kept,
        }
        return _rewritten(work, shard, templates, captions, how)

    try:
        yield rewrite
    finally:
        if rewriter is not None:
            rewriter.model.close()


def _rewritten(
    work: ShardWork, shard: str, templates: pl.DataFrame, captions: pl.DataFrame, how: Mapping[str, Any]
) -> ShardResult:
    written = captions.filter(pl.col("caption_source") == LLM)
    rate = len(written) / max(len(captions), 1)
    reasons = captions["reason"].drop_nulls().value_counts()
    pairs = captions.join(templates, on="face_id", how="inner", maintain_order="left")
    final = pairs.select("face_id", "caption", "labels", "gender")
    shown = [(row["caption"], row["template_caption"]) for row in pairs.filter(caption_source=LLM).head(12).to_dicts()]
    metadata = {
        **how,
        "facecaption": package_version(),
        "acceptance rate": round(rate, 4),
        "from the LLM": len(written),
        "mean attempts": round(float(captions["attempts"].mean() or 0), 3),  # type: ignore[arg-type]
        "mean words": round(float(captions["caption"].str.split(" ").list.len().mean() or 0), 2),  # type: ignore[arg-type]
        **previews.counts("template kept", dict(reasons.iter_rows())),
        "rewrites": previews.rows(["caption", "template caption"], shown),
    }
    if len(captions):
        trend = {**_acceptance_by_shard(work, shard), shard: rate}
        metadata["acceptance by shard"] = previews.figure(previews.bars(trend, "share of LLM captions"), "acceptance")
    return ShardResult(
        frame=captions,
        metadata=metadata,
        checks=[
            Check(
                "faces_conserved",
                captions["face_id"].to_list() == templates["face_id"].to_list(),
                {"in": len(templates), "out": len(captions)},
            ),
            checks.faithful(final),
            checks.clean_text(captions),
            checks.explained(captions, templates),
            checks.acceptance(len(written), len(captions), work.settings.llm.acceptance_floor),
        ],
    )


def _acceptance_by_shard(work: ShardWork, shard: str) -> dict[str, float]:
    """The acceptance rate of the finished shards before this one, at most ``_TREND`` of them."""
    before = [other for other in work.store.registered_shards("llm_captions") if other < shard][-_TREND:]
    rates = {}
    for other in before:
        sources = work.store.read_table("llm_captions", other, columns=["caption_source"])["caption_source"]
        if len(sources):
            rates[other] = float((sources == LLM).mean() or 0)  # type: ignore[arg-type]
    return rates
