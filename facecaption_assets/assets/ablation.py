"""The ablation FLIP > FLIP* > FLIP†: each variant trained with several seeds, and measured on the drawn data sets."""

import time
from typing import Final, cast

import dagster as dg

from facecaption_assets.assets.ablation_tables import measure_variant, place, write_ablation
from facecaption_assets.assets.benchmarks import CODE_VERSION, GROUP, headline
from facecaption_assets.checks import benchmarks as checks
from facecaption_assets.factories import previews
from facecaption_assets.factories.whole_dataset import DATASET, DatasetWork
from facecaption_assets.machines.compute import training_step
from facecaption_assets.machines.retries import no_retry_on_user_error, training_retry_policy
from facecaption_assets.partitions import ABLATION, all_of
from facecaption_assets.settings import Settings
from facecaption_assets.training.launch import load_checkpoint, process_count, run_training, training_config
from facecaption_ml.storage.store import Store

_CHECKS: Final = ("above_baselines", "stored")


def ablation_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """``flip_ablation``."""

    @dg.asset(
        deps=[all_of(DATASET), all_of("face_crops")],
        partitions_def=ABLATION,
        group_name=GROUP,
        kinds={"pytorch", "safetensors"},
        owners=["team:models"],
        code_version=CODE_VERSION,
        pool=training_step(settings).pool,
        op_tags=training_step(settings).op_tags,
        retry_policy=training_retry_policy(settings),
        required_resource_keys={"store", "training_processes"},
        check_specs=[
            dg.AssetCheckSpec(check, asset="flip_ablation", description=checks.RESULT[check]) for check in _CHECKS
        ],
    )
    @no_retry_on_user_error(settings)
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
    store: Store = context.resources.store.open()
    data = DatasetWork.open(store, settings)
    data.require_shards()
    started = time.monotonic()
    processes = process_count(settings)
    seeded = settings.model_copy(update={"seed": seed})
    where = place(variant, seed)
    config = training_config(seeded, variant, data.shards, {}, processes, place=where)
    work = settings.home / "training" / where
    checkpoint = run_training(context, context.resources.training_processes, config, work, processes)
    flip = load_checkpoint(settings, store, where)
    results = measure_variant(settings, store, flip, variant, seed)
    written = write_ablation(store, variant, seed, results)
    return dg.MaterializeResult(
        metadata={
            "dagster/uri": store.uri(next(iter(written))),
            **{f"{result.task}: {name}": value for result in results for name, value in headline(result).items()},
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
        check_results=[checks.above_baselines(results), checks.stored(store, written)],
    )
