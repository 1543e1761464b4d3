"""``facecaption trace``: a face back to its URL, with the versions of everything that made it what it is."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click
import dagster as dg

from facecaption_assets.commands.instance import prepare_home
from facecaption_assets.settings import Settings
from facecaption_ml.dataset.provenance import Step, faces_of, find_shard, package_version, parse_id, trail
from facecaption_ml.dataset.removals import RemovalList
from facecaption_ml.schemas import DATASET, SHARD_TABLES
from facecaption_ml.taxonomy import ATTRIBUTES

# What a person wants to know of each table's row, and of the run that wrote it.
_SHOWN: Final[Mapping[str, tuple[str, ...]]] = {
    DATASET: ("caption", "caption_source", "caption_model", "split", "url", "box", "labels"),
    "llm_captions": ("caption_source", "model", "prompt_version", "attempts", "reason", "missing", "invented"),
    "template_captions": ("template_caption", "gender"),
    "face_attributes": ("labels", "gender", "dropped_conflicts"),
    "face_crops": ("score", "box", "landmarks", "roll_degrees", "width", "height", "bytes"),
    "raw_images": ("url", "status", "error", "fetched_at", "sha256", "attempts", "width", "height", "bytes"),
    "source_manifest": ("url", "alt_text", "nsfw", "width", "height", "duplicate_url"),
}
_RECORDED: Final = (
    "grammar version", "seed", "label rule", "predictor", "detector weights", "model", "prompt version", "guided decoding",
    "facecaption", "device", "source", "version", "trained on",
)  # fmt: skip
_UNPARTITIONED: Final = ("source_manifest", "attribute_model")
_UI: Final = "http://127.0.0.1:3000"  # where `facecaption ui` listens unless told otherwise
_SHORT: Final = 12  # characters of a data version on the terminal; the JSON has all


def trace_face(settings: Settings, text: str, as_json: bool) -> None:
    """Print the way of a face, or of every face of a picture, from the released row back to the source row.

    Raises UnknownFaceError for an id that is malformed or nowhere, StoreError where the store cannot be read.
    """
    sample_id, face_id = parse_id(text)
    store = settings.open_store()
    shard = find_shard(store, sample_id, face_id)
    prepare_home(settings)
    faces: list[str | None] = [face_id] if face_id else [*faces_of(store, shard, sample_id)]
    with dg.DagsterInstance.get() as instance:
        made = {asset: _latest(instance, asset, shard) for asset in (*SHARD_TABLES, "attribute_model")}
    if not face_id:
        click.echo(f"{sample_id} is a picture: {len(faces)} kept faces", err=True)
    for face in faces or [None]:
        steps = trail(store, shard, sample_id, face)
        end = next((step for step in steps if step.row is None), None)
        record = {
            "face_id": face,
            "sample_id": sample_id,
            "shard": shard,
            "outcome": _outcome(settings, steps, end, made, face),
            "traced_with": {"facecaption": package_version()},
            "stages": [_stage(step, step is end, made) for step in reversed(steps)],  # back to the source row
        }
        lines = _lines(record, settings.automation.ui_url)
        click.echo(json.dumps(record, ensure_ascii=False, default=str) if as_json else "\n".join(lines))


def _latest(instance: dg.DagsterInstance, asset: str, shard: str) -> dict[str, Any]:
    """Metadata of the newest materialization of an asset, of the shard where it is made by shard, and its versions."""
    partitions = None if asset in _UNPARTITIONED else [shard]
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=partitions)
    for record in instance.fetch_materializations(wanted, limit=1).records:
        if materialization := record.asset_materialization:
            tags = materialization.tags or {}
            made_at = datetime.datetime.fromtimestamp(record.timestamp, datetime.UTC)
            return {
                **{name: value.value for name, value in materialization.metadata.items()},
                "materialized": made_at.strftime("%Y-%m-%d %H:%M:%S UTC"),
                "run_id": record.run_id,
                "code_version": tags.get("dagster/code_version"),
                "data_version": tags.get("dagster/data_version"),
            }
    return {}


def _stage(step: Step, is_end: bool, made: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What is shown of a table. ``is_end``: it is the first without the face."""
    recorded = {asset: {name: made[asset][name] for name in _RECORDED if name in made[asset]} for asset in made}
    row, facts, note = step.row, {}, None
    if row is None:
        note = "this shard is not materialized"
        if step.has_shard:
            note = "no row of it here" if is_end else "not reached"
    else:
        facts = {name: row[name] for name in _SHOWN[step.table] if row.get(name) is not None}
        if step.table == "face_attributes":
            gender = ["Male"] if row["gender"] else []
            exceeding = {*row["labels"], *row["dropped_conflicts"], *gender}
            facts["probabilities"] = {name: round(row[name], 4) for name in ATTRIBUTES if name in exceeding}
            facts["attribute_model"] = recorded["attribute_model"]
    return {
        "asset": step.table,
        "row": row is not None,
        "facts": facts,
        "recorded": recorded[step.table],
        **{name: made[step.table].get(name) for name in ("materialized", "run_id", "code_version", "data_version")},
        "note": note,
    }


