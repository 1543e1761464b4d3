"""``facecaption benchmark`` and ``facecaption ablation``: the benchmarks from the shell, recorded as the UI would."""

from __future__ import annotations

import difflib
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import click
import dagster as dg

from facecaption_assets.ablation import RESULTS
from facecaption_assets.automation import BENCHMARK_ASSETS
from facecaption_assets.benchmarking import check_names, measure
from facecaption_assets.definitions import build_definitions
from facecaption_assets.instance import Pipeline, RunFailedError
from facecaption_assets.partitions import VARIANTS, benchmark_models
from facecaption_assets.settings import Settings
from facecaption_assets.stages import run_benchmarks
from facecaption_ml.store import Store


def run_benchmark(settings: Settings, task: str, model: str, data: str) -> None:
    """Measure one benchmark, and print its table beside the published numbers.

    A model of the grid is materialised as its asset's partition, so that the UI has it too, and the tables are written anew;
    a folder with a FLIP checkpoint is measured and written under the folder's name. Raises RunFailedError, or what ``measure``
    raises.
    """
    check_names(task, data)
    store = Store(settings.store_root, settings.storage_options)
    if model in benchmark_models(task):
        pipeline = Pipeline(settings)
        pipeline.run(BENCHMARK_ASSETS[task], partition=dg.MultiPartitionKey({"data": data, "model": model}))
        pipeline.run("benchmark_tables")
        key = f"benchmarks/{task}/{data}/{model}"
    else:
        measured = measure(settings, store, task, data, model)
        measured.result.write(store)
        for ending, content in measured.pictures.items():
            store.write_bytes(f"{measured.result.key}.{ending}", content)
        key = measured.result.key
    click.echo(_shown(store, key))
    for written in store.keys(f"{key}."):
        click.echo(store.uri(written), err=True)


def _shown(store: Store, key: str) -> str:
    from facecaption_ml.benchmarks.markdown import markdown
    from facecaption_ml.benchmarks.result import BenchmarkResult
    from facecaption_ml.benchmarks.tables import benchmark_tables

    result = BenchmarkResult.from_json(store.read_bytes(f"{key}.json"))
    tables = benchmark_tables([result])
    own = [table for table in tables if any(row.kind == "measured" for row in table.rows)]
    return markdown(own)


def run_ablation(settings: Settings, seeds: Sequence[str], at_once: int) -> None:
    """Every variant trained with each seed and measured; the variants' own checkpoints and benchmarks; the tables.

    What is there already is kept: a training that was interrupted goes on, one that is measured is skipped. ``at_once``
    trainings run side by side, each in a process of its own. Raises RunFailedError naming the first that failed, at the end.
    """
    pipeline, variants = Pipeline(settings), VARIANTS.get_partition_keys()
    store = Store(settings.store_root, settings.storage_options)
    jobs = [
        ("flip_ablation", f"{seed}|{variant}")
        for seed in seeds
        for variant in variants
        if not store.exists(f"{RESULTS}/{variant}/seed-{seed}.json")
    ]
    jobs += [("flip_checkpoint", v) for v in variants if not store.exists(f"flip_checkpoint/{v}/config.json")]
    click.echo(f"{len(jobs)} trainings, {at_once} at a time", err=True)
    with ThreadPoolExecutor(at_once) as pool:
        failed = [line for line in pool.map(lambda job: _materialized(settings, *job), jobs) if line]
    errors = run_benchmarks(pipeline, variants)
    if store.exists("benchmarks/tables/ablation.md"):
        click.echo(store.read_bytes("benchmarks/tables/ablation.md").decode())
    click.echo(f"All tables: {store.uri('benchmarks/tables/index.html')}", err=True)
    for line in [*failed, *(str(error) for error in errors if error)]:
        raise RunFailedError(line)


def _materialized(settings: Settings, asset: str, partition: str) -> str:
    """Materialise one partition in a process of its own; the line of its error, or nothing."""
    started = time.monotonic()
    command = [sys.executable, "-m", "facecaption_assets.cli", "--profile", settings.profile, "materialize"]
    done = subprocess.run([*command, asset, partition], stderr=subprocess.PIPE, text=True)
    line = done.stderr.strip().rpartition("\n")[2].removeprefix("Error: ") if done.returncode else ""
    said = f"FAILED: {line}" if line else f"{time.monotonic() - started:.0f} s"
    click.echo(f"• {asset} {partition}: {said}", err=True)
    return f"{asset} {partition}: {line}" if line else ""


def run_partition(settings: Settings, asset: str, partition: str | None) -> None:
    """Materialise an asset, or one partition of it (``data|model`` for a grid). Raises RunFailedError or ValueError."""
    definition = {spec.key.to_user_string(): spec for spec in build_definitions(settings).resolve_all_asset_specs()}
    if asset not in definition:
        close = difflib.get_close_matches(asset, definition, n=1)
        raise ValueError(f"there is no asset {asset!r}" + (f": did you mean {close[0]}?" if close else ""))
    pipeline = Pipeline(settings)
    grid = definition[asset].partitions_def
    if grid is None or isinstance(grid, dg.DynamicPartitionsDefinition):
        pipeline.check_shards([partition] if partition and grid else [])
        pipeline.run(asset, first=partition if grid else None)
        return
    keys = grid.get_partition_keys()
    if partition not in keys:
        raise ValueError(f"{asset} has no partition {partition!r}: choose among {', '.join(keys)}")
    assert partition is not None
    found = grid.get_partition_key_from_str(partition) if isinstance(grid, dg.MultiPartitionsDefinition) else partition
    pipeline.run(asset, partition=found)
