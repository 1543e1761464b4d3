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
    "above_baselines": "Every number exceeds what learns nothing: chance, the majority class.",
    "defined": "Every number is defined; one that is not says why.",
    "stored": "The store gives back the result that was written.",
}
TABLES: Final[Mapping[str, str]] = {
    "no_regression": (
        "Since the last materialization no number fell by more than the tolerance and its spread, or vanished."
    ),
    "stored": "The store gives back the snapshot that the next materialization is compared with.",
}
_SHOWN: Final = 20


def above_baselines(results: Sequence[BenchmarkResult]) -> Check:
    """Of several results, each against its own baselines. What is not defined, or 1 by chance, is not looked at."""
    below, compared = [], 0
    for result in results:
        for name, baseline in result.baselines.items():
            floor = {(b.setting, b.metric): b.value for b in baseline}
            for m in result.measurements:
                least = floor.get((m.setting, m.metric))
                if m.value is None or least is None or least >= 1:
                    continue
                compared += 1
                if m.value <= least:
                    points = 100 * (least - m.value)
                    below.append(
                        f"{m.setting} {m.metric} of {result.model} on {result.data} is {m.value:.1%}, "
                        f"{points:.1f} points under {name} ({least:.1%})"
                    )
    well = f"all {compared:,} numbers with a baseline exceed it"
    ill = f"{len(below):,} of {compared:,} numbers do not exceed what learns nothing"
    return Check.none_listed("above_baselines", below, well=well, ill=ill)


def defined(results: Sequence[BenchmarkResult]) -> Check:
    """Of several results."""
    missing = [
        f"{result.data}, {m.setting} {m.metric}: {m.why}"
        for result in results
        for m in result.measurements
        if m.value is None
    ]
    number = sum(len(result.measurements) for result in results)
    ill = f"{len(missing):,} of {number:,} numbers are not defined"
    return Check.none_listed("defined", missing, well=f"all {number:,} numbers are defined", ill=ill)


def stored(store: Store, written: Mapping[str, bytes]) -> Check:
    """``written`` maps keys to what was written under them."""
    differ = [key for key, data in written.items() if store.read_bytes(key) != data]
    well = f"the store gives back {len(written):,} of {len(written):,} objects as they were written"
    return Check.none_listed("stored", differ, well=well, ill=f"{len(differ):,} of {len(written):,} objects differ")


def no_regression(compared: Regressions | str) -> Check:
    """A text says why there is nothing to compare with, which passes."""
    if isinstance(compared, str):
        found = f"nothing to compare with: {compared}"
        return Check("no_regression", True, {"compared with": f"nothing: {compared}"}, found=found)
    others = {"not comparable": list(compared.not_comparable[:_SHOWN])}
    well = "no number fell by more than the tolerance since the last materialization, and none vanished"
    if compared.not_comparable:
        well += f"; {len(compared.not_comparable):,} cannot be compared"
    ill = f"{len(compared.worse):,} numbers fell or vanished"
    return Check.none_listed("no_regression", compared.worse, well=well, ill=ill, **others)
