"""The arithmetic of a plan, as a table: hours by speed, requests by shard and byte, money by price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any, Final

import polars as pl

from facecaption_assets.machines.compute import Compute
from facecaption_assets.plan.rates import Rates
from facecaption_assets.plan.stages import Measured, Stage

NOT_MEASURED: Final = "not measured"
_SINGLE_WRITE_BYTES: Final = 64e6
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
Speed = tuple[float, str]
"""Rows that a machine does in a second, NaN where nobody knows, and how it is known."""


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


def estimate(
    stage: Stage,
    speed: Speed,
    machine: Compute,
    funnel: Mapping[str, float],
    measured: Mapping[str, Measured],
    rates: Rates,
    trainings: int = 0,
) -> dict[str, Any]:
    """A stage's row of the plan, NaN: not known. ``measured``: of this stage, and of the one whose pictures it reads.

    ``trainings``: so many FLIP variants are trained; each epoch reads every crop once.
    """
    rows, passes, objects = funnel[stage.rows], 1.0, funnel["urls"] / rates["shard.size"]
    at_once = 1 if stage.one_step else max(1, int(objects))
    stored = measured.get(stage.asset, Measured()).bytes_per_row * (
        1 if stage.fixed_size else funnel[stage.stored or stage.rows]
    )
    if trainings:
        passes, objects, at_once = float(rates["flip.epochs"] * trainings), float(trainings), trainings
        stored = float(rates["flip.bytes"] * trainings)
    at_once = min(at_once, int(rates[f"machines.{machine.name}"]))
    hours = rows * passes / speed[0] / 3600
    # An object in parts takes two POST instead of one PUT, and a PUT for each part.
    parts = stored / rates["requests.part_bytes"] + objects * stage.writes
    puts = objects * (stage.writes * rates["requests.write"] + stage.lists)
    puts += parts if stored / objects > _SINGLE_WRITE_BYTES else 0.0
    looks = objects * rates["requests.open"] * (stage.opens + stage.writes)
    reads = rows / rates["requests.row_group_rows"] * stage.columns
    pictures = 0.0
    if stage.pictures:
        pictures = (
            measured[stage.pictures].bytes_per_row * funnel["urls" if stage.pictures == "raw_images" else "crops"]
        )
    gets = looks + reads + passes * pictures / rates["requests.picture_bytes"]
    if isnan(stored):
        puts = gets = nan
    costs = {
        "machine_cost": hours * rates[f"price.{machine.name}"],
        "storage_cost": stored / 1e9 * rates["price.storage"] * rates["storage.months"],
        "request_cost": (puts * rates["price.put"] + gets * rates["price.get"]) / 1000,
    }
    known = [cost for cost in costs.values() if not isnan(cost)]
    return {
        "asset": f"{stage.asset} × {trainings}" if trainings else stage.asset,
        "rows": rows,
        "passes": passes,
        "rows_per_second": speed[0],
        "speed_origin": speed[1],
        "machine": machine.name,
        "machines_at_once": at_once,
        "machine_hours": hours,
        "hours": hours / at_once,
        "gpu_hours": hours * machine.gpus,
        "stored_bytes": stored,
        "put_requests": puts,
        "get_requests": gets,
        **costs,
        "cost": sum(known) if known else nan,
    }
