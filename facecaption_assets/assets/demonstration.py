"""What a small model would make of a few captions, for people to look at; no other asset is made of it."""

import contextlib
from collections.abc import Mapping
from typing import Any, Final

import dagster as dg
import polars as pl

from facecaption_assets.checks import tables as checks
from facecaption_assets.factories import previews
from facecaption_assets.factories.asset import configured_asset
from facecaption_assets.factories.file_digests import ANSWERS, CALIBRATION, LEXICON, VOCABULARY
from facecaption_assets.factories.progress import logger
from facecaption_assets.machines.compute import ONE_A100
from facecaption_assets.partitions import DEMONSTRATION, all_of
from facecaption_assets.resources.models import naming_llm
from facecaption_assets.settings import Settings
from facecaption_ml.captions.rewrite.demonstration import Demonstration, demonstrate
from facecaption_ml.dataset.provenance import package_version
from facecaption_ml.storage.store import Store, StoreError

_READ: Final = ("demonstration", "model", "prompt", "attempts", "temperature", "top_p", "least_fluency")
_ON_THE_TERMINAL: Final = 4  # pairs


def demonstration_asset(settings: Settings) -> dg.AssetsDefinition:
    """``rewriting_demonstration``."""

    @configured_asset(
        settings,
        ONE_A100,
        team="data",
        code_version="1",
        # By name: with the backend none, under which it is made, no caption depends on them, but what is shown here does.
        reads=("llm", "seed", *(f"llm.{name}" for name in _READ)),
        files=(LEXICON, VOCABULARY, CALIBRATION, *ANSWERS),
        checks=checks.REWRITING_DEMONSTRATION,
        resources={"captioner"},
        name=DEMONSTRATION,
        deps=[all_of("template_captions")],
        group_name="captions",
        kinds={"llm"},
        description=(
            "What the model of FACECAPTION_LLM_MODEL would make of the first FACECAPTION_LLM_DEMONSTRATION template captions "
            "under guided decoding, side by side with them. Shown here and nowhere else: the data set keeps the templates."
        ),
    )
    def asset(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        rewriter = context.resources.captioner.demonstrator()
        if rewriter is None:
            why = (
                "not wanted: FACECAPTION_LLM_DEMONSTRATION is 0, or FACECAPTION_LLM_BACKEND has all captions rewritten"
            )
            nothing = pl.DataFrame(schema=["face_id", "caption", "labels", "gender"])
            return dg.MaterializeResult(
                metadata={"demonstration": why}, check_results=[checks.faithful(nothing).result()]
            )
        with contextlib.closing(rewriter.model), naming_llm():
            shown = demonstrate(rewriter, _first_templates(context.resources.store.open()), settings.llm.demonstration)
        logger.info("\n".join([f"{DEMONSTRATION}: {shown.told}", *shown.lines(_ON_THE_TERMINAL)]).rstrip())
        rewrites = shown.rewrites.select("face_id", "caption", "labels", "gender")
        return dg.MaterializeResult(metadata=_metadata(shown), check_results=[checks.faithful(rewrites).result()])

    return asset


def _first_templates(store: Store) -> pl.DataFrame:
    """The template captions of the first shard that has any. Raises StoreError where none has."""
    for shard in store.registered_shards("template_captions"):
        templates = store.read_table("template_captions", shard)
        if len(templates):
            return templates
    raise StoreError("no template caption is there yet: materialize template_captions first")


def _metadata(shown: Demonstration) -> Mapping[str, Any]:
    return {
        "demonstration": dg.MetadataValue.md(shown.markdown),
        "rewritten": len(shown.rewrites),
        "model": shown.model_id,
        **previews.counts("not rewritten", shown.kept),
        "facecaption": package_version(),
    }
