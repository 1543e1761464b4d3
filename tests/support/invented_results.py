"""Benchmark results invented for the tests of tables, pages and ablations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from facecaption_ml.benchmarks.result import BenchmarkResult, Measurement

WAYS = ("text → image", "image → text")


def retrieval(model: str, data: str, value: float | None = 0.5, **fields: object) -> BenchmarkResult:
    """R@5 and R@10 both ways, all equal to ``value``, and chance beside it."""
    why = "" if value is not None else "a gallery of 3, smaller than 5"
    measured = [Measurement(way, f"R@{k}", value, why=why) for way in WAYS for k in (5, 10)]
    chance = [Measurement(way, f"R@{k}", k / 100) for way in WAYS for k in (5, 10)]
    return replace(BenchmarkResult("retrieval", model, data, measured, {"chance": chance}), **fields)  # type: ignore[arg-type]


def attributes(model: str, data: str, value: float, spread: float | None = None) -> BenchmarkResult:
    """Accuracy and average precision with all training data."""
    runs = 3 if spread is not None else 1
    measured = [Measurement("100 %", metric, value, spread, runs) for metric in ("accuracy", "average precision")]
    return BenchmarkResult("attributes", model, data, measured, {})


def seeded(model: str, values: Sequence[float | None]) -> list[BenchmarkResult]:
    """A result on the sample for each value, of training seed 0, 1, …"""
    return [
        retrieval(model, "sample", value, protocol={"training seed": str(seed)}) for seed, value in enumerate(values)
    ]
