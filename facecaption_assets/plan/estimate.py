"""The arithmetic of a plan: rows through the funnel, hours by speed, bytes and requests by shard, money by price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from facecaption_assets.machines.compute import Compute
from facecaption_assets.plan.figures import Figures
from facecaption_assets.plan.measured import FUNNEL, Measured, StageSpec

_HOUR_S: Final = 3600.0
_GB: Final = 1e9
_SINGLE_WRITE_BYTES: Final = 64e6
NOT_MEASURED: Final = "not measured"


@dataclass(frozen=True)
class Speed:
    """Rows that a machine does in a second; None where nobody knows. ``origin`` says how it is known."""

    rows_per_second: float | None
    origin: str


@dataclass(frozen=True)
class StagePlan:
    """What a stage takes. None: not known, and left out of every total. Costs are in the plan's currency."""

    asset: str
    rows: float
    passes: float  # over those rows
    rows_per_second: float | None
    speed_origin: str
    machine: str
    machines_at_once: int
    machine_hours: float | None
    hours: float | None
    gpu_hours: float | None
    stored_bytes: float | None
    put_requests: float | None
    get_requests: float | None
    machine_cost: float | None
    storage_cost: float | None
    request_cost: float | None

    @property
    def cost(self) -> float | None:
        """Of machines, storage and requests, as far as they are known; None where none is."""
        known = [cost for cost in (self.machine_cost, self.storage_cost, self.request_cost) if cost is not None]
        return sum(known) if known else None


