"""A plan as a table with its assumptions, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from facecaption_assets.plan.estimate import NOT_MEASURED, Plan, StagePlan

_UNITS: Final = (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
_NAMES: Final = {
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


def as_markdown(plan: Plan) -> str:
    """Funnel, stages, totals and numbered assumptions; the tables are aligned, so that a terminal shows them as well."""
    header = [
        "stage", "rows in", "rows/s", "by", "machine", "at once", "hours", "machine h", "GPU h", "stored", "PUT", "GET",
        f"cost, {plan.currency}",
    ]  # fmt: skip
    rows = [_stage_row(stage) for stage in plan.stages]
    totals = plan.totals
    last = ["**total**", "", "", "", "", ""]
    last += [_number(totals[name]) for name in ("hours", "machine_hours", "gpu_hours")]
    last += [_bytes(totals["stored_bytes"]), _number(totals["put_requests"]), _number(totals["get_requests"])]
    last.append(_number(totals["cost"]))
    funnel = [[name, f"{count:,.0f}", f"{count / plan.urls:.1%}"] for name, count in plan.funnel.items()]
    left_out = _left_out(plan)
    return "\n".join(
        [
            f"# Plan for {plan.urls:,} URLs",
            "",
            *_table(["point", "rows", "of URLs"], funnel),
            "",
            *_table(header, [*rows, last]),
            "",
            f"Cost: {_number(totals['machine_cost'])} for machines, {_number(totals['storage_cost'])} for storage, "
            f"{_number(totals['request_cost'])} for requests ({plan.currency}).",
            "",
            *(["The totals leave out what nobody has measured:", "", *left_out, ""] if left_out else []),
            "Assumptions:",
            "",
            *(f"{number}. {text}" for number, text in enumerate(plan.assumptions, start=1)),
        ]
    )


def _left_out(plan: Plan) -> list[str]:
    """A line for each group of stages that the same totals lack."""
    totals: dict[tuple[str, ...], list[str]] = {}
    for name, assets in plan.left_out.items():
        totals.setdefault(tuple(assets), []).append(_NAMES[name])
    return [f"- {', '.join(assets)}: {', '.join(names)}" for assets, names in totals.items()]


def as_json(plan: Plan) -> str:
    """The same for programs; null where something is not known."""
    record: dict[str, Any] = {
        **asdict(plan),
        "stages": [{**asdict(stage), "cost": stage.cost} for stage in plan.stages],
        "totals": plan.totals,
        "left_out": plan.left_out,
    }
    return json.dumps(record, ensure_ascii=False)


def _stage_row(stage: StagePlan) -> list[str]:
    hours = [_number(value) for value in (stage.hours, stage.machine_hours, stage.gpu_hours)]
    requests = [_number(value) for value in (stage.put_requests, stage.get_requests)]
    speed = NOT_MEASURED if stage.rows_per_second is None else f"{stage.rows_per_second:,.1f}"
    # A stage whose hours nobody knows has no cost to show, even if its storage has one.
    cost = _number(stage.cost) if stage.machine_cost is not None else _part(stage)
    rows = f"{stage.rows:,.0f}" + (f" × {stage.passes:g}" if stage.passes != 1 else "")
    by = "" if stage.speed_origin == NOT_MEASURED else stage.speed_origin
    return [
        stage.asset, rows, speed, by, stage.machine, str(stage.machines_at_once), *hours, _bytes(stage.stored_bytes),
        *requests, cost,
    ]  # fmt: skip


def _part(stage: StagePlan) -> str:
    return NOT_MEASURED if stage.cost is None else f"{_number(stage.cost)} + ?"


def _number(value: float | None) -> str:
    if value is None:
        return NOT_MEASURED
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"


def _bytes(value: float | None) -> str:
    if value is None:
        return NOT_MEASURED
    for unit, size in _UNITS:
        if value >= size:
            return f"{value / size:,.1f} {unit}"
    return f"{value:,.0f} B"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    left = {"stage", "point", "by", "machine"}

    def line(cells: Sequence[str]) -> str:
        placed = [
            cell.ljust(width) if name in left else cell.rjust(width)
            for name, cell, width in zip(header, cells, widths, strict=True)
        ]
        return f"| {' | '.join(placed)} |"

    rule = [
        "-" * width if name in left else "-" * (width - 1) + ":" for name, width in zip(header, widths, strict=True)
    ]
    return [line(header), f"| {' | '.join(rule)} |", *map(line, rows)]
