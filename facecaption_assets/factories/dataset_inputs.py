"""Of which state of the shards something over the whole data set is made, and which shards have changed since.

Dagster compares an asset with what it is made of only up to a hundred partitions; of more its UI says nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

from facecaption_assets.factories.check import Check
from facecaption_assets.factories.records import MadeOf, made_of
from facecaption_assets.partitions import SHARD_ASSETS
from facecaption_ml.schemas import DATASET
from facecaption_ml.storage.store import Store

SAME_SETTINGS: Final[Mapping[str, str]] = {
    "same_settings": "Every shard was made by the same code under the same settings in each asset."
}
OTHER_SETTINGS: Final = "shards made under other settings"
"""The metadata that counts them."""


@dataclass(frozen=True)
class DatasetInputs:
    """The content of each shard, and for each shard asset how many shards are of other code or settings than the last one."""

    contents: Mapping[str, str]
    others: Mapping[str, int]

    @classmethod
    def of(cls, instance: dg.DagsterInstance, shards: Collection[str]) -> DatasetInputs:
        """As they are now, of these shards; taken before anything is read of them."""
        others, contents = {}, dict[str, str]()
        for asset in SHARD_ASSETS:
            made = {shard: one for shard, one in made_of(instance, asset).items() if shard in shards}
            others[asset] = _of_other_code(made)
            if asset == DATASET:
                contents = {shard: one.data or "" for shard, one in made.items()}
        return cls(contents, {asset: count for asset, count in others.items() if count})

    @property
    def other_settings(self) -> str:
        """Counts by asset in one line."""
        return ", ".join(f"{count:,} of {asset}" for asset, count in self.others.items()) or "none"

    @property
    def metadata(self) -> dict[str, Any]:
        return {OTHER_SETTINGS: max(self.others.values(), default=0)}

    def check(self) -> Check:
        """Warns where the data set is a mixture."""
        found = (
            f"shards of other settings or code than the last ones made: {self.other_settings}"
            if self.others
            else f"all {len(self.contents):,} recorded shards are of the same settings and code"
        )
        return Check(next(iter(SAME_SETTINGS)), not self.others, {**self.metadata}, found=found)

    def write(self, store: Store, asset: str) -> None:
        """Keep what ``asset`` (``flip_checkpoint/flip`` of a partition) was made of."""
        store.write_bytes(_key(asset), json.dumps(self.contents, indent=0).encode())


def newer_shards(instance: dg.DagsterInstance, store: Store, asset: str) -> list[str] | None:
    """The shards whose content is not that which ``asset`` was made of; None where that is not known."""
    if not store.exists(_key(asset)):
        return None
    used: Mapping[str, str] = json.loads(store.read_bytes(_key(asset)))
    now = {
        shard: one.data or ""
        for shard, one in made_of(instance, DATASET).items()
        if shard in set(store.registered_shards(DATASET))
    }
    return sorted(shard for shard in {*used, *now} if used.get(shard) != now.get(shard))


def _key(asset: str) -> str:
    return f"made_from/{asset}.json"


def _of_other_code(made: Mapping[str, MadeOf]) -> int:
    if not made:
        return 0
    latest = max(made.values(), key=lambda one: one.storage_id)
    return len(made) - Counter(one.code for one in made.values())[latest.code]
