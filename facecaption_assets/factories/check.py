"""What a check found, and how Dagster is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import dagster as dg

from facecaption_ml.texts import shortened

STORED: Final[Mapping[str, str]] = {"stored": "What the store gives back is what was written, whole."}
"""The check that every asset has which writes something into the store."""
WARNINGS: Final = frozenset({
    "acceptance", "above_baselines", "calibrated", "complete", "defined", "held_out_above_chance", "no_regression",
    "precise_labels", "same_settings",
})  # fmt: skip
"""Checks whose failure is a warning: nothing waits for them. Every other one is an error."""
_SHOWN: Final = 20
_EXAMPLES: Final = 5
_SENTENCE: Final = 240  # characters of a line in a sentence


@dataclass(frozen=True)
class Check:
    """What one check found.

    ``found`` is one sentence with the numbers behind the result, such as "198 of 198 faces have one caption".
    """

    name: str
    passed: bool
    metadata: Mapping[str, Any] = field(default_factory=dict)
    found: str = ""

    @property
    def blocks(self) -> bool:
        """Whether its failure is an error and keeps a shard from counting as done, and not one of ``WARNINGS``."""
        return self.name not in WARNINGS

    @classmethod
    def of_each(cls, name: str, offending: Sequence[Any], number: int, hold: str, **more: Any) -> Check:
        """Passes where none of a ``number`` of things offends; ``hold`` says what the others do: "faces have one caption"."""
        examples = [shortened(str(value)) for value in offending[:_EXAMPLES]]
        found = f"{number - len(offending):,} of {number:,} {hold}"
        if offending:
            found += f"; others do not, such as {examples[0]}"
        return cls(name, not offending, {"offending": len(offending), "examples": examples, **more}, found)

    @classmethod
    def none_listed(cls, name: str, lines: Sequence[str], *, well: str, ill: str, **more: Any) -> Check:
        """Passes where there is no line, and ``well`` says so; else ``ill`` and the first, and the metadata shows more."""
        shown = [shortened(line) for line in lines[:_SHOWN]]
        found = f"{ill}: {shortened(lines[0], _SENTENCE)}" if lines else well
        return cls(name, not lines, {"count": len(lines), "lines": shown, **more}, found)

    @property
    def _fields(self) -> dict[str, Any]:
        severity = dg.AssetCheckSeverity.ERROR if self.blocks else dg.AssetCheckSeverity.WARN
        return {
            "check_name": self.name,
            "passed": bool(self.passed),
            "severity": severity,
            "metadata": dict(self.metadata),
            "description": self.found or None,
        }

    def result(self) -> dg.AssetCheckResult:
        """For a MaterializeResult."""
        return dg.AssetCheckResult(**self._fields)

    def evaluation(self, asset: str, partition: str) -> dg.AssetCheckEvaluation:
        """For the event log: of one partition of ``asset``."""
        return dg.AssetCheckEvaluation(asset_key=dg.AssetKey(asset), partition=partition, **self._fields)
