"""A plan from what this installation has measured, the figures, and the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import dagster as dg

from facecaption_assets.machines import compute
from facecaption_assets.machines.compute import CPU, EIGHT_A100, Compute
from facecaption_assets.plan.estimate import NOT_MEASURED, Plan, Speed, flip_plan, funnel_of, gpu_speed, stage_plan
from facecaption_assets.plan.figures import Figures, PlanError, bundled
from facecaption_assets.plan.measured import (
    MOST_RECORDS,
    Latest,
    Measured,
    StageSpec,
    latest_metadata,
    measure,
    measured_funnel,
    object_sizes,
)
from facecaption_assets.settings import Settings
from facecaption_ml.storage.store import Store

Yields = Literal["measured", "paper"]
_FLIP: Final = "flip_checkpoint"
_FLIP_PRESET: Final = "base"
_LEFT_OUT: Final = (
    "left out: attribute_model, image_quality and image_text_matching (samples of a fixed size), the benchmarks and the "
    "ablation, traffic, and machines that wait"
)


@dataclass(frozen=True)
class Request:
    """What is asked for: ``urls`` images, whose shares to go by, how many FLIP variants, and whether a CPU's speeds count."""

    urls: int
    yields: Yields | None = None
    variants: int = 3
    as_measured: bool = False


def make_plan(
    request: Request, settings: Settings, store: Store, instance: dg.DagsterInstance, figures: Figures
) -> Plan:
    """Raises PlanError where measured shares are asked for and there are none."""
    specs = [StageSpec(**entry) for entry in bundled()["stages"]]
    latest = {spec.asset: latest_metadata(instance, spec.asset) for spec in specs}
    found = {spec.asset: measure(spec, latest, object_sizes(store, spec)) for spec in specs}
    counts, said = _shares(request.yields, latest)
    funnel = funnel_of(request.urls, counts)
    machines = machine_classes(settings)
    device = _device(settings, found)
    stages, notes = [], [said]
    for spec in specs:
        machine = machines.get(spec.asset, CPU)
        speed = _speed(spec, found[spec.asset], machine, settings, device, request, figures)
        stages.append(stage_plan(spec, speed, machine, funnel, found, figures))
        notes += _said_of(spec, found[spec.asset], speed, machine, device)
    if request.variants:
        trained = latest_metadata(instance, _FLIP)
        speed = _flip_speed(trained, request, device, figures)
        pairs = funnel["released"] * (1 - settings.validation_share - settings.test_share)
        crops = found["face_crops"].bytes_per_row
        crop_bytes = None if crops is None else crops * funnel["crops"]
        epochs = figures["flip.epochs"]
        stages.append(flip_plan(speed, EIGHT_A100, pairs, epochs, request.variants, crop_bytes, figures))
        notes.append(_said_of_flip(speed, settings))
    notes += _general({machine.name for machine in machines.values()} | {EIGHT_A100.name}, figures)
    return Plan(request.urls, figures.currency, funnel, stages, [*notes, *_said_of_figures(figures)])


def machine_classes(settings: Settings) -> dict[str, Compute]:
    """Asset → the class of machine that its tags name."""
    from facecaption_assets.definitions import build_definitions

    classes = {item.name: item for item in vars(compute).values() if isinstance(item, Compute)}
    found = {}
    for asset in build_definitions(settings).assets or ():
        if isinstance(asset, dg.AssetsDefinition) and asset.op.tags.get("facecaption/compute") in classes:
            for key in asset.keys:
                found[key.to_user_string()] = classes[asset.op.tags["facecaption/compute"]]
    return found


def _shares(wanted: Yields | None, latest: Mapping[str, Latest]) -> tuple[Mapping[str, float], str]:
    paper = bundled()["paper"]
    measured = None if wanted == "paper" else measured_funnel(latest)
    if measured is None and wanted == "measured":
        raise PlanError("--yields measured: no finished shard has a released face; use --yields paper")
    if measured is None:
        return paper, f"shares that come through: {paper['origin']}"
    source = latest["source_manifest"].get("", {}).get("source", "")
    return measured, (
        f"shares that come through: as in this installation's finished shards, {measured['urls']:,.0f} URLs to "
        f"{measured['released']:,.0f} released faces"
        + (", of the drawn sample world: use --yields paper for the web's" if source == "sample" else "")
    )


