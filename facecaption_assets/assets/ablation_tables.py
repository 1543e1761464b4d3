"""FLIP > FLIP* > FLIP†, trained anew with several seeds: what an ablation's partition does, and where its results lie.

Checkpoints lie under ``flip_ablation/<variant>/seed-<n>/``, results under ``benchmarks/ablation/<variant>/seed-<n>.json``.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from facecaption_assets.partitions import BENCHMARK_DATA
from facecaption_assets.resources.benchmarks import measure
from facecaption_assets.settings import Settings
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.storage.store import Store, StoreError

if TYPE_CHECKING:
    from facecaption_ml.benchmarks.result import BenchmarkResult
    from facecaption_ml.flip import Flip

RESULTS: Final = "benchmarks/ablation"
_DATA: Final = "sample"


def key_prefix(variant: str, seed: int) -> str:
    """Where a training's checkpoint lies."""
    return f"flip_ablation/{variant}/seed-{seed}"


def measure_variant(settings: Settings, store: Store, flip: Flip, variant: str, seed: int) -> list[BenchmarkResult]:
    """Every benchmark of one checkpoint on the drawn data sets, one probe each: the spread is over the trainings."""
    from facecaption_ml.benchmarks.encoders.models import FlipEncoder
    from facecaption_ml.benchmarks.report.ablation import SEED

    once = settings.model_copy(update={"benchmark_runs": 1})
    encoder = FlipEncoder(flip, variant)
    found = []
    for task in BENCHMARK_DATA:
        result = measure(once, store, task, _DATA, encoder, seed).result
        found.append(dataclasses.replace(result, protocol={**result.protocol, SEED: str(seed)}))
    return found


def write_ablation(store: Store, variant: str, seed: int, results: list[BenchmarkResult]) -> dict[str, bytes]:
    """Write the results of one training; what was written, by its key."""
    from facecaption_ml.benchmarks.report.regression import snapshot

    written = {f"{RESULTS}/{variant}/seed-{seed}.json": snapshot(results)}
    for key, data in written.items():
        store.write_bytes(key, data)
    return written


def read_ablation(store: Store) -> list[BenchmarkResult]:
    """The results of every training that is there. Raises StoreError naming an object that cannot be read."""
    from facecaption_ml.benchmarks.report.regression import from_snapshot

    found: list[BenchmarkResult] = []
    for key in (key for key in store.keys(f"{RESULTS}/") if key.endswith(".json")):
        try:
            found += from_snapshot(store.read_bytes(key))
        except FaceCaptionError as error:
            raise StoreError(f"{store.uri(key)}: {error}") from error
    return found
