"""What a benchmark leaves: one record for a task, a model and a data set, as JSON in the store.

``benchmarks/<task>/<data>/<model>.json``; figures lie beside it under the same name. ``tables.py`` makes the page of them all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from facecaption_ml.storage.store import Store, StoreError

PREFIX: Final = "benchmarks"
TASKS: Final = ("retrieval", "attributes", "sketches")
PRETRAINED_HEADS: Final = "heads start from"
RERANKED: Final = "re-ranked"
"""Entries of ``protocol`` that only a measurement beyond the paper's protocol has; tables footnote it."""


@dataclass(frozen=True)
class Measurement:
    """One number. ``setting`` and ``metric`` name its column, such as "text → image" and "R@5".

    ``value`` and ``spread`` (the standard deviation over ``runs`` seeds; None for a single run) are shares of 1. ``value``
    is None where it is not defined, and ``why`` then says so in a few words: one class only, a gallery smaller than K.
    """

    setting: str
    metric: str
    value: float | None
    spread: float | None = None
    runs: int = 1
    why: str = ""

    def __post_init__(self) -> None:
        for number in (self.value, self.spread):
            if number is not None and not math.isfinite(number):
                raise ValueError(
                    f"{self.setting} {self.metric} is {number}: an undefined number is None, with the reason"
                )
        if self.value is None and not self.why:
            raise ValueError(f"{self.setting} {self.metric} is not defined: say why")


@dataclass(frozen=True)
class BenchmarkResult:
    """The measurements of ``model`` on ``data``, and of ``baselines`` that learn nothing (chance, majority class).

    ``counts`` are plain numbers (pictures used, excluded by reason, gallery size); ``protocol`` says how it was measured
    (epochs, rates, views, where the epoch came from); ``versions`` what it was measured with (data, model, code, captions);
    ``curves`` maps a name to points (x, y); ``notes`` are lines for the table.
    """

    task: str
    model: str
    data: str
    measurements: Sequence[Measurement]
    baselines: Mapping[str, Sequence[Measurement]]
    counts: Mapping[str, int] = field(default_factory=dict)
    protocol: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    curves: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def key(self) -> str:
        """Where it lies in the store, without the ending."""
        return f"{PREFIX}/{self.task}/{self.data}/{self.model}"

    @property
    def departures(self) -> list[str]:
        """Where the measurement does more than the paper's protocol, a line each."""
        kept = {name: self.protocol[name] for name in (PRETRAINED_HEADS, RERANKED) if name in self.protocol}
        return [f"Measured as FLIP's authors do, not as the paper says: {name} {how}." for name, how in kept.items()]

    @property
    def percentages(self) -> dict[str, float]:
        """Every number that is defined by "<setting> <metric>", in percent with two decimals."""
        return {f"{m.setting} {m.metric}": round(100 * m.value, 2) for m in self.measurements if m.value is not None}

    def as_json(self) -> bytes:
        """Equal results give equal bytes."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> BenchmarkResult:
        """From what ``as_json`` gave."""
        given: dict[str, Any] = json.loads(data)
        measured = [Measurement(**m) for m in given.pop("measurements")]
        baselines = {name: [Measurement(**m) for m in numbers] for name, numbers in given.pop("baselines").items()}
        curves = {name: [(x, y) for x, y in points] for name, points in given.pop("curves").items()}
        return cls(measurements=measured, baselines=baselines, curves=curves, **given)

    def write(self, store: Store) -> str:
        """Write it, and return its address."""
        return store.write_bytes(f"{self.key}.json", self.as_json())


def read_results(store: Store) -> list[BenchmarkResult]:
    """Every result in the store, by task, data and model. Raises StoreError naming one that cannot be read."""
    results = []
    for task in TASKS:
        for key in store.keys(f"{PREFIX}/{task}/"):
            if not key.endswith(".json"):
                continue
            try:
                results.append(BenchmarkResult.from_json(store.read_bytes(key)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise StoreError(f"{store.uri(key)} is no benchmark result ({error}): measure it again") from error
    return results