def _device(settings: Settings, found: Mapping[str, Measured]) -> str:
    """Where this installation's models have run: as its shards say, else as the settings do."""
    devices = {measured.device for measured in found.values() if measured.device}
    if len(devices) == 1:
        return devices.pop()
    if settings.device == "cpu" or devices:
        return "cpu"
    from facecaption_ml.devices import resolve_device

    return resolve_device(settings.device, settings.threads)


def _speed(
    spec: StageSpec,
    measured: Measured,
    machine: Compute,
    settings: Settings,
    device: str,
    request: Request,
    figures: Figures,
) -> Speed:
    own = Speed(measured.rows_per_second, f"{measured.shards} shards" if not spec.one_step else "one step")
    elsewhere = spec.asset == "llm_captions" and settings.llm_backend in ("endpoint", "none")
    on_its_machine = not machine.gpus or (device == "cuda" and not elsewhere)
    if own.rows_per_second and (on_its_machine or request.as_measured):
        return own
    reference = gpu_speed(spec, machine, figures) if machine.gpus else None
    return Speed(reference, "reference" if reference else NOT_MEASURED)


def _said_of(spec: StageSpec, measured: Measured, speed: Speed, machine: Compute, device: str) -> list[str]:
    name, own = spec.asset, measured.rows_per_second
    said = []
    if speed.origin == NOT_MEASURED:
        said.append(f"{name}: no materialisation here has its time and there is no reference: not in the totals")
    elif speed.origin == "reference":
        why = f"ran at {own:,.1f} rows/s here, on no GPU of its own ({device})" if own else "has not run here"
        said.append(f"{name}: {why}, so the reference speed is taken (--as-measured: what was measured)")
    elif machine.gpus and device != "cuda":
        said.append(
            f"{name}: --as-measured, so a {device}'s {own:,.1f} rows/s stand for a machine with {machine.gpus} A100"
        )
    else:
        said.append(f"{name}: {own:,.1f} rows/s here stand for one machine of the class {machine.name}")
    if measured.taken_over:
        said.append(
            f"{name}: {measured.taken_over} shards are not counted, their answers were kept from an earlier run"
        )
    if measured.bytes_per_row is None:
        said.append(f"{name}: nothing stored here to measure bytes by: storage and requests not in the totals")
    return said


def _flip_speed(trained: Latest, request: Request, device: str, figures: Figures) -> Speed:
    """Pairs a second of a machine with eight A100s."""
    for metadata in trained.values():
        pairs = metadata.get("pairs per second")
        on_gpus = device == "cuda" and metadata.get("preset") == _FLIP_PRESET
        if isinstance(pairs, int | float) and (request.as_measured or on_gpus):
            return Speed(float(pairs), f"{len(trained)} trainings")
    alone = figures["reference.h200.flip_base"] * figures["factor.a100"]
    return Speed(EIGHT_A100.gpus * alone * figures["flip.scaling"], "reference")


def _said_of_flip(speed: Speed, settings: Settings) -> str:
    pairs = (
        "every epoch has the training split's pairs: released faces without "
        f"{settings.validation_share + settings.test_share:.0%} of them"
    )
    if speed.origin == "reference":
        return f"{_FLIP}: preset {_FLIP_PRESET} at the reference speed, whatever FACECAPTION_FLIP_PRESET is; {pairs}"
    return (
        f"{_FLIP}: {speed.rows_per_second:,.1f} pairs/s here stand for one machine with {EIGHT_A100.gpus} A100; {pairs}"
    )


def _general(machines: set[str], figures: Figures) -> list[str]:
    unpriced = sorted(name for name in machines if f"price.{name}" not in figures)
    return [
        "each stage begins when the one before it has ended; machines are paid while they work and not while they wait",
        f"of each stage, the newest {MOST_RECORDS:,} materialisations are looked at",
        "a speed over few rows is low, since it includes what a run does once (loading, connecting): measure on whole shards",
        "bytes a row are those of the objects in this store; pictures of another list may be larger",
        "how fast pictures arrive depends on the network and on other people's servers: measure it on a shard of your own list",
        *(f"no price for machines of the class {name}: their cost is not in the totals" for name in unpriced),
        _LEFT_OUT,
    ]


def _said_of_figures(figures: Figures) -> list[str]:
    return [
        f"{name} = {figure.value:,.10g} {figure.unit} ({', '.join(filter(None, (figure.origin, figure.date)))})"
        for name, figure in figures.used().items()
    ]
