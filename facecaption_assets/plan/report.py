"""A plan as Markdown tables with its assumptions, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from facecaption_assets.plan.estimate import NOT_MEASURED, TOTALLED, Plan
from facecaption_ml.markdown import markdown_table

_UNITS: Final = (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def as_json(plan: Plan) -> str:
    """For programs; null where something is not known."""
    record = {**vars(plan), "stages": plan.stages.to_dicts(), "totals": plan.totals, "left_out": plan.left_out}
    return json.dumps(record, ensure_ascii=False)


def as_markdown(plan: Plan) -> str:
    """Funnel, stages, totals and numbered assumptions; the tables are aligned, so that a terminal shows them as well."""
    totals, unknown = plan.totals, dict[tuple[str, ...], list[str]]()
    for name, stages in plan.left_out.items():
        unknown.setdefault(tuple(stages), []).append(TOTALLED[name])
    left_out = [f"- {', '.join(stages)}: {', '.join(names)}" for stages, names in unknown.items()]
    funnel = [(point, f"{rows:,.0f}", f"{rows / plan.urls:.1%}") for point, rows in plan.funnel.items()]
    header = (
        "stage", "rows in", "rows/s", "by", "machine", "at once", "hours", "machine h", "GPU h", "stored", "PUT", "GET",
        f"cost, {plan.currency}",
    )  # fmt: skip
    rows = [_stage_cells(stage) for stage in plan.stages.iter_rows(named=True)]
    rows.append(["**total**", "", "", "", "", "", *_amounts(totals)])
    return "\n".join(
        [
            f"# Plan for {plan.urls:,} URLs",
            "",
            markdown_table(("point", "rows", "of URLs"), funnel, "lrr", padded=True),
            "",
            markdown_table(header, rows, "lrrll" + 8 * "r", padded=True),
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


def _stage_cells(stage: Mapping[str, Any]) -> list[str]:
    rows = f"{stage['rows']:,.0f}" + (f" × {stage['passes']:g}" if stage["passes"] != 1 else "")
    speed, origin = NOT_MEASURED, ""
    if stage["rows_per_second"] is not None:
        speed, origin = f"{stage['rows_per_second']:,.1f}", stage["speed_origin"]
    cells = [stage["asset"], rows, speed, origin, stage["machine"], str(stage["machines_at_once"]), *_amounts(stage)]
    if stage["cost"] is not None and stage["machine_cost"] is None:
        cells[-1] += " + ?"  # the hours are not known: only a part of the cost is, that of storage
    return cells


def _amounts(amounts: Mapping[str, Any]) -> list[str]:
    hours = [_number(amounts[name]) for name in ("hours", "machine_hours", "gpu_hours")]
    rest = [_number(amounts[name]) for name in ("put_requests", "get_requests", "cost")]
    size = amounts["stored_bytes"]
    if size is None:
        return [*hours, NOT_MEASURED, *rest]
    stored = next((f"{size / unit:,.1f} {name}" for name, unit in _UNITS if size >= unit), f"{size:,.0f} B")
    return [*hours, stored, *rest]


def _number(value: float | None) -> str:
    if value is None:
        return NOT_MEASURED
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"
