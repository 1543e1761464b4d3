"""What must hold of a benchmark's result and of the tables. Each function returns one check's result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

if TYPE_CHECKING:
    from facecaption_ml.benchmarks.report.regression import Regressions
    from facecaption_ml.benchmarks.result import BenchmarkResult
    from facecaption_ml.storage.store import Store

RESULT: Final[Mapping[str, str]] = {
    "above_baselines": "Every number exceeds what learns nothing: chance, the majority class (a warning).",
    "defined": "Every number is defined; one that is not says why (a warning).",
    "stored": "The store gives back the result that was written.",
}
TABLES: Final[Mapping[str, str]] = {
    "no_regression": (
        "Since the last materialization no number fell by more than the tolerance and its spread, or vanished (a warning)."
    ),
    "stored": "The store gives back the snapshot that the next materialization is compared with.",
}
_SHOWN: Final = 20
_WARNING: Final = dg.AssetCheckSeverity.WARN


def above_baselines(results: Sequence[BenchmarkResult]) -> dg.AssetCheckResult:
    """Of several results, each against its own baselines. What is not defined, or 1 by chance, is not looked at."""
    below = []
    for result in results:
        for name, baseline in result.baselines.items():
            floor = {(b.setting, b.metric): b.value for b in baseline}
            for m in result.measurements:
                least = floor.get((m.setting, m.metric))
                if m.value is not None and least is not None and m.value <= least < 1:
                    what = f"{result.model} on {result.data}, {m.setting} {m.metric}"
                    below.append(f"{what}: {m.value:.4f}, {name} {least:.4f}")
    return _listed("above_baselines", below, _WARNING)


def defined(results: Sequence[BenchmarkResult]) -> dg.AssetCheckResult:
    """Of several results."""
    missing = [
        f"{result.data}, {m.setting} {m.metric}: {m.why}"
        for result in results
        for m in result.measurements
        if m.value is None
    ]
    return _listed("defined", missing, _WARNING)


def stored(store: Store, written: Mapping[str, bytes]) -> dg.AssetCheckResult:
    """``written`` maps keys to what was written under them."""
    wrong = [key for key, data in written.items() if store.read_bytes(key) != data]
    return _listed("stored", wrong, dg.AssetCheckSeverity.ERROR)


def no_regression(compared: Regressions | str) -> dg.AssetCheckResult:
    """A text says why there is nothing to compare with, which passes."""
    if isinstance(compared, str):
        metadata = {"compared with": f"nothing: {compared}"}
        return dg.AssetCheckResult(check_name="no_regression", passed=True, severity=_WARNING, metadata=metadata)
    return _listed(
        "no_regression", compared.worse, _WARNING, {"not comparable": list(compared.not_comparable[:_SHOWN])}
    )


def _listed(
    name: str, lines: Sequence[str], severity: dg.AssetCheckSeverity, more: Mapping[str, Any] | None = None
) -> dg.AssetCheckResult:
    """Passes where there is no line."""
    metadata: dict[str, Any] = {"count": len(lines), "lines": list(lines[:_SHOWN]), **(more or {})}
    return dg.AssetCheckResult(check_name=name, passed=not lines, severity=severity, metadata=metadata)
