"""``facecaption trace``: a face back to its URL, with the versions of everything that made it what it is."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click
import dagster as dg

from facecaption_assets.commands.instance import prepare_home
from facecaption_assets.settings import Settings
from facecaption_ml.dataset.provenance import Step, faces_of, find_shard, package_version, parse_id, trail
from facecaption_ml.dataset.removals import RemovalList
from facecaption_ml.schemas import DATASET, SHARD_TABLES
from facecaption_ml.storage.store import Store
from facecaption_ml.taxonomy import ATTRIBUTES

# What a person wants to know of each table's row, and of the run that wrote it.
_SHOWN: Final[Mapping[str, tuple[str, ...]]] = {
    "facecaption_dataset": ("caption", "split", "url", "box", "labels"),
    "llm_captions": ("caption_source", "model", "prompt_version", "attempts", "reason", "missing", "invented"),
    "template_captions": ("template_caption", "gender"),
    "face_attributes": ("labels", "gender", "dropped_conflicts"),
    "face_crops": ("score", "box", "landmarks", "roll_degrees", "width", "height", "bytes"),
    "raw_images": ("url", "status", "error", "fetched_at", "sha256", "attempts", "width", "height", "bytes"),
    "source_manifest": ("url", "alt_text", "nsfw", "width", "height", "duplicate_url"),
}
_RECORDED: Final = (
    "grammar version", "seed", "predictor", "detector weights", "model", "prompt version", "guided decoding", "facecaption",
    "device", "source", "version", "trained on",
)  # fmt: skip
_UNPARTITIONED: Final = ("source_manifest", "attribute_model")
_SHORT: Final = 12  # characters of a data version on the terminal; the JSON has all


@dataclass(frozen=True)
class Made:
    """How the table of a face came to be, as Dagster recorded it; None throughout where it has no record."""

    at: str | None = None
    run_id: str | None = None
    code_version: str | None = None
    data_version: str | None = None
    recorded: Mapping[str, Any] | None = None
    counts: Mapping[str, int] | None = None


def trace_face(settings: Settings, text: str, as_json: bool) -> None:
    """Print the way of a face, or of every face of a picture, from the released row back to the source row.

    Raises UnknownFaceError for an id that is malformed or nowhere, StoreError where the store cannot be read.
    """
    sample_id, face_id = parse_id(text)
    store = Store(settings.store_root, settings.storage_options)
    shard = find_shard(store, sample_id, face_id)
    prepare_home(settings)
    faces: Sequence[str | None] = [face_id] if face_id else faces_of(store, shard, sample_id) or [None]
    with dg.DagsterInstance.get() as instance:
        made = {step: latest(instance, step, shard) for step in (*SHARD_TABLES, "attribute_model")}
    if not face_id:
        click.echo(f"{sample_id} is a picture: {len(list(filter(None, faces)))} kept faces", err=True)
    for face in faces:
        record = _record(settings, trail(store, shard, sample_id, face), made, shard, sample_id, face)
        click.echo(json.dumps(record, ensure_ascii=False, default=str) if as_json else "\n".join(_lines(record)))


def latest(instance: dg.DagsterInstance, asset: str, shard: str) -> Made:
    """The newest materialisation of an asset, of the shard where it is made by shard."""
    partitions = None if asset in _UNPARTITIONED else [shard]
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=partitions), limit=1
    ).records
    if not records or records[0].asset_materialization is None:
        return Made()
    record, found = records[0], records[0].asset_materialization
    tags = found.tags or {}
    metadata = {name: value.value for name, value in found.metadata.items()}
    return Made(
        datetime.datetime.fromtimestamp(record.timestamp, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        record.run_id,
        tags.get("dagster/code_version"),
        tags.get("dagster/data_version"),
        {name: metadata[name] for name in _RECORDED if name in metadata},
        {name: value for name, value in metadata.items() if name.startswith("faces: ") and isinstance(value, int)},
    )


def _record(
    settings: Settings,
    steps: Sequence[Step],
    made: Mapping[str, Made],
    shard: str,
    sample_id: str,
    face_id: str | None,
) -> dict[str, Any]:
    end = _end(settings, steps, made, face_id)
    lacking = [step.table for step in steps if step.row is None]
    stages = [_stage(settings, step, made, ends_here=step.table in lacking[:1]) for step in reversed(steps)]
    return {
        "face_id": face_id,
        "sample_id": sample_id,
        "shard": shard,
        "outcome": _released(lacking) if end is None else f"not released: {end}",
        "traced_with": {"facecaption": package_version()},
        "stages": stages,
    }


def _released(lacking: Sequence[str]) -> str:
    if not lacking:
        return "released"
    return f"released, but {lacking[0]} has no row of it any more: materialise facecaption_dataset of this shard again"


def _stage(settings: Settings, step: Step, made: Mapping[str, Made], ends_here: bool) -> dict[str, Any]:
    how, row = made[step.table], step.row
    facts: dict[str, Any] = {}
    if row is not None:
        facts = {name: row[name] for name in _SHOWN[step.table] if row.get(name) is not None}
    if row is not None and step.table == "face_attributes":
        likely = {name: round(row[name], 4) for name in ATTRIBUTES if row[name] > settings.attribute_threshold}
        facts["probabilities"] = likely
        facts["attribute_model"] = dict(made["attribute_model"].recorded or {})
    return {
        "asset": step.table,
        "row": row is not None,
        "facts": facts,
        "recorded": dict(how.recorded or {}),
        "materialised": how.at,
        "run_id": how.run_id,
        "code_version": how.code_version,
        "data_version": how.data_version,
        "note": None if row is not None else _note(step, ends_here),
    }


def _note(step: Step, ends_here: bool) -> str:
    if not step.has_shard:
        return "this shard is not materialised"
    return "no row of it here" if ends_here else "not reached"


def _end(settings: Settings, steps: Sequence[Step], made: Mapping[str, Made], face_id: str | None) -> str | None:
    """Why a face is not released: what the first table without it knows. None where the last table has it."""
    if steps[-1].row is not None:
        return None
    by_table = {step.table: step for step in steps}
    raw = by_table["raw_images"].row
    if raw is not None and raw["status"] != "ok":
        return f"the picture was not kept: {raw['status']}, {raw['error']}"
    lacking = next(step for step in steps if step.row is None)
    if not lacking.has_shard:
        return f"{lacking.table} of this shard is not there yet"
    if lacking.table == DATASET:
        return _removed(settings, raw, face_id)
    if face_id is None:
        return "no face of the picture was kept" + _reasons(made["face_crops"])
    return f"{lacking.table} has no row of it" + _reasons(made[lacking.table])


def _removed(settings: Settings, raw: Mapping[str, Any] | None, face_id: str | None) -> str:
    removals = RemovalList.read(settings.removal_list, settings.storage_options)
    reason = removals.reason(raw["url"], face_id, raw["sha256"]) if raw and face_id else None
    listed = f"the removal list names it ({reason})" if reason else "the removal list of now does not name it"
    return f"facecaption_dataset has no row of it: {listed}"


def _reasons(made: Made) -> str:
    dropped = {
        name.removeprefix("faces: "): count
        for name, count in (made.counts or {}).items()
        if count and name not in ("faces: kept", "faces: released")
    }
    if not dropped:
        return ""
    if len(dropped) == 1:
        return f": dropped as {next(iter(dropped))}, the only reason in this shard"
    counts = ", ".join(f"{reason} {count}" for reason, count in dropped.items())
    return f": dropped or never found; this shard's reasons are {counts}, and no table keeps them by face"


def _lines(record: Mapping[str, Any]) -> Iterator[str]:
    name = record["face_id"] or record["sample_id"]
    yield f"{name} · {record['shard']} · {record['outcome']} · traced with facecaption {package_version()}"
    for depth, stage in enumerate(record["stages"]):
        indent = "   " * depth
        made = stage["materialised"] or "no record of its materialisation"
        versions = [f"{word} {stage[key][:length]}" for word, key, length in _VERSIONS if stage[key]]
        yield f"{indent}└─ {stage['asset']}   {' · '.join([made, *versions])}"
        yield from (f"{indent}     {key}: {_text(value)}" for key, value in stage["facts"].items())
        if stage["recorded"]:
            yield f"{indent}     by: {_text(stage['recorded'])}"
        if stage["note"]:
            yield f"{indent}     {stage['note']}"


_VERSIONS: Final = (("run", "run_id", None), ("code", "code_version", None), ("data", "data_version", _SHORT))


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    return str(value)
