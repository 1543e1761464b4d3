"""A plan as Markdown tables with its assumptions, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from facecaption_assets.plan.estimate import NOT_MEASURED, Plan

_UNITS: Final = (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
_LEFT_ALIGNED: Final = ("stage", "point", "by", "machine")
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


def as_json(plan: Plan) -> str:
    """For programs; null where something is not known."""
    record = {**vars(plan), "stages": plan.stages.to_dicts(), "totals": plan.totals, "left_out": plan.left_out}
    return json.dumps(record, ensure_ascii=False)


def as_markdown(plan: Plan) -> str:
    """Funnel, stages, totals and numbered assumptions; the tables are aligned, so that a terminal shows them as well."""
    totals, unknown = plan.totals, dict[tuple[str, ...], list[str]]()
    for name, stages in plan.left_out.items():
        unknown.setdefault(tuple(stages), []).append(_NAMES[name])
    left_out = [f"- {', '.join(stages)}: {', '.join(names)}" for stages, names in unknown.items()]
    funnel = [[point, f"{rows:,.0f}", f"{rows / plan.urls:.1%}"] for point, rows in plan.funnel.items()]
    header = [
        "stage", "rows in", "rows/s", "by", "machine", "at once", "hours", "machine h", "GPU h", "stored", "PUT", "GET",
        f"cost, {plan.currency}",
    ]  # fmt: skip
    rows = [[*_work(stage), *_amounts(stage), _cost(stage)] for stage in plan.stages.iter_rows(named=True)]
    total = ["**total**", "", "", "", "", "", *_amounts(totals), _number(totals["cost"])]
    return "\n".join(
        [
            f"# Plan for {plan.urls:,} URLs",
            "",
            *_table(["point", "rows", "of URLs"], funnel),
            "",
            *_table(header, [*rows, total]),
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


def _work(stage: Mapping[str, Any]) -> list[str]:
    rows = f"{stage['rows']:,.0f}" + (f" × {stage['passes']:g}" if stage["passes"] != 1 else "")
    speed, origin = NOT_MEASURED, ""
    if stage["rows_per_second"] is not None:
        speed, origin = f"{stage['rows_per_second']:,.1f}", stage["speed_origin"]
    return [stage["asset"], rows, speed, origin, stage["machine"], str(stage["machines_at_once"])]


def _amounts(amounts: Mapping[str, Any]) -> list[str]:
    hours = [_number(amounts[name]) for name in ("hours", "machine_hours", "gpu_hours")]
    return [*hours, _bytes(amounts["stored_bytes"]), *(_number(amounts[f"{verb}_requests"]) for verb in ("put", "get"))]


def _cost(stage: Mapping[str, Any]) -> str:
    # A stage whose hours nobody knows has only a part of its cost to show: that of its storage.
    return _number(stage["cost"]) + (" + ?" if stage["cost"] is not None and stage["machine_cost"] is None else "")


def _number(value: float | None) -> str:
    if value is None:
        return NOT_MEASURED
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"


def _bytes(value: float | None) -> str:
    if value is None:
        return NOT_MEASURED
    return next((f"{value / size:,.1f} {unit}" for unit, size in _UNITS if value >= size), f"{value:,.0f} B")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    left = [name in _LEFT_ALIGNED for name in header]
    rule = ["-" * width if is_left else "-" * (width - 1) + ":" for width, is_left in zip(widths, left, strict=True)]
    lines = [
        [f"{cell:{'<' if is_left else '>'}{width}}" for cell, width, is_left in zip(row, widths, left, strict=True)]
        for row in (header, rule, *rows)
    ]
    return [f"| {' | '.join(line)} |" for line in lines]
