"""A plan from what this installation has measured, the rates, and the settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isnan, nan
from typing import Final, Literal

import dagster as dg
import polars as pl

from facecaption_assets.machines.compute import CPU, DOWNLOAD, EIGHT_A100, ONE_A100, Compute
from facecaption_assets.plan.estimate import NOT_MEASURED, Plan, Speed, estimate
from facecaption_assets.plan.rates import PlanError, Rates, bundled
from facecaption_assets.plan.stages import (
    FLIP,
    FUNNEL,
    MOST_RECORDS,
    STAGES,
    Latest,
    Measured,
    Stage,
    latest_metadata,
    measure,
    measured_funnel,
)  # fmt: skip
from facecaption_assets.settings import Settings
from facecaption_ml.devices import resolve_device
from facecaption_ml.storage.store import Store

Yields = Literal["measured", "paper"]
_FLIP_PRESET: Final = "base"
_GENERAL: Final = (
    "each stage begins when the one before it has ended; machines are paid while they work and not while they wait",
    f"of each stage, the newest {MOST_RECORDS:,} materializations are looked at",
    "a speed over few rows is low, since it includes what a run does once (loading, connecting): measure on whole shards",
    "bytes a row are those of the objects in this store; pictures of another list may be larger",
    "how fast pictures arrive depends on the network and on other people's servers: measure it on a shard of your own list",
    "left out: attribute_model, image_quality and image_text_matching (samples of a fixed size), the benchmarks and the "
    "ablation, traffic, and machines that wait",
)


@dataclass(frozen=True)
class Request:
    """A plan for ``urls`` images: whose shares to go by, how many FLIP variants, and whether a CPU's speeds count."""

    urls: int
    yields: Yields | None = None
    variants: int = 3
    as_measured: bool = False


def make_plan(request: Request, settings: Settings, store: Store, instance: dg.DagsterInstance, rates: Rates) -> Plan:
    """Raises PlanError where measured shares are requested and there are none."""
    latest = {stage.asset: latest_metadata(instance, stage.asset) for stage in STAGES}
    measured = {stage.asset: measure(stage, latest, store) for stage in STAGES}
    counts, note = _shares(request.yields, latest)
    funnel = {point: request.urls * counts[point] / counts["urls"] for point in FUNNEL}
    # Where this installation's models have run: as its shards say, else as the settings do.
    devices = {one.device for one in measured.values() if one.device} or {resolve_device(settings.device)}
    device = devices.pop() if len(devices) == 1 else "cpu"
    machines, rows, notes = _machines(settings), [], [note]
    for stage in STAGES:
        machine, own = machines.get(stage.asset, CPU), measured[stage.asset]
        elsewhere = stage.asset == "llm_captions" and settings.llm.backend in ("endpoint", "none")
        speed: Speed = (nan, NOT_MEASURED)
        if own.rows_per_second and (request.as_measured or not machine.gpus or (device == "cuda" and not elsewhere)):
            speed = (own.rows_per_second, "one step" if stage.one_step else f"{own.shards} shards")
        elif machine.gpus and stage.reference:
            speed = (reference_speed(stage, machine, rates), "reference")
        rows.append(estimate(stage, speed, machine, funnel, measured, rates))
        notes += _notes(stage, own, speed, machine, device)
    if request.variants:
        held_out = settings.release.validation_share + settings.release.test_share
        pairs = {"pairs": funnel["released"] * (1 - held_out)}
        speed = _flip_speed(latest_metadata(instance, FLIP.asset), request, device, rates)
        rows.append(estimate(FLIP, speed, EIGHT_A100, funnel | pairs, measured, rates, request.variants))
        how = f"{speed[0]:,.1f} pairs/s here stand for one machine with {EIGHT_A100.gpus} A100"
        if speed[1] == "reference":
            how = f"preset {_FLIP_PRESET} at the reference speed, whatever FACECAPTION_FLIP_PRESET is"
        notes.append(
            f"{FLIP.asset}: {how}; every epoch has the training split's pairs: released faces without {held_out:.0%} of them"
        )
    stages = pl.DataFrame(rows, infer_schema_length=None).fill_nan(None)
    used = (f"{name} = {rate.value:,.10g} {rate.unit} ({rate.origin})" for name, rate in rates.used().items())
    return Plan(request.urls, rates.currency, funnel, stages, [*notes, *_GENERAL, *used])


