"""FLIP checkpoints: one for each variant, trained on the pairs of all finished shards."""

import datetime
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from facecaption_assets.checks import flip as checks
from facecaption_assets.factories import previews
from facecaption_assets.factories.asset import configured_asset
from facecaption_assets.factories.dataset_inputs import DatasetInputs
from facecaption_assets.factories.whole_dataset import DATASET, DatasetWork
from facecaption_assets.machines.compute import EIGHT_A100
from facecaption_assets.machines.retries import training_retry_policy
from facecaption_assets.partitions import VARIANTS, all_of
from facecaption_assets.resources.models import load_checkpoint
from facecaption_assets.settings import Settings
from facecaption_assets.training.launch import process_count, run_training, training_config
from facecaption_ml.storage.store import Store

if TYPE_CHECKING:
    from facecaption_ml.flip import Flip
    from facecaption_ml.flip.training.config import TrainingConfig

GROUP: Final = "flip"
CODE_VERSION: Final = "2"
_CROPS: Final = "face_crops"
_EXAMPLE_TEXTS: Final = ("A smiling woman with wavy brown hair.", "face")
_VERSION_SHARDS: Final = 16
_DIRECTIONS: Final = {"image → text": "image_to_text", "text → image": "text_to_image", "chance": "chance"}


def flip_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """``flip_checkpoint``."""

    @configured_asset(
        settings,
        EIGHT_A100,
        team="models",
        code_version=CODE_VERSION,
        reads=("flip", "captions.grammar", "seed"),
        checks=checks.FLIP_CHECKPOINT,
        resources=["training_processes", "grammar"],
        retries=training_retry_policy,
        deps=[all_of(DATASET), all_of(_CROPS)],
        partitions_def=VARIANTS,
        group_name=GROUP,
        kinds={"pytorch", "safetensors"},
    )
    def flip_checkpoint(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """FLIP (paper §5.1): a ViT and a BERT trained with a contrastive and a matching loss, one checkpoint a variant.

        `flip` learns from captions, `flip_template` from template captions, `flip_alt_text` from alt text. Every finished shard
        is read. A training that was interrupted resumes from its last checkpoint when materialized again.
        """
        return _provide_checkpoint(context, settings)

    return [flip_checkpoint]


def _provide_checkpoint(context: dg.AssetExecutionContext, settings: Settings) -> dg.MaterializeResult:
    store: Store = context.resources.store.open()
    data = DatasetWork.open(store, settings)
    data.require_shards()
    inputs = DatasetInputs.of(context.instance, data.shards)
    processes = process_count(settings)
    config = training_config(settings, context.partition_key, data.shards, _versions(context, data), processes)
    work = settings.home / "training" / config.variant
    started = time.monotonic()
    checkpoint = run_training(context, context.resources.training_processes, config, work, processes)
    minutes = (time.monotonic() - started) / 60
    flip = load_checkpoint(settings, store, config.prefix)
    with_crops = [shard for shard in data.shards if store.has_table(_CROPS, shard)]
    rows = sum(store.row_count(DATASET, shard) for shard in with_crops)
    inputs.write(store, config.prefix)
    return dg.MaterializeResult(
        metadata={
            **_figures(store, config, flip),
            **_facts(store, config, checkpoint, data, minutes),
            **inputs.metadata,
            "model card": dg.MetadataValue.md(store.read_bytes(f"{config.prefix}/MODEL_CARD.md").decode()),
        },
        data_version=dg.DataVersion(flip.version),
        check_results=[
            checks.held_out_above_chance(checkpoint["held_out"]).result(),
            checks.loads(flip, _EXAMPLE_TEXTS).result(),
            checks.pairs_conserved(checkpoint["pairs"], checkpoint["excluded"], rows).result(),
        ],
    )


def _facts(
    store: Store, config: "TrainingConfig", checkpoint: Mapping[str, Any], data: DatasetWork, minutes: float
) -> dict[str, Any]:
    speeds = [record["pairs_per_second"] for record in _log(store, config) if record["kind"] == "step"]
    return {
        "dagster/uri": store.uri(config.prefix),
        "held-out retrieval": previews.rows(
            ["split", "pairs", "direction", "R@1", "R@5", "R@10"], _recall_rows(checkpoint["held_out"])
        ),
        **{f"matching AUC, {split}": round(auc, 4) for split, auc in checkpoint["matching_auc"].items()},
        "version": checkpoint["version"],
        "preset": checkpoint["preset"]["name"],
        "parameters": checkpoint["parameters"],
        "pairs": checkpoint["pairs"],
        **previews.counts("left out", checkpoint["excluded"]),
        "pictures that did not decode": checkpoint["undecodable"],
        "truncated captions": checkpoint["truncated"],
        "shards": len(data.shards),
        "missing shards": len(data.missing),
        "not there yet": ", ".join(data.missing[:20]) or "nothing",
        "steps": checkpoint["steps"],
        "epochs": config.options.epochs,
        "best epoch": checkpoint["best_epoch"],
        "global batch": config.options.batch_size * config.options.accumulation * checkpoint["processes"],
        "processes": checkpoint["processes"],
        "precision": checkpoint["precision"],
        "pairs per second": round(median(speeds), 1) if speeds else "not measured",
        "minutes": round(minutes, 1),
        "versions": previews.rows(["of", "version"], list(checkpoint["versions"].items())),
    }


def _recall_rows(held_out: Mapping[str, Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    """A row for each split and direction, and one for chance."""
    return [
        (split, recall["pairs"], direction, *map(float, recall[key]))
        for split, recall in held_out.items()
        for direction, key in _DIRECTIONS.items()
    ]


def _log(store: Store, config: "TrainingConfig") -> list[dict[str, Any]]:
    from facecaption_ml.flip.training.progress import LOG, read_log

    with store.reading_file(f"{config.prefix}/{LOG}") as path:
        return read_log(path)


def _figures(store: Store, config: "TrainingConfig", flip: "Flip") -> dict[str, Any]:
    """Curves and sample retrievals: beside the checkpoint, and as metadata."""
    from facecaption_assets.training.figures import on_white, retrieval_figure, training_curves
    from facecaption_ml import figures
    from facecaption_ml.flip.pairs.index import PairSource
    from facecaption_ml.flip.use.retrievals import held_out_retrievals

    files = figures.files(training_curves(_log(store, config)), "curves")
    source = PairSource(store, config.shards, "caption", "test")
    retrievals = held_out_retrievals(flip, source, seed=config.seed, pairs=config.options.evaluation_pairs)
    if retrievals.shown:
        files["retrievals.png"] = figures.png(retrieval_figure(retrievals))
    else:
        store.delete(f"{config.prefix}/retrievals.png")
    for name, content in files.items():
        store.write_bytes(f"{config.prefix}/{name}", content)
    metadata: dict[str, Any] = {
        "curves": previews.png(files["curves.png"], "loss, learning rate and recall"),
        "curves as SVG": dg.MetadataValue.path(store.uri(f"{config.prefix}/curves.svg")),
    }
    if retrievals.shown:
        metadata["sample retrievals"] = previews.picture(on_white(files["retrievals.png"]), "captions, nearest faces")
    return metadata


def _versions(context: dg.AssetExecutionContext, data: DatasetWork) -> dict[str, str]:
    """Of code and data, as far as they are cheaply known; the content of the pairs has a version in the checkpoint."""
    versions = {
        "facecaption": version("facecaption"),
        "flip_checkpoint": CODE_VERSION,
        "grammar": context.resources.grammar.load().version,
        **_caption_versions(data.store, data.shards),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }
    latest = context.instance.get_latest_materialization_event(dg.AssetKey(DATASET))
    if latest:
        when = datetime.datetime.fromtimestamp(latest.timestamp, datetime.UTC)
        versions[DATASET] = f"materialized {when:%Y-%m-%d %H:%M:%S} UTC"
    return versions


def _caption_versions(store: Store, shards: Sequence[str]) -> dict[str, str]:
    """The chat models and prompts that wrote the captions, by some shards spread over all."""
    writers: dict[str, set[str]] = {"model": set(), "prompt_version": set()}
    for shard in shards[:: max(1, len(shards) // _VERSION_SHARDS)]:
        if store.has_table("llm_captions", shard):
            frame = store.read_table("llm_captions", shard, columns=list(writers))
            for name, values in writers.items():
                values |= set(frame[name].drop_nulls().unique())
    named = {"caption model": writers["model"], "caption prompt": writers["prompt_version"]}
    return {name: ", ".join(sorted(values)) for name, values in named.items() if values}
