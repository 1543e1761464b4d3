"""What got worse since the last tables, and what cannot be said to have; and the snapshot of results to compare with."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from facecaption_ml.benchmarks.report.table import plain
from facecaption_ml.benchmarks.result import BenchmarkResult, Measurement
from facecaption_ml.errors import FaceCaptionError

_FORMAT: Final = 1
_ROUNDING: Final = 1e-12  # a fall of exactly the tolerance must not count as more for the sake of a binary fraction


@dataclass(frozen=True)
class Regressions:
    """A line for each number that got worse, and one for each result that was measured on other data than before."""

    worse: list[str]
    not_comparable: list[str]


def regressions(before: Sequence[BenchmarkResult], now: Sequence[BenchmarkResult], tolerance: float) -> Regressions:
    """Compare results of the same task, data set and model; what was not measured again is no regression.

    Worse is what fell by more than ``tolerance`` (a share of 1) and by more than two standard deviations of the difference
    (2 · √(spread before² + spread now²)), what is no longer defined, and what is no longer among the measurements. Larger is
    better for every metric of the benchmarks. A result with another ``versions["data"]`` is not comparable. Raises
    FaceCaptionError for a negative tolerance, and for a result that stands twice in one of the lists.
    """
    if not tolerance >= 0:
        raise FaceCaptionError(f"tolerance must be 0 or more, a share of 1, not {tolerance}")
    earlier, later = _by_key(before, "before"), _by_key(now, "now")
    result = Regressions([], [])
    for key in sorted(earlier.keys() & later.keys()):
        data = [result.versions.get("data", "unknown") for result in (earlier[key], later[key])]
        if data[0] != data[1]:
            result.not_comparable.append(f"{_name(earlier[key])}: data version {data[0]} before, {data[1]} now")
        else:
            result.worse.extend(_worse(earlier[key], later[key], tolerance))
    return result


def snapshot(results: Sequence[BenchmarkResult]) -> bytes:
    """All results as one JSON document; equal bytes for equal results in any order."""
    ordered = [json.loads(result.as_json()) for result in _by_key(results, "results").values()]
    return json.dumps({"format": _FORMAT, "results": ordered}, indent=1, ensure_ascii=False, sort_keys=True).encode()


def from_snapshot(data: bytes) -> list[BenchmarkResult]:
    """The results of a ``snapshot``, by key. Raises FaceCaptionError for what is none."""
    try:
        stored = json.loads(data)
        if stored["format"] != _FORMAT:
            raise ValueError(f"format {stored['format']}, not {_FORMAT}")
        return [BenchmarkResult.from_json(json.dumps(result).encode()) for result in stored["results"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FaceCaptionError(f"this is no snapshot of benchmark results ({error}): take a new one") from error


def _by_key(results: Sequence[BenchmarkResult], where: str) -> dict[str, BenchmarkResult]:
    by_key: dict[str, BenchmarkResult] = {}
    for result in sorted(results, key=lambda result: result.key):
        if result.key in by_key:
            raise FaceCaptionError(f"{result.key} stands twice in {where}")
        by_key[result.key] = result
    return by_key


def _worse(before: BenchmarkResult, now: BenchmarkResult, tolerance: float) -> list[str]:
    later = {(m.setting, m.metric): m for m in now.measurements}
    lines = []
    for old in before.measurements:
        if old.value is None:
            continue
        line = _fall(old, old.value, later.get((old.setting, old.metric)), tolerance)
        if line:
            lines.append(f"{_name(before)}, {old.setting}, {old.metric}: {line}")
    return lines


def _fall(old: Measurement, value: float, new: Measurement | None, tolerance: float) -> str:
    """Why a number counts as worse, or nothing."""
    if new is None:
        return f"{100 * value:.2f} before, not measured any more"
    if new.value is None:
        return f"{100 * value:.2f} before, not defined now ({new.why})"
    allowed = max(tolerance, 2 * math.hypot(old.spread or 0.0, new.spread or 0.0))
    if value - new.value <= allowed + _ROUNDING:
        return ""
    fall = 100 * (value - new.value)
    return (
        f"{100 * value:.2f} before, {100 * new.value:.2f} now, {fall:.2f} points lower, more than {100 * allowed:.2f}"
    )


def _name(result: BenchmarkResult) -> str:
    return plain(f"{result.task}, {result.data}, {result.model}")
