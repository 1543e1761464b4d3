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
    def severity(self) -> dg.AssetCheckSeverity:
        return dg.AssetCheckSeverity.ERROR if self.blocks else dg.AssetCheckSeverity.WARN

    def result(self) -> dg.AssetCheckResult:
        """For a MaterializeResult."""
        return dg.AssetCheckResult(
            check_name=self.name, passed=bool(self.passed), severity=self.severity, metadata=dict(self.metadata)
        )

    def evaluation(self, asset: str, partition: str) -> dg.AssetCheckEvaluation:
        """For the event log: of one partition of ``asset``."""
        return dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey(asset),
            check_name=self.name,
            passed=bool(self.passed),
            metadata=dict(self.metadata),
            severity=self.severity,
            partition=partition,
        )


def check_specs(
    asset: str, texts: Mapping[str, str], partitions: dg.PartitionsDefinition | None = None, *, blocking: bool = False
) -> list[dg.AssetCheckSpec]:
    """The declared checks of an asset: names to descriptions."""
    return [
        dg.AssetCheckSpec(name, asset=asset, description=text, partitions_def=partitions, blocking=blocking)
        for name, text in texts.items()
    ]