def _machines(settings: Settings) -> dict[str, Compute]:
    """Asset → the class of machine that its tags name."""
    from facecaption_assets.definitions import build_definitions

    classes = {machine.name: machine for machine in (CPU, DOWNLOAD, ONE_A100, EIGHT_A100)}
    assets = [one for one in build_definitions(settings).assets or () if isinstance(one, dg.AssetsDefinition)]
    tagged = [(key.to_user_string(), one.op.tags.get("facecaption/compute")) for one in assets for key in one.keys]
    return {key: classes[name] for key, name in tagged if name in classes}


def _shares(wanted: Yields | None, latest: Mapping[str, Latest]) -> tuple[Mapping[str, float], str]:
    """Counts at the points of the funnel, and a note on whose they are."""
    measured = None if wanted == "paper" else measured_funnel(latest)
    if measured is None and wanted == "measured":
        raise PlanError("--yields measured: no finished shard has a released face; use --yields paper")
    if measured is None:
        paper = bundled()["paper"]
        return paper, f"shares that come through: {paper['origin']}"
    is_drawn = latest["source_manifest"].get("", {}).get("source", "") == "sample"
    return measured, (
        f"shares that come through: as in this installation's finished shards, {measured['urls']:,.0f} URLs to "
        f"{measured['released']:,.0f} released faces"
        + (", of the drawn sample world: use --yields paper for the web's" if is_drawn else "")
    )


def reference_speed(stage: Stage, machine: Compute, rates: Rates) -> float:
    """Rows a second of a machine with one A100; detection cannot outrun the decoding of its pictures."""
    speed = rates[f"reference.h200.{stage.reference}"] * rates["factor.a100"]
    if stage.reference == "detection":
        return min(speed, machine.cores * rates["reference.core.decoding"])
    return speed / rates["captions.answers"] if stage.reference == "captions" else speed


def _flip_speed(trained: Latest, request: Request, device: str, rates: Rates) -> Speed:
    """Pairs a second of a machine with eight A100s."""
    for metadata in trained.values():
        pairs = metadata.get("pairs per second")
        on_gpus = device == "cuda" and metadata.get("preset") == _FLIP_PRESET
        if isinstance(pairs, int | float) and (request.as_measured or on_gpus):
            return float(pairs), f"{len(trained)} trainings"
    alone = rates["reference.h200.flip_base"] * rates["factor.a100"]
    return EIGHT_A100.gpus * alone * rates["flip.scaling"], "reference"


def _notes(stage: Stage, own: Measured, speed: Speed, machine: Compute, device: str) -> Iterator[str]:
    rate, origin = f"{own.rows_per_second or 0:,.1f} rows/s", speed[1]
    if origin == NOT_MEASURED:
        yield f"{stage.asset}: no materialization here has its time and there is no reference: not in the totals"
    elif origin == "reference":
        why = f"ran at {rate} here, on no GPU of its own ({device})" if own.rows_per_second else "has not run here"
        yield f"{stage.asset}: {why}, so the reference speed is taken (--as-measured: what was measured)"
    elif machine.gpus and device != "cuda":
        yield f"{stage.asset}: --as-measured, so a {device}'s {rate} stand for a machine with {machine.gpus} A100"
    else:
        yield f"{stage.asset}: {rate} here stand for one machine of the class {machine.name}"
    if own.cached:
        yield f"{stage.asset}: {own.cached} shards are not counted, their answers were kept from an earlier run"
    if isnan(own.bytes_per_row):
        yield f"{stage.asset}: nothing stored here to measure bytes by: storage and requests not in the totals"
