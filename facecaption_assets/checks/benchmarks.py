"""What must hold of a benchmark's result and of the tables. Each function returns one check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from facecaption_assets.factories.check import Check

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


def above_baselines(results: Sequence[BenchmarkResult]) -> Check:
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
    return Check.none_listed("above_baselines", below, blocks=False)


def defined(results: Sequence[BenchmarkResult]) -> Check:
    """Of several results."""
    missing = [
        f"{result.data}, {m.setting} {m.metric}: {m.why}"
        for result in results
        for m in result.measurements
        if m.value is None
    ]
    return Check.none_listed("defined", missing, blocks=False)


def stored(store: Store, written: Mapping[str, bytes]) -> Check:
    """``written`` maps keys to what was written under them."""
    return Check.none_listed("stored", [key for key, data in written.items() if store.read_bytes(key) != data])


def no_regression(compared: Regressions | str) -> Check:
    """A text says why there is nothing to compare with, which passes."""
    if isinstance(compared, str):
        return Check("no_regression", True, {"compared with": f"nothing: {compared}"}, blocks=False)
    others = {"not comparable": list(compared.not_comparable[:_SHOWN])}
    return Check.none_listed("no_regression", compared.worse, blocks=False, **others)
