"""The ablation FLIP > FLIP* > FLIP†: each variant trained with several seeds, and measured on the drawn data sets.

Checkpoints lie under ``flip_ablation/<variant>/seed-<n>/``, results where ``facecaption_ml.benchmarks.report.ablation`` says.
"""

import dataclasses
import time
from typing import TYPE_CHECKING, Final, cast

import dagster as dg

from facecaption_assets.checks import benchmarks as checks
from facecaption_assets.factories import previews
from facecaption_assets.factories.asset import configured_asset
from facecaption_assets.factories.whole_dataset import DATASET, DatasetWork
from facecaption_assets.machines.compute import EIGHT_A100
from facecaption_assets.machines.retries import training_retry_policy
from facecaption_assets.partitions import ABLATION, BENCHMARK_ASSETS, all_of
from facecaption_assets.resources.benchmarks import measure
from facecaption_assets.resources.models import load_checkpoint
from facecaption_assets.settings import Settings
from facecaption_assets.training.launch import process_count, run_training, training_config
from facecaption_ml.columns import BENCHMARK_RESULT
from facecaption_ml.storage.store import Store

if TYPE_CHECKING:
    from facecaption_ml.benchmarks.result import BenchmarkResult
    from facecaption_ml.flip import Flip

_DATA: Final = "sample"
_CHECKS: Final = {name: checks.RESULT[name] for name in ("above_baselines", "stored")}


def ablation_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """``flip_ablation``."""

    @configured_asset(
        settings,
        EIGHT_A100,
        team="models",
        code_version="1",
        reads=(
            "flip",
            "benchmarks.retrieval",
            "benchmarks.attributes",
            "benchmarks.sketches",
            "benchmarks.shared",
            "benchmarks.sample_pictures",
            "benchmarks.sample_drawings",
        ),
        checks=_CHECKS,
        resources=["training_processes"],
        retries=training_retry_policy,
        deps=[all_of(DATASET), all_of("face_crops")],
        partitions_def=ABLATION,
        group_name="benchmarks",
        table="benchmark_result",
        schema=BENCHMARK_RESULT,
        kinds={"pytorch", "safetensors"},
    )
    def flip_ablation(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """FLIP, FLIP* and FLIP† trained on the same pairs with the same steps, once for each seed (paper Table 2).

        Every training is measured on the drawn data sets, with one probe each, so that spreads are those of the trainings.
        """
        of = cast(dg.MultiPartitionKey, context.partition_key).keys_by_dimension
        return _train_and_measure(context, settings, of["variant"], int(of["seed"]))

    return [flip_ablation]


def _train_and_measure(
    context: dg.AssetExecutionContext, settings: Settings, variant: str, seed: int
) -> dg.MaterializeResult:
    from facecaption_ml.benchmarks.report.ablation import ablation_key
    from facecaption_ml.benchmarks.report.regression import snapshot

    store: Store = context.resources.store.open()
    data = DatasetWork.open(store, settings)
    data.require_shards()
    started = time.monotonic()
    processes = process_count(settings)
    seeded = settings.model_copy(update={"seed": seed})
    key_prefix = f"flip_ablation/{variant}/seed-{seed}"
    config = training_config(seeded, variant, data.shards, {}, processes, key_prefix=key_prefix)
    work = settings.home / "training" / key_prefix
    checkpoint = run_training(context, context.resources.training_processes, config, work, processes)
    flip = load_checkpoint(settings, store, key_prefix)
    results = _measured(settings, store, flip, variant, seed)
    written = {ablation_key(variant, seed): snapshot(results)}
    for key, content in written.items():
        store.write_bytes(key, content)
    return dg.MaterializeResult(
        metadata={
            "dagster/uri": store.uri(next(iter(written))),
            **{f"{result.task}: {name}": value for result in results for name, value in result.percentages.items()},
            "version": checkpoint["version"],
            "pairs": checkpoint["pairs"],
            "steps": checkpoint["steps"],
            "best epoch": checkpoint["best_epoch"],
            "protocols": previews.rows(
                ["task", "what", "how"], [(r.task, name, how) for r in results for name, how in r.protocol.items()]
            ),
            "minutes": round((time.monotonic() - started) / 60, 2),
        },
        data_version=dg.DataVersion(flip.version),
        check_results=[checks.above_baselines(results).result(), checks.stored(store, written).result()],
    )


def _measured(settings: Settings, store: Store, flip: "Flip", variant: str, seed: int) -> "list[BenchmarkResult]":
    """Every benchmark of one checkpoint on the drawn data sets, one probe each: the spread is over the trainings."""
    from facecaption_ml.benchmarks.encoders.models import FlipEncoder
    from facecaption_ml.benchmarks.report.ablation import SEED

    encoder = FlipEncoder(flip, variant)
    results = [measure(settings, store, task, _DATA, encoder, seed=seed, runs=1).result for task in BENCHMARK_ASSETS]
    return [dataclasses.replace(r, protocol={**r.protocol, SEED: str(seed)}) for r in results]
