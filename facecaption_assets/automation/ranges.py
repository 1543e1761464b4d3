"""Runs of shards: ranges in the order of registration, as run requests, and read back from the runs that there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import dagster as dg

from facecaption_assets.automation.jobs import SHARD_PIPELINE
from facecaption_assets.partitions import PARTITION_TAG, RANGE_END_TAG, RANGE_START_TAG, SHARD_ASSETS

REASON: Final = "facecaption/reason"
"""The tag that says why a shard is built: new, missing, failed or stale."""


def range_request(first: str, last: str, run_key: str, reason: str, stage: int = 0) -> dg.RunRequest:
    """A run of ``shard_pipeline`` for the shards ``first`` to ``last``, from the asset number ``stage`` on."""
    return dg.RunRequest(
        run_key=run_key,
        job_name=SHARD_PIPELINE.name,
        tags={RANGE_START_TAG: first, RANGE_END_TAG: last, REASON: reason},
        asset_selection=[dg.AssetKey(name) for name in SHARD_ASSETS[stage:]] if stage else None,
    )


def shards_of_run(tags: Mapping[str, str], position: Mapping[str, int], registered: Sequence[str]) -> Sequence[str]:
    """The shards that a run with these tags is for; none where it is for something else or for shards that are gone.

    ``position`` is the place of each shard in ``registered``.
    """
    first, last = (tags.get(tag, tags.get(PARTITION_TAG, "")) for tag in (RANGE_START_TAG, RANGE_END_TAG))
    if first not in position or last not in position:
        return []
    return registered[position[first] : position[last] + 1]
