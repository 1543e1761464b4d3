"""``facecaption benchmark`` and ``facecaption ablation``: the benchmarks from the shell, recorded as the UI would."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import click
import dagster as dg

from facecaption_assets.commands.instance import Pipeline, RunFailedError
from facecaption_assets.commands.stages import materialize_command, run_benchmarks
from facecaption_assets.partitions import BENCHMARK_ASSETS, VARIANTS
from facecaption_assets.resources.benchmarks import check_names, measure, result_figures, write_measured
from facecaption_assets.settings import Settings
from facecaption_assets.training.launch import process_count
from facecaption_ml.benchmarks.encoders.registry import models_of
from facecaption_ml.benchmarks.report.ablation import ablation_key
from facecaption_ml.processes import interrupts
from facecaption_ml.processes.tree import environment_of_children
from facecaption_ml.storage.store import Store


def run_benchmark(settings: Settings, task: str, model: str, data: str) -> None:
    """Measure one benchmark, write the tables anew, and print the result's table beside the published numbers.

    A model of the grid is materialized as its asset's partition, so that the UI has it too; a folder with a FLIP checkpoint
    is measured and written under the folder's name. Raises RunFailedError, or what ``measure`` raises.
    """
    check_names(task, data, model)
    store, pipeline = settings.open_store(), Pipeline(settings)
    if model in models_of(task):
        pipeline.run(BENCHMARK_ASSETS[task], partition=dg.MultiPartitionKey({"data": data, "model": model}))
        key = f"benchmarks/{task}/{data}/{model}"
    else:
        measured = measure(settings, store, task, data, model)
        write_measured(store, measured)
        key = measured.result.key
    pipeline.run("benchmark_tables")
    click.echo(_shown(store, key))
    for written in (f"{key}.json", *result_figures(store, key).values(), "benchmarks/tables/index.html"):
        click.echo(store.uri(written), err=True)


def _shown(store: Store, key: str) -> str:
    from facecaption_ml.benchmarks.report.table import markdown
    from facecaption_ml.benchmarks.report.tables import result_table
    from facecaption_ml.benchmarks.result import BenchmarkResult

    return markdown([result_table(BenchmarkResult.from_json(store.read_bytes(f"{key}.json")))])


def run_ablation(settings: Settings, seeds: Sequence[str], at_once: int | None) -> None:
    """Every variant trained with each seed and measured; the variants' own checkpoints and benchmarks; the tables.

    What is there already is kept: a training that was interrupted resumes, one that is measured is skipped. ``at_once``
    trainings run side by side, each with processes of its own, by default as many as the cores allow. Raises
    RunFailedError naming the first that failed, at the end.
    """
    pipeline, variants = Pipeline(settings), VARIANTS.get_partition_keys()
    at_once = at_once or max(1, (os.cpu_count() or 1) // process_count(settings))
    store = settings.open_store()
    jobs = [
        ("flip_ablation", f"{seed}|{variant}")
        for seed in seeds
        for variant in variants
        if not store.exists(ablation_key(variant, seed))
    ]
    jobs += [("flip_checkpoint", v) for v in variants if not store.exists(f"flip_checkpoint/{v}/config.json")]
    click.echo(f"Trainings to do: {len(jobs)}, {at_once} at a time", err=True)
    with ThreadPoolExecutor(at_once) as pool:
        failed = [line for line in pool.map(lambda job: _materialized(settings, *job), jobs) if line]
    errors = run_benchmarks(pipeline, variants)
    if store.exists("benchmarks/tables/ablation.md"):
        click.echo(store.read_bytes("benchmarks/tables/ablation.md").decode())
    click.echo(f"All tables: {store.uri('benchmarks/tables/index.html')}", err=True)
    lines = [*failed, *(str(error) for error in errors if error)]
    if lines:
        raise RunFailedError(lines[0])


def _materialized(settings: Settings, asset: str, partition: str) -> str:
    """Materialize one partition in a process of its own, and say what became of it; the line of its error, or nothing."""
    started = time.monotonic()
    done = subprocess.run(
        materialize_command(settings, asset, partition),
        env={**os.environ, **environment_of_children()},
        stderr=subprocess.PIPE,
        text=True,
    )
    interrupts.halt_if_ending()
    line = _failure(done) if done.returncode else ""
    said = f"FAILED: {line}" if line else f"{time.monotonic() - started:.0f} s"
    click.echo(f"• {asset} {partition}: {said}", err=True)
    return f"{asset} {partition}: {line}" if line else ""


def _failure(done: subprocess.CompletedProcess[str]) -> str:
    """The error that a command ended with; of one that was killed, what is known."""
    if done.returncode < 0:
        return f"its process was killed (exit status {done.returncode}): run the command again to resume"
    return done.stderr.strip().rpartition("\n")[2].removeprefix("Error: ") or f"exit status {done.returncode}"
