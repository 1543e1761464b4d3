"""The arithmetic of a plan, as a table: hours by speed, requests by shard and byte, money by price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl
import polars.selectors as cs

from facecaption_assets.plan.rates import Rates

NOT_MEASURED: Final = "not measured"
_SINGLE_WRITE_BYTES: Final = 64e6
_COSTS: Final = ("machine_cost", "storage_cost", "request_cost")
TOTALLED: Final = {
    "hours": "hours",
    "machine_hours": "machine hours",
    "gpu_hours": "GPU hours",
    "stored_bytes": "stored",
    "put_requests": "PUT requests",
    "get_requests": "GET requests",
    "machine_cost": "cost of machines",
    "storage_cost": "cost of storage",
    "request_cost": "cost of requests",
}
"""The columns of a plan that add up, and the words for them."""
_ESTIMATED: Final = (
    "asset", "rows", "passes", "rows_per_second", "speed_origin", "machine", "machines_at_once", "machine_hours", "hours",
    "gpu_hours", "stored_bytes", "put_requests", "get_requests", *_COSTS, "cost",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """A plan for ``urls`` images. ``funnel``: rows at each point; ``assumptions``: everything it rests on, in words.

    ``stages``: a row each, costs in ``currency``; null: not known, and left out of every total.
    """

    urls: int
    currency: str
    funnel: Mapping[str, float]
    stages: pl.DataFrame
    assumptions: Sequence[str] = ()

    @property
    def totals(self) -> dict[str, float]:
        """Sums over the stages, of what is known."""
        return self.stages.select(pl.col(*TOTALLED, "cost").sum()).row(0, named=True)

    @property
    def left_out(self) -> dict[str, list[str]]:
        """Total → the stages that are not in it, since nothing is known of them there."""
        assets = {name: self.stages.filter(pl.col(name).is_null())["asset"].to_list() for name in TOTALLED}
        return {name: unknown for name, unknown in assets.items() if unknown}


def estimate(work: Sequence[Mapping[str, Any]], rates: Rates) -> pl.DataFrame:
    """``work``: a record for each stage, None: not known.

    ``rows`` are done ``passes`` times by ``machines_at_once`` of the class ``machine`` with so many ``gpus``, each at
    ``rows_per_second``, known by ``speed_origin``, for the ``price`` of an hour. ``stored_bytes`` are written in ``objects``,
    ``picture_bytes`` are read in each pass; ``writes``, ``opens``, ``columns`` and ``lists``: as in ``stages.Stage``.
    """
    table = pl.DataFrame(work, infer_schema_length=None).with_columns(
        (cs.integer() | cs.by_dtype(pl.Null)).cast(pl.Float64)
    )
    stored, objects, writes = pl.col("stored_bytes"), pl.col("objects"), pl.col("writes")
    # An object in parts takes two POST instead of one PUT, and a PUT for each part.
    parts = pl.when(stored / objects > _SINGLE_WRITE_BYTES).then(
        stored / rates["requests.part_bytes"] + objects * writes
    )
    puts = objects * (writes * rates["requests.write"] + pl.col("lists")) + parts.otherwise(0.0)
    looks = objects * rates["requests.open"] * (pl.col("opens") + writes)
    reads = pl.col("rows") / rates["requests.row_group_rows"] * pl.col("columns")
    pictures = pl.col("passes") * pl.col("picture_bytes") / rates["requests.picture_bytes"]
    return (
        table.with_columns(
            pl.col("machines_at_once").cast(pl.Int64),
            machine_hours=pl.col("rows") * pl.col("passes") / pl.col("rows_per_second") / 3600,
            put_requests=pl.when(stored.is_not_null()).then(puts),
            get_requests=pl.when(stored.is_not_null()).then(looks + reads + pictures),
        )
        .with_columns(
            hours=pl.col("machine_hours") / pl.col("machines_at_once"),
            gpu_hours=pl.col("machine_hours") * pl.col("gpus"),
            machine_cost=pl.col("machine_hours") * pl.col("price"),
            storage_cost=stored / 1e9 * rates["price.storage"] * rates["storage.months"],
            request_cost=(pl.col("put_requests") * rates["price.put"] + pl.col("get_requests") * rates["price.get"])
            / 1000,
        )
        .with_columns(cost=pl.when(pl.any_horizontal(pl.col(_COSTS).is_not_null())).then(pl.sum_horizontal(_COSTS)))
        .select(_ESTIMATED)
    )