def _outcome(
    settings: Settings,
    steps: Sequence[Step],
    lacking: Step | None,
    made: Mapping[str, Mapping[str, Any]],
    face_id: str | None,
) -> str:
    """Whether the face is released; if not, what the first table without it knows of the reason."""
    if lacking is None:
        return "released"
    if steps[-1].row is not None:
        again = "materialize facecaption_dataset of this shard again"
        return f"released, but {lacking.table} has no row of it any more: {again}"
    raw = next(step.row for step in steps if step.table == "raw_images")
    reason = f"{lacking.table} has no row of it"
    if raw is not None and raw["status"] != "ok":
        reason = f"the picture was not kept: {raw['status']}, {raw['error']}"
    elif not lacking.has_shard:
        reason = f"{lacking.table} of this shard is not there yet"
    elif lacking.table == DATASET:
        removals = RemovalList.read(settings.release.removal_list, settings.storage.options)
        listed = removals.reason(raw["url"], face_id, raw["sha256"]) if raw and face_id else None
        reason += f": the removal list names it ({listed})" if listed else ": the removal list of now does not name it"
    elif face_id is None:
        reason = f"no face of the picture was kept{_drops(made['face_crops'])}"
    else:
        reason += _drops(made[lacking.table])
    return f"not released: {reason}"


def _drops(metadata: Mapping[str, Any]) -> str:
    counts = {
        name.removeprefix("faces: "): count
        for name, count in metadata.items()
        if name.startswith("faces: ") and name not in ("faces: kept", "faces: released") and count
    }
    if len(counts) == 1:
        return f": dropped as {next(iter(counts))}, the only reason in this shard"
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts.items())
    return f": dropped or never found; this shard's reasons are {reasons}, by face none is kept" if counts else ""


def _lines(record: Mapping[str, Any], ui_url: str) -> Iterator[str]:
    """The tree of a record; runs are links where the UI's address is known, and else a last line says how to open one."""
    name = record["face_id"] or record["sample_id"]
    yield f"{name} · {record['shard']} · {record['outcome']} · traced with facecaption {package_version()}"
    for depth, stage in enumerate(record["stages"]):
        indent = "   " * depth
        data_version = (stage["data_version"] or "")[:_SHORT]
        versions = (("run", _link(stage["run_id"], ui_url)), ("code", stage["code_version"]), ("data", data_version))
        made = [stage["materialized"] or "no record of its materialization", *(f"{a} {b}" for a, b in versions if b)]
        yield f"{indent}└─ {stage['asset']}   {' · '.join(made)}"
        yield from (f"{indent}     {key}: {_text(value)}" for key, value in stage["facts"].items())
        if stage["recorded"]:
            yield f"{indent}     by: {_text(stage['recorded'])}"
        if stage["note"]:
            yield f"{indent}     {stage['note']}"

    runs = [stage["run_id"] for stage in record["stages"] if stage["run_id"]]
    if runs and not ui_url:
        yield (
            f"a run's page: `facecaption ui`, then {_UI}/runs/{runs[0]}; with FACECAPTION_UI_URL set to the UI's address, "
            "runs are links here"
        )


def _link(run_id: str | None, ui_url: str) -> str | None:
    return f"{ui_url.rstrip('/')}/runs/{run_id}" if run_id and ui_url else run_id


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    return str(value)
