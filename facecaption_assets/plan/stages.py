"""The stages that a plan counts, what each reads and writes, and what this installation has measured of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from statistics import median
from typing import Any, Final

import dagster as dg

from facecaption_assets.partitions import SHARD_ASSETS, SHARDS
from facecaption_ml.storage.store import Store

FUNNEL: Final = ("urls", "images", "crops", "labelled", "released")
"""Where rows are counted, in the order in which they get fewer; of crops there may be more than images."""
MOST_RECORDS: Final = 1000
"""Materializations that are looked at of each asset, the newest ones; a range run leaves two for each shard."""
_PER_FETCH: Final = 100  # records hold pictures, some hundred kB each
_LONGEST: Final = 200  # characters of a value that is kept

Latest = Mapping[str, Mapping[str, Any]]
"""Partition ("" for an asset without) → metadata of its latest materialization."""


@dataclass(frozen=True)
class Stage:
    """``rows``: the point of the funnel that goes in, ``stored``: the one that comes out ("" = the same).

    ``counts``: how the metadata begin that add up to the rows that went in, ``free``: the one among them that costs nothing.
    ``reference``: whose reference speed stands in for it. ``prefixes``: where its objects are, by default under the asset's
    name. ``bytes_by``: the asset whose shards tell how many rows the objects have, if not its own. Of each shard: ``writes``,
    ``opens`` (tables and look-ups), ``columns`` (read, of each row group), ``pictures`` (the table whose pictures are read),
    ``lists``.
    """

    asset: str
    rows: str
    stored: str = ""
    counts: str = "dagster/row_count"
    free: str = ""
    reference: str = ""
    prefixes: tuple[str, ...] = ()
    bytes_by: str = ""
    one_step: bool = False
    fixed_size: bool = False
    writes: int = 1
    opens: int = 0
    columns: int = 0
    pictures: str = ""
    lists: int = 0

    def rows_in(self, metadata: Mapping[str, Any]) -> float:
        """Rows that cost something, by a materialization's counts."""
        named = (name for name in metadata if name.startswith(self.counts) and name != self.free)
        return sum(float(metadata[name]) for name in named)


STAGES: Final = (
    Stage("source_manifest", "urls", bytes_by="raw_images", one_step=True),
    Stage("raw_images", "urls", opens=2, columns=8),
    Stage("face_crops", "images", "crops", "images: ", "images: not_fetched", "detection", opens=4, pictures="raw_images"),
    Stage("face_attributes", "crops", "labelled", "faces: ", "", "attributes", opens=4, pictures="face_crops"),
    Stage("template_captions", "labelled", opens=1, columns=44),
    # The answers are kept, too, after each 512 of them; the trend of acceptance reads a column of up to 30 earlier shards.
    Stage("llm_captions", "labelled", reference="captions", prefixes=("llm_captions/", "llm_answers/"),
          writes=8, opens=33, columns=34, lists=5),
    Stage("facecaption_dataset", "labelled", "released", "faces: ", opens=4, columns=12),
    Stage("dataset_comparison", "released", counts="rows", prefixes=("statistics/dataset_comparison/",),
          one_step=True, fixed_size=True, writes=0, opens=2, columns=2),
    Stage("text_statistics", "released", counts="rows", prefixes=("statistics/text_statistics/",),
          one_step=True, fixed_size=True, writes=0, opens=2, columns=4),
    Stage("facecaption_release", "released", prefixes=("release/data/",), one_step=True, writes=0, opens=19, columns=12),
)  # fmt: skip
FLIP: Final = Stage("flip_checkpoint", "pairs", pictures="face_crops", writes=0)
"""One training; it is never measured in rows."""


@dataclass(frozen=True)
class Measured:
    """``rows_per_second``: median over ``shards`` materializations without the ``cached`` ones, None where there is none.

    ``bytes_per_row``: stored bytes by rows written, or all bytes where the stage's size is fixed; NaN: not known.
    ``device``: cpu or cuda where the materializations say so.
    """

    rows_per_second: float | None = None
    shards: int = 0
    cached: int = 0
    bytes_per_row: float = nan
    device: str | None = None


