"""What this installation has measured of each stage: rows a second, bytes a row, and the shares that come through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import dagster as dg

from facecaption_ml.storage.store import Store

_TAKEN_OVER = "answers from the cache"  # of llm_captions: a shard with some was written faster than a model writes
_PER_FETCH = 100  # records hold pictures, some hundred kB each
MOST_RECORDS = 1000
"""Materialisations that are looked at of each asset, the newest ones; a range run leaves two for each shard."""
_LONGEST = 200  # characters of a value that is kept


@dataclass(frozen=True)
class StageSpec:
    """A stage of ``plan.toml``; the words are explained there."""

    asset: str
    rows: str
    stored: str
    counts: Sequence[str]
    prefixes: Sequence[str]
    requests: Mapping[str, Any]
    without: Sequence[str] = ()
    bytes_by: str = ""
    reference: str | None = None
    one_step: bool = False
    fixed_size: bool = False

    def went_in(self, metadata: Mapping[str, Any]) -> float:
        """Rows that cost something, by a materialisation's counts."""
        return sum(
            float(value)
            for name, value in metadata.items()
            if name not in self.without
            and any(name == count or (count.endswith(": ") and name.startswith(count)) for count in self.counts)
        )


@dataclass(frozen=True)
class Measured:
    """``rows_per_second``: median over ``shards`` materialisations, None where there is none to go by.

    ``bytes_per_row``: stored bytes by rows written, or all bytes where the stage's size is fixed. ``device``: cpu or cuda where
    the materialisations say so.
    """

    rows_per_second: float | None = None
    shards: int = 0
    taken_over: int = 0
    bytes_per_row: float | None = None
    device: str | None = None


Latest = Mapping[str, Mapping[str, Any]]
"""Partition ("" for an asset without) → metadata of its latest materialisation."""


def latest_metadata(instance: dg.DagsterInstance, asset: str) -> Latest:
    """Numbers and short words of every partition's, by the newest ``MOST_RECORDS``; one step's own time is ``seconds``."""
    key = dg.AssetKey(asset)
    found: dict[str, dict[str, Any]] = {}
    cursor: str | None = None
    for _ in range(MOST_RECORDS // _PER_FETCH):
        page = instance.fetch_materializations(key, limit=_PER_FETCH, cursor=cursor)
        for record in page.records:
            materialization = record.asset_materialization
            if materialization is None or (materialization.partition or "") in found:
                continue
            metadata = {name: value.value for name, value in materialization.metadata.items() if _is_short(value.value)}
            if materialization.partition is None:
                metadata.setdefault("seconds", _seconds(instance, record.run_id, asset))
            found[materialization.partition or ""] = metadata
        if not page.has_more:
            break
        cursor = page.cursor
    return found


def _is_short(value: object) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and len(value) <= _LONGEST)


def _seconds(instance: dg.DagsterInstance, run_id: str, step: str) -> float | None:
    for stats in instance.get_run_step_stats(run_id, step_keys=[step]):
        if stats.start_time and stats.end_time:
            return stats.end_time - stats.start_time
    return None


def measure(spec: StageSpec, by_asset: Mapping[str, Latest], sizes: Mapping[str, int]) -> Measured:
    """``sizes``: bytes of the objects under the stage's prefixes, by key."""
    latest = by_asset[spec.asset]
    rates, taken_over = [], 0
    for metadata in latest.values():
        rows, seconds = spec.went_in(metadata), metadata.get("seconds")
        if metadata.get(_TAKEN_OVER):
            taken_over += 1
        elif rows and seconds:
            rates.append(rows / float(seconds))
    devices = {str(metadata["device"]) for metadata in latest.values() if "device" in metadata}
    return Measured(
        median(rates) if rates else None,
        len(rates),
        taken_over,
        _bytes_per_row(spec, by_asset[spec.bytes_by or spec.asset], sizes),
        devices.pop() if len(devices) == 1 else None,
    )


def _bytes_per_row(spec: StageSpec, latest: Latest, sizes: Mapping[str, int]) -> float | None:
    complete = {key: size for key, size in sizes.items() if "/incomplete/" not in key}
    if spec.fixed_size or "" in latest:
        rows = 1 if spec.fixed_size else int(latest.get("", {}).get("dagster/row_count", 0))
        return sum(complete.values()) / rows if rows and complete else None
    shards = {key.rpartition("/")[2].removesuffix(".parquet") for key in complete} & set(latest)
    rows = sum(int(latest[shard].get("dagster/row_count", 0)) for shard in shards)
    held = sum(size for key, size in complete.items() if key.rpartition("/")[2].removesuffix(".parquet") in shards)
    return held / rows if rows else None


def object_sizes(store: Store, spec: StageSpec) -> dict[str, int]:
    """One listing for each prefix of a stage."""
    return {key: size for prefix in spec.prefixes for key, size in store.sizes(prefix).items()}


FUNNEL = ("urls", "images", "crops", "labelled", "released")
"""What is counted, in the order in which it gets less; of crops there may be more than images."""


def measured_funnel(latest: Mapping[str, Latest]) -> dict[str, float] | None:
    """Counts over the shards that every stage of the funnel has finished; None where there are none with a released face."""
    stages = ("raw_images", "face_crops", "face_attributes", "facecaption_dataset")
    shards = set.intersection(*(set(latest.get(asset, {})) for asset in stages))
    counts = dict.fromkeys(FUNNEL, 0.0)
    for shard in shards:
        raw, crops, labelled, released = (latest[asset][shard] for asset in stages)
        for name, metadata, key in (
            ("urls", raw, "dagster/row_count"),
            ("images", raw, "status: ok"),
            ("crops", crops, "dagster/row_count"),
            ("labelled", labelled, "dagster/row_count"),
            ("released", released, "dagster/row_count"),
        ):
            counts[name] += float(metadata.get(key, 0))
    return counts if counts["released"] else None
