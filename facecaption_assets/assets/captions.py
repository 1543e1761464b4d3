"""Captions of labelled faces: from the grammar, then rewritten by a chat model."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import dagster as dg
import polars as pl

from facecaption_assets.checks import tables as checks
from facecaption_assets.factories import previews
from facecaption_assets.factories.file_digests import ANSWERS, CALIBRATION, LEXICON, STYLE, VOCABULARY
from facecaption_assets.factories.progress import Progress, logger
from facecaption_assets.factories.records import COST, TOKENS
from facecaption_assets.factories.shards import ShardFunction, ShardResult, ShardWork, shard_asset
from facecaption_assets.machines.compute import CPU, ONE_A100
from facecaption_assets.resources.data import removals
from facecaption_assets.resources.models import naming_llm
from facecaption_assets.settings import Settings
from facecaption_ml.captions import caption_table
from facecaption_ml.captions.rewrite.answer_cache import AnswerCache, delete_answers, slug
from facecaption_ml.captions.rewrite.judgement import kind_of
from facecaption_ml.captions.rewrite.rewriting import LLM, unwritten
from facecaption_ml.captions.rewrite.usage import Prices, Usage
from facecaption_ml.dataset.provenance import package_version
from facecaption_ml.dataset.removal_requests import has_removals

GROUP = "captions"
_TREND: Final = 30  # shards that the acceptance rate is compared with


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
            reads=("captions", "seed"),
            files=(LEXICON, STYLE),
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
            code_version="2",
            reads=("llm", "seed"),
            files=(LEXICON, VOCABULARY, CALIBRATION, *ANSWERS),
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
        captions = caption_table(attributes, grammar, work.settings.seed, progress, work.settings.captions.exclude)
        words = captions["template_caption"].str.split(" ").list.len()
        metadata = {
            "words per caption": previews.spread(words.to_numpy(), "words", "words per caption"),
            "mean words": round(sum(words) / max(len(words), 1), 2),
            "examples": previews.rows(
                ["face", "caption", "labels"],
                [(face_id, text, ", ".join(labels)) for face_id, text, labels, _ in captions.head(8).iter_rows()],
            ),
            "grammar version": grammar.version,
            "seed": work.settings.seed,
            "facecaption": package_version(),
        }
        return ShardResult(
            frame=captions,
            metadata=metadata,
            checks=[
                checks.conserved("faces_conserved", len(attributes), len(captions), {}, "labelled faces"),
                checks.faithful(captions),
                checks.unique(captions, "face_id", "unique_faces"),
            ],
        )

    yield caption


@contextlib.contextmanager
def _open_rewriter(work: ShardWork) -> Iterator[ShardFunction]:
    rewriter = work.context.resources.captioner.rewriter()
    prices = work.settings.llm.prices
    of_run = Usage()

    def rewrite(shard: str) -> ShardResult:
        removed = removals(work.settings)
        templates = work.store.read_table("template_captions", shard)
        if rewriter is None:
            if has_removals(work.store, shard, removed):
                delete_answers(work.store, shard)
            kept = unwritten(templates, "FACECAPTION_LLM_BACKEND is none")
            return _finished(work, templates, kept, {"rewriting": "no language model was asked"}, asked=False)
        cache = AnswerCache(work.store, f"{slug(rewriter.model_id)}/{shard}")
        progress = Progress(f"llm_captions {shard}", "captions")
        usage = Usage()
        try:
            with naming_llm():
                captions = rewriter.rewrite(templates, cache, on_progress=progress, usage=usage)
        finally:
            of_run.add_all(usage)
            _log_usage(shard, usage, of_run, prices)
        if has_removals(work.store, shard, removed):
            cache.keep_only_used()
            delete_answers(work.store, shard, kept=cache.key)
        how = {
            "model": rewriter.model_id,
            "prompt version": rewriter.prompt.version,
            "guided decoding": rewriter.guided,
            **_used(usage, prices),
        }
        metadata = {**_what_came(work, shard, templates, captions), **how}
        return _finished(work, templates, captions, metadata, asked=True)

    try:
        yield rewrite
    finally:
        if rewriter is not None:
            rewriter.model.close()


def _what_came(work: ShardWork, shard: str, templates: pl.DataFrame, captions: pl.DataFrame) -> dict[str, Any]:
    """What a model made of the template captions: outcomes, acceptance beside other shards, examples."""
    written = captions.filter(pl.col("caption_source") == LLM)
    rate = len(written) / max(len(captions), 1)
    pairs = written.join(templates, on="face_id", how="inner", maintain_order="left").head(8).to_dicts()
    shown = [(row["caption"], row["template_caption"]) for row in pairs]
    return {
        "what came of the template captions": previews.shares(_outcomes(captions), "outcomes of the rewriting"),
        "acceptance rate": round(rate, 4),
        "from the LLM": len(written),
        **_beside_other_shards(work, shard, rate),
        "mean attempts": round(float(captions["attempts"].mean() or 0), 3),  # type: ignore[arg-type]
        **({"rewrites": previews.rows(["caption", "template caption"], shown)} if shown else {}),
        **previews.counts("template kept", dict(_kinds(captions["reason"].drop_nulls()).value_counts().iter_rows())),
    }


def _finished(
    work: ShardWork, templates: pl.DataFrame, captions: pl.DataFrame, metadata: Mapping[str, Any], *, asked: bool
) -> ShardResult:
    """The table with its checks. ``asked``: whether a model was, so that something can be said of what it accepted."""
    pairs = captions.join(templates, on="face_id", how="inner", maintain_order="left")
    written = captions.filter(pl.col("caption_source") == LLM)
    words = captions["caption"].str.split(" ").list.len()
    return ShardResult(
        frame=captions,
        metadata={
            **metadata,
            "mean words": round(float(words.mean() or 0), 2),  # type: ignore[arg-type]
            "facecaption": package_version(),
        },
        checks=[
            checks.captions_conserved(captions, templates),
            checks.faithful(pairs.select("face_id", "caption", "labels", "gender")),
            checks.clean_text(captions),
            checks.explained(captions, templates),
            checks.acceptance(len(written), len(captions), work.settings.llm.acceptance_floor, asked=asked),
        ],
    )


def _outcomes(captions: pl.DataFrame) -> dict[str, float]:
    """Shares of the captions: rewritten, or kept as the template has them, by reason; the most frequent first."""
    outcomes = _kinds(captions["reason"].fill_null("rewritten by the LLM")).rename("outcome").value_counts()
    ordered = outcomes.sort("count", "outcome", descending=[True, False])
    return {name: count / len(captions) for name, count in ordered.iter_rows()}


def _kinds(reasons: pl.Series) -> pl.Series:
    """Reasons without the words that they name or a server said, of which there may be many."""
    return pl.Series(reasons.name, [kind_of(reason) for reason in reasons], pl.String)


def _used(usage: Usage, prices: Prices) -> dict[str, Any]:
    """What the captions of a shard took: answers, tokens, money, and what servers said about errors."""
    kept = usage.kept_prompt_tokens + usage.kept_completion_tokens
    metadata: dict[str, Any] = {
        "answers from the cache": usage.kept,
        "answers asked for": usage.requests,
        **dict(zip(TOKENS, (usage.prompt_tokens, usage.completion_tokens, kept), strict=True)),
    }
    if prices != Prices():
        metadata["cost"] = prices.cost(usage.prompt_tokens, usage.completion_tokens)
        metadata[COST] = prices.cost(
            usage.prompt_tokens + usage.kept_prompt_tokens, usage.completion_tokens + usage.kept_completion_tokens
        )
    if usage.errors:
        metadata["errors of the endpoint"] = previews.rows(["what it said", "times"], usage.errors.most_common())
    return metadata


def _log_usage(shard: str, usage: Usage, of_run: Usage, prices: Prices) -> None:
    """What a shard took and the run so far, and every error's words once."""
    for said, times in usage.errors.most_common():
        logger.warning(f"llm_captions {shard}: {times} × {said}")
    logger.info(f"llm_captions {shard}: {usage.told(prices)}; the run so far: {of_run.told(prices)}")


def _beside_other_shards(work: ShardWork, shard: str, rate: float) -> dict[str, Any]:
    """Where this shard's acceptance rate lies among those of the shards before it; nothing where there are none."""
    before = _acceptance_by_shard(work, shard)
    if not before:
        return {}
    mean = sum(before.values()) / len(before)
    lower = sum(other < rate for other in before.values())
    return {
        "acceptance beside the shards before": (
            f"{100 * (rate - mean):+.1f} points from their mean of {mean:.1%}; higher than {lower} of {len(before)}"
        )
    }


def _acceptance_by_shard(work: ShardWork, shard: str) -> dict[str, float]:
    """The acceptance rate of the finished shards before this one, at most ``_TREND`` of them."""
    before = [other for other in work.store.registered_shards("llm_captions") if other < shard][-_TREND:]
    rates = {}
    for other in before:
        sources = work.store.read_table("llm_captions", other, columns=["caption_source"])["caption_source"]
        if len(sources):
            rates[other] = float((sources == LLM).mean() or 0)  # type: ignore[arg-type]
    return rates