def latest_metadata(instance: dg.DagsterInstance, asset: str) -> Latest:
    """Numbers and short words of every partition's, by the newest ``MOST_RECORDS``; one step's own time is ``seconds``."""
    latest: dict[str, dict[str, Any]] = {}
    assert SHARDS.name
    registered = {"", *instance.get_dynamic_partitions(SHARDS.name)} if asset in SHARD_ASSETS else None
    cursor: str | None = None
    for _ in range(MOST_RECORDS // _PER_FETCH):
        page = instance.fetch_materializations(dg.AssetKey(asset), limit=_PER_FETCH, cursor=cursor)
        for record in page.records:
            materialization = record.asset_materialization
            if materialization is None or (materialization.partition or "") in latest:
                continue
            if registered is not None and (materialization.partition or "") not in registered:
                continue  # of a shard that the source no longer has
            values = {name: value.value for name, value in materialization.metadata.items()}
            metadata: dict[str, Any] = {
                name: value
                for name, value in values.items()
                if isinstance(value, int | float) or (isinstance(value, str) and len(value) <= _LONGEST)
            }
            if materialization.partition is None and "seconds" not in metadata:
                steps = instance.get_run_step_stats(record.run_id, step_keys=[asset])
                times = (step.end_time - step.start_time for step in steps if step.start_time and step.end_time)
                metadata["seconds"] = next(times, None)
            latest[materialization.partition or ""] = metadata
        if not page.has_more:
            break
        cursor = page.cursor
    return latest


def measure(stage: Stage, by_asset: Mapping[str, Latest], store: Store) -> Measured:
    """Lists the stage's objects in ``store``."""
    materializations = by_asset[stage.asset].values()
    # A shard with answers from llm_captions' cache was written faster than a model writes.
    timed = [metadata for metadata in materializations if not metadata.get("answers from the cache")]
    work = [(stage.rows_in(metadata), metadata.get("seconds")) for metadata in timed]
    rates = [rows / float(seconds) for rows, seconds in work if rows and seconds]
    devices = {str(metadata["device"]) for metadata in materializations if "device" in metadata}
    return Measured(
        rows_per_second=median(rates) if rates else None,
        shards=len(rates),
        cached=len(materializations) - len(timed),
        bytes_per_row=_bytes_per_row(stage, by_asset[stage.bytes_by or stage.asset], store),
        device=devices.pop() if len(devices) == 1 else None,
    )


def _bytes_per_row(stage: Stage, latest: Latest, store: Store) -> float:
    rows = {shard: int(metadata.get("dagster/row_count", 0)) for shard, metadata in latest.items()}
    by_shard = not stage.fixed_size and "" not in rows
    sizes = [  # of complete objects: name of the shard, bytes
        (key.rpartition("/")[2].removesuffix(".parquet"), size)
        for prefix in stage.prefixes or (f"{stage.asset}/",)
        for key, size in store.sizes(prefix).items()
        if "/incomplete/" not in key
    ]
    if by_shard:
        sizes = [(shard, size) for shard, size in sizes if shard in rows]
        rows[""] = sum(rows[shard] for shard in dict(sizes))
    count = 1 if stage.fixed_size else rows[""]
    return sum(size for _, size in sizes) / count if count and sizes else nan


def measured_funnel(latest: Mapping[str, Latest]) -> dict[str, float] | None:
    """Counts over the shards that every stage of the funnel has finished; None where there are none with a released face."""
    tables = ("raw_images", "raw_images", "face_crops", "face_attributes", "facecaption_dataset")
    shards = set.intersection(*(set(latest.get(table, {})) for table in tables))
    counts = {
        point: sum(
            float(latest[table][shard].get("status: ok" if point == "images" else "dagster/row_count", 0))
            for shard in shards
        )
        for point, table in zip(FUNNEL, tables, strict=True)
    }
    return counts if counts["released"] else None
