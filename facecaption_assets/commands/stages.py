"""Runs of assets, one after the other or in the background, each announced on the terminal with the time it took."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click
import dagster as dg

from facecaption_assets.commands.instance import Pipeline, RunFailedError
from facecaption_assets.partitions import BENCHMARK_ASSETS
from facecaption_assets.settings import Settings
from facecaption_ml.processes import interrupts
from facecaption_ml.processes.tree import environment_of_children


def stage(pipeline: Pipeline, label: str, *assets: str, **partitions: str | None) -> None:
    """Materialize ``assets``; ``partitions`` as ``Pipeline.run`` takes them. Raises RunFailedError."""
    click.echo(f"• {label} …", err=True)
    started = time.monotonic()
    pipeline.run(*assets, **partitions)
    click.echo(f"  {', '.join(assets)}: {time.monotonic() - started:.0f} s", err=True)


def attempt(pipeline: Pipeline, label: str, *assets: str, **partitions: str | None) -> RunFailedError | None:
    """As ``stage``, but a failure is printed and returned: the rest continues without it."""
    try:
        stage(pipeline, label, *assets, **partitions)
    except RunFailedError as error:
        click.echo(f"  failed, the rest continues without it: {error}", err=True)
        return error
    return None


@dataclass
class BackgroundRun:
    """A run in a process of its own. ``error`` is known after the block of ``run_in_background``."""

    error: RunFailedError | None = None


@contextlib.contextmanager
def run_in_background(
    pipeline: Pipeline, label: str, asset: str, partition: str | None = None
) -> Iterator[BackgroundRun]:
    """Materialize an asset in another process while the block runs, and wait for it at the block's end.

    For work that keeps one core busy: the block has the others. A failure is printed and kept in ``error``; where the block
    itself fails, the process is told to stop first.
    """
    click.echo(f"• {label}, in the background …", err=True)
    started = time.monotonic()
    process = subprocess.Popen(
        materialize_command(pipeline.settings, asset, partition),
        env={**os.environ, "FACECAPTION_HOME": str(pipeline.settings.home), **environment_of_children()},
    )
    outcome = BackgroundRun()
    try:
        yield outcome
    except BaseException:
        process.terminate()
        process.wait()
        raise
    failed = process.wait()
    interrupts.halt_if_ending()
    if failed:
        outcome.error = RunFailedError(f"{asset} failed; its own line says why, and `facecaption ui` more")
        click.echo(f"  {outcome.error}", err=True)
    else:
        click.echo(f"  {asset}: {time.monotonic() - started:.0f} s, in the background", err=True)


def materialize_command(settings: Settings, asset: str, partition: str | None = None) -> list[str]:
    """The command line that materializes an asset, or one partition of it, in a process of its own."""
    program = [sys.executable, "-m", "facecaption_assets.commands", "--profile", settings.profile]
    return [*program, "materialize", asset, *([partition] if partition else [])]


def run_benchmarks(pipeline: Pipeline, variants: Sequence[str]) -> list[RunFailedError | None]:
    """Every benchmark of trained variants on the drawn data sets, and the tables. Failures are printed and returned."""
    failed: list[RunFailedError | None] = []
    for variant in variants:
        for task, asset in BENCHMARK_ASSETS.items():
            key = dg.MultiPartitionKey({"data": "sample", "model": variant})
            failed.append(attempt(pipeline, f"benchmark: {task} of {variant}", asset, partition=key))
    return [*failed, attempt(pipeline, "the benchmark tables", "benchmark_tables")]