TOTALLED: Final = (
    "hours", "machine_hours", "gpu_hours", "stored_bytes", "put_requests", "get_requests", "machine_cost", "storage_cost",
    "request_cost",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """A plan for ``urls`` images. ``funnel``: rows at each point; ``assumptions``: everything it rests on, in words."""

    urls: int
    currency: str
    funnel: Mapping[str, float]
    stages: Sequence[StagePlan]
    assumptions: Sequence[str] = field(default_factory=list)

    @property
    def totals(self) -> dict[str, float]:
        """Sums over the stages, of what is known."""
        sums = {name: sum(getattr(stage, name) or 0.0 for stage in self.stages) for name in TOTALLED}
        return {**sums, "cost": sum(sums[name] for name in TOTALLED if name.endswith("_cost"))}

    @property
    def left_out(self) -> dict[str, list[str]]:
        """Total → the stages that are not in it, since nothing is known of them there."""
        missing = {name: [s.asset for s in self.stages if getattr(s, name) is None] for name in TOTALLED}
        return {name: assets for name, assets in missing.items() if assets}


def funnel_of(urls: int, counts: Mapping[str, float]) -> dict[str, float]:
    """The rows at each point of the funnel for ``urls``, in the proportions of ``counts``."""
    return {name: urls * counts[name] / counts["urls"] for name in FUNNEL}


def gpu_speed(spec: StageSpec, compute: Compute, figures: Figures) -> float | None:
    """Rows a second of a machine with one A100, by the reference; detection cannot outrun the decoding of its pictures."""
    if spec.reference is None:
        return None
    speed = figures[f"reference.h200.{spec.reference}"] * figures["factor.a100"]
    if spec.reference == "detection":
        return min(speed, compute.cores * figures["reference.core.decoding"])
    return speed / figures["captions.answers"] if spec.reference == "captions" else speed


def stage_plan(
    spec: StageSpec,
    speed: Speed,
    compute: Compute,
    funnel: Mapping[str, float],
    measured: Mapping[str, Measured],
    figures: Figures,
) -> StagePlan:
    """``measured``: of this stage, and of those whose pictures it reads."""
    shards = funnel["urls"] / figures["shard.size"]
    per_row = measured[spec.asset].bytes_per_row
    stored = None if per_row is None else per_row if spec.fixed_size else per_row * funnel[spec.stored]
    return price(
        figures,
        compute,
        asset=spec.asset,
        rows=funnel[spec.rows],
        passes=1,
        speed=speed,
        most_at_once=1 if spec.one_step else max(1, int(shards)),
        stored_bytes=stored,
        requests=_requests(spec, shards, funnel, stored, measured, figures),
    )


def flip_plan(
    speed: Speed,
    compute: Compute,
    pairs: float,
    epochs: float,
    variants: int,
    crop_bytes: float | None,
    figures: Figures,
) -> StagePlan:
    """Trainings of so many variants; ``speed`` in pairs, ``crop_bytes``: of all crops, which each epoch reads once."""
    passes = epochs * variants
    gets = None if crop_bytes is None else passes * crop_bytes / figures["requests.picture_bytes"]
    stored = figures["flip.bytes"] * variants
    parts = stored / figures["requests.part_bytes"]
    return price(
        figures,
        compute,
        asset=f"flip_checkpoint × {variants}",
        rows=pairs,
        passes=passes,
        speed=speed,
        most_at_once=variants,
        stored_bytes=stored,
        requests=(parts, gets),
    )


def price(
    figures: Figures,
    compute: Compute,
    *,
    asset: str,
    rows: float,
    passes: float,
    speed: Speed,
    most_at_once: int,
    stored_bytes: float | None,
    requests: tuple[float | None, float | None],
) -> StagePlan:
    """Hours from rows and speed, and costs from the prices."""
    machines, hourly = f"machines.{compute.name}", f"price.{compute.name}"
    at_once = min(int(figures[machines]) if machines in figures else 1, most_at_once)
    machine_hours = rows * passes / speed.rows_per_second / _HOUR_S if speed.rows_per_second else None
    puts, gets = requests
    request_cost = None
    if puts is not None and gets is not None:
        request_cost = (puts * figures["price.put"] + gets * figures["price.get"]) / 1000
    storage_cost = None
    if stored_bytes is not None:
        storage_cost = stored_bytes / _GB * figures["price.storage"] * figures["storage.months"]
    return StagePlan(
        asset=asset,
        rows=rows,
        passes=passes,
        rows_per_second=speed.rows_per_second,
        speed_origin=speed.origin,
        machine=compute.name,
        machines_at_once=at_once,
        machine_hours=machine_hours,
        hours=None if machine_hours is None else machine_hours / at_once,
        gpu_hours=None if machine_hours is None else machine_hours * compute.gpus,
        stored_bytes=stored_bytes,
        put_requests=puts,
        get_requests=gets,
        machine_cost=machine_hours * figures[hourly] if machine_hours is not None and hourly in figures else None,
        storage_cost=storage_cost,
        request_cost=request_cost,
    )


def _requests(
    spec: StageSpec,
    shards: float,
    funnel: Mapping[str, float],
    stored: float | None,
    measured: Mapping[str, Measured],
    figures: Figures,
) -> tuple[float | None, float | None]:
    """PUT and GET requests; None where they depend on bytes that nobody has measured."""
    of: Mapping[str, Any] = spec.requests
    pictures = [_picture_bytes(table, funnel, measured) for table in of["pictures"]]
    if stored is None or None in pictures:
        return None, None
    parts = 0.0
    if stored / shards > _SINGLE_WRITE_BYTES:
        parts = stored / figures["requests.part_bytes"] + shards * of["writes"]  # two POST instead of one PUT
    puts = shards * (of["writes"] * figures["requests.write"] + of["lists"]) + parts
    row_groups = funnel[spec.rows] / figures["requests.row_group_rows"]
    gets = shards * figures["requests.open"] * (of["opens"] + of["writes"]) + row_groups * of["columns"]
    read = sum(amount for amount in pictures if amount is not None)
    return puts, gets + read / figures["requests.picture_bytes"]


def _picture_bytes(table: str, funnel: Mapping[str, float], measured: Mapping[str, Measured]) -> float | None:
    per_row = measured[table].bytes_per_row
    return None if per_row is None else per_row * funnel["urls" if table == "raw_images" else "crops"]
