"""Runs of assets one after the other, each announced on the terminal with the time it took."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click
import dagster as dg

from facecaption_assets.automation import BENCHMARK_ASSETS
from facecaption_assets.instance import Pipeline, RunFailedError


def stage(pipeline: Pipeline, label: str, *assets: str, **partitions: str | None) -> None:
    """Materialise ``assets``; ``partitions`` as ``Pipeline.run`` takes them. Raises RunFailedError."""
    click.echo(f"• {label} …", err=True)
    started = time.monotonic()
    pipeline.run(*assets, **partitions)
    click.echo(f"  {', '.join(assets)}: {time.monotonic() - started:.0f} s", err=True)


def attempt(pipeline: Pipeline, label: str, *assets: str, **partitions: str | None) -> RunFailedError | None:
    """As ``stage``, but a failure is printed and returned: the rest goes on without it."""
    try:
        stage(pipeline, label, *assets, **partitions)
    except RunFailedError as error:
        click.echo(f"  failed, the rest goes on without it: {error}", err=True)
        return error
    return None


def run_benchmarks(pipeline: Pipeline, variants: Sequence[str]) -> list[RunFailedError | None]:
    """Every benchmark of trained variants on the drawn data sets, and the tables. Failures are printed and returned."""
    failed: list[RunFailedError | None] = []
    for variant in variants:
        for task, asset in BENCHMARK_ASSETS.items():
            key = dg.MultiPartitionKey({"data": "sample", "model": variant})
            failed.append(attempt(pipeline, f"benchmark: {task} of {variant}", asset, partition=key))
    return [*failed, attempt(pipeline, "the benchmark tables", "benchmark_tables")]
