"""What a check found, and how Dagster is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import dagster as dg

STORED: Final[Mapping[str, str]] = {"stored": "What the store gives back is what was written, whole."}
"""The check that every asset has which writes something into the store."""
_SHOWN: Final = 20


@dataclass(frozen=True)
class Check:
    """What one check found. A failed check that ``blocks`` is an error, and keeps a shard from counting as done."""

    name: str
    passed: bool
    metadata: Mapping[str, Any] = field(default_factory=dict)
    blocks: bool = True

    @classmethod
    def none_listed(cls, name: str, lines: Sequence[str], *, blocks: bool = True, **more: Any) -> Check:
        """Passes where there is no line; else the metadata shows the first of them."""
        return cls(name, not lines, {"count": len(lines), "lines": list(lines[:_SHOWN]), **more}, blocks)

    @property
    def _fields(self) -> dict[str, Any]:
        severity = dg.AssetCheckSeverity.ERROR if self.blocks else dg.AssetCheckSeverity.WARN
        passed, metadata = bool(self.passed), dict(self.metadata)
        return {"check_name": self.name, "passed": passed, "severity": severity, "metadata": metadata}

    def result(self) -> dg.AssetCheckResult:
        """For a MaterializeResult."""
        return dg.AssetCheckResult(**self._fields)

    def evaluation(self, asset: str, partition: str) -> dg.AssetCheckEvaluation:
        """For the event log: of one partition of ``asset``."""
        return dg.AssetCheckEvaluation(asset_key=dg.AssetKey(asset), partition=partition, **self._fields)
