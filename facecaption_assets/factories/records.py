"""What the event log says of a shard: what made it, of what, and which content it has; read back for all shards at once.

Dagster writes one event for each partition of a range when the whole step has succeeded, all with one data version. Here
each shard is recorded by itself as soon as it is done, once, with the version of its own content and those of its inputs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import dagster as dg

# Dagster has no public name for the pointer from a check's result to the materialization that it is about,
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

# nor for the tags by which its UI tells what is out of date,
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    INPUT_DATA_VERSION_TAG_PREFIX,
    NULL_EVENT_POINTER,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

# nor for the metadata with which an output makes no event of its own, since the asset has written its events itself,
from dagster._core.definitions.source_asset import SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION

# nor for what a materialization's entry in the log holds.
from dagster._core.events import StepMaterializationData

from facecaption_assets.partitions import chunks
from facecaption_ml.schemas import SOURCE

NO_EVENT: Final[Mapping[str, Any]] = {SYSTEM_METADATA_KEY_SOURCE_ASSET_OBSERVATION: True}
"""Metadata of a result whose partitions are recorded already."""
FAILURE: Final = "failure"
"""The metadata of an observation that says why a partition failed."""
FAILED_IN: Final = "failed in"
"""The metadata beside it that names the asset in which the shard failed first."""
_CHUNK: Final = 500  # shards of one query
_CACHE: Final = "facecaption/made_of/"
_SOURCE_CACHE: Final = "facecaption/source_rows/"
SOURCE_ROWS: Final = "facecaption/source_rows"
"""The tag of a shard's record that says which rows of the source it was made of, and their name among ``MadeOf.inputs``.

To Dagster the source is one asset; its version moves with every shard of it.
"""
TOKENS: Final = ("prompt tokens", "completion tokens", "tokens of answers from the cache")
DETECTOR_WEIGHTS: Final = "detector weights"
PREDICTOR: Final = "predictor"
"""The metadata that names the version of the network that made a shard of ``face_crops`` or ``face_attributes``."""
COST: Final = "cost with the answers from the cache"
"""With TOKENS the metadata that says what a shard's captions took of a language model."""


@dataclass(frozen=True)
class MadeOf:
    """The latest record of a shard: its number in the log, the versions of code and content, and of each input's content."""

    storage_id: int
    code: str | None = None
    data: str | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)

    def is_older_than(self, now: MadeOf, asset: str) -> bool:
        """Whether ``now``, the present record of its input ``asset``, has other content than this was made of.

        Records without versions count by their order.
        """
        of = self.inputs.get(asset)
        return now.storage_id > self.storage_id if of is None or now.data is None else of != now.data


def latest_of(instance: dg.DagsterInstance, asset: str, shard: str | None = None) -> MadeOf | None:
    """The latest record of an asset without partitions, or of one shard; None where there is none."""
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[shard] if shard else None)
    records = instance.fetch_materializations(wanted, limit=1).records
    return _made_of(records[0]) if records else None


def summed(instance: dg.DagsterInstance, asset: str, shards: Iterable[str], names: Collection[str]) -> dict[str, float]:
    """Numbers of the metadata of the shards' latest records, added up; a name that no record has is not among them."""
    sums: dict[str, float] = {}
    for shard in shards:
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[shard])
        for record in instance.fetch_materializations(wanted, limit=1).records:
            made = record.asset_materialization
            for name in names:
                value = made.metadata.get(name) if made else None
                if value is not None and isinstance(value.value, int | float):
                    sums[name] = sums.get(name, 0) + value.value
    return sums


def told(instance: dg.DagsterInstance, asset: str, shards: Iterable[str], name: str) -> Counter[str]:
    """What the metadata of the shards' latest records says under a name, each text with the number of shards."""
    texts: Counter[str] = Counter()
    for shard in shards:
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[shard])
        for record in instance.fetch_materializations(wanted, limit=1).records:
            made = record.asset_materialization
            value = made.metadata.get(name) if made else None
            if value is not None and isinstance(value.value, str):
                texts[value.value] += 1
    return texts


def input_tags(instance: dg.DagsterInstance, parents: Iterable[dg.AssetKey], shard: str) -> dict[str, str]:
    """The tags that say of which state of its inputs a shard is made: of the same shard, or of the whole asset."""
    tags: dict[str, str] = {}
    for key in sorted(parents):
        of_shard = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[shard])
        records = instance.fetch_materializations(of_shard, limit=1).records
        records = records or instance.fetch_materializations(key, limit=1).records
        latest = records[0] if records and records[0].partition_key in (shard, None) else None
        made = latest.asset_materialization if latest else None
        version = (made.tags or {}).get(DATA_VERSION_TAG) if made else None
        tags[get_input_data_version_tag(key)] = version or DEFAULT_DATA_VERSION.value
        tags[get_input_event_pointer_tag(key)] = str(latest.storage_id) if latest else NULL_EVENT_POINTER
        if key == dg.AssetKey(SOURCE):
            rows = source_rows(instance, [shard])
            tags |= {SOURCE_ROWS: rows[shard]} if rows else {}
    return tags


def version_tags(code: str, content: str, inputs: Mapping[str, str]) -> dict[str, str]:
    """All tags of a shard's record."""
    return {**inputs, CODE_VERSION_TAG: code, DATA_VERSION_TAG: content, DATA_VERSION_IS_USER_PROVIDED_TAG: "true"}


def same_origin(tags: Mapping[str, str], code: str, inputs: Mapping[str, str]) -> bool:
    """Whether a shard with these tags is made by this code of these contents."""
    versions = {name: value for name, value in inputs.items() if name.startswith(INPUT_DATA_VERSION_TAG_PREFIX)}
    return tags.get(CODE_VERSION_TAG) == code and all(tags.get(name) == value for name, value in versions.items())


def about_latest(instance: dg.DagsterInstance, evaluation: dg.AssetCheckEvaluation) -> dg.AssetCheckEvaluation:
    """The evaluation as one of the partition's latest materialization, without which the UI shows it as missing."""
    wanted = dg.AssetRecordsFilter(asset_key=evaluation.asset_key, asset_partitions=[evaluation.partition or ""])
    found = instance.fetch_materializations(wanted, limit=1).records
    latest = found[0] if found else None
    return dg.AssetCheckEvaluation(
        asset_key=evaluation.asset_key,
        check_name=evaluation.check_name,
        passed=evaluation.passed,
        metadata=evaluation.metadata,
        severity=evaluation.severity,
        description=evaluation.description,
        partition=evaluation.partition,
        target_materialization_data=AssetCheckEvaluationTargetMaterializationData(
            storage_id=latest.storage_id, run_id=latest.run_id, timestamp=latest.timestamp
        )
        if latest
        else None,
    )


def made_of(instance: dg.DagsterInstance, asset: str) -> dict[str, MadeOf]:
    """The latest record of every shard of an asset.

    Events hold pictures, and reading those of 5,000 shards takes minutes. So what they say is kept in the instance's storage,
    by ``remember``; only events that nobody has remembered are read, such as those from before an upgrade.
    """
    key, kind = dg.AssetKey(asset), dg.DagsterEventType.ASSET_MATERIALIZATION
    latest = instance.event_log_storage.get_latest_storage_id_by_partition(key, kind)
    found: dict[str, MadeOf] = {}
    for shards in chunks(sorted(latest), _CHUNK):
        kept = _remembered(instance, asset, shards)
        found |= {shard: made for shard, made in kept.items() if made.storage_id == latest[shard]}
    for shards in chunks([shard for shard in sorted(latest) if shard not in found], _CHUNK):
        read = _read(instance, key, {latest[shard]: shard for shard in shards})
        remember(instance, asset, read)
        found |= read
    return found


def remember(instance: dg.DagsterInstance, asset: str, made: Mapping[str, MadeOf]) -> None:
    """Keep the latest records of some shards where ``made_of`` finds them without reading events."""
    values = {
        f"{_CACHE}{asset}/{shard}": json.dumps([one.storage_id, one.code, one.data, one.inputs])
        for shard, one in made.items()
    }
    _keep(instance, values)


def _remembered(instance: dg.DagsterInstance, asset: str, shards: Sequence[str]) -> dict[str, MadeOf]:
    names = {f"{_CACHE}{asset}/{shard}": shard for shard in shards}
    found = instance.daemon_cursor_storage.get_cursor_values(set(names))
    return {names[name]: MadeOf(*json.loads(text)) for name, text in found.items()}


def _read(instance: dg.DagsterInstance, key: dg.AssetKey, shards: Mapping[int, str]) -> dict[str, MadeOf]:
    wanted = dg.AssetRecordsFilter(asset_key=key, storage_ids=list(shards))
    found = {}
    for record in instance.fetch_materializations(wanted, limit=len(shards)).records:
        found[shards[record.storage_id]] = _made_of(record)
    return found


def _made_of(record: dg.EventLogRecord) -> MadeOf:
    event = record.asset_materialization
    tags = (event.tags or {}) if event else {}
    prefix = f"{INPUT_DATA_VERSION_TAG_PREFIX}/"
    inputs = {name.removeprefix(prefix): value for name, value in tags.items() if name.startswith(prefix)}
    inputs |= {SOURCE_ROWS: tags[SOURCE_ROWS]} if SOURCE_ROWS in tags else {}
    return MadeOf(record.storage_id, tags.get(CODE_VERSION_TAG), tags.get(DATA_VERSION_TAG), inputs)


def source_rows(instance: dg.DagsterInstance, shards: Iterable[str]) -> dict[str, str]:
    """The version of the rows that the source has for each shard; without shards of which that was never noted."""
    names = {f"{_SOURCE_CACHE}{shard}": shard for shard in shards}
    found: dict[str, str] = {}
    for chunk in chunks(sorted(names), _CHUNK):
        kept = instance.daemon_cursor_storage.get_cursor_values(set(chunk))
        found |= {names[name]: version for name, version in kept.items()}
    return found


def note_source_rows(instance: dg.DagsterInstance, versions: Mapping[str, str]) -> None:
    """Keep the versions of some shards' rows where ``source_rows`` finds them."""
    _keep(instance, {f"{_SOURCE_CACHE}{shard}": version for shard, version in versions.items()})


def _keep(instance: dg.DagsterInstance, values: Mapping[str, str]) -> None:
    """Dagster's storage takes values under names that are all new or all there already: of a mixture it loses the new ones."""
    storage = instance.daemon_cursor_storage
    for names in chunks(sorted(values), _CHUNK):
        there = storage.get_cursor_values(set(names))
        for part in ([name for name in names if name in there], [name for name in names if name not in there]):
            if part:
                storage.set_cursor_values({name: values[name] for name in part})


def failures_in_run(instance: dg.DagsterInstance, run_id: str, assets: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Shards that have failed in the run in one of these assets: the asset that failed first, and why."""
    keys, failed = [dg.AssetKey(name) for name in assets], dict[str, tuple[str, str]]()
    for entry in instance.all_logs(run_id, of_type={dg.DagsterEventType.ASSET_OBSERVATION}):
        observed = entry.asset_observation
        if observed and observed.asset_key in keys and observed.partition and FAILURE in observed.metadata:
            facts = {
                name: str(value.value) for name, value in observed.metadata.items() if name in (FAILURE, FAILED_IN)
            }
            first = facts.get(FAILED_IN, observed.asset_key.to_user_string())
            failed.setdefault(observed.partition, (first, facts[FAILURE].removeprefix(f"{first} failed: ")))
    return failed


def events_of(instance: dg.DagsterInstance, run_id: str, asset: str) -> dict[str, list[Any]]:
    """The latest materialization of each shard of an asset in a run, and what was evaluated of it, by shard."""
    kinds = {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_CHECK_EVALUATION}
    found: dict[str, list[Any]] = {}
    for entry in instance.all_logs(run_id, of_type=kinds):
        data: Any = entry.get_dagster_event().event_specific_data
        event = data.materialization if isinstance(data, StepMaterializationData) else data
        if event.asset_key == dg.AssetKey(asset) and event.partition:
            found.setdefault(event.partition, []).append(event)
    return {
        shard: events for shard, events in found.items() if any(isinstance(e, dg.AssetMaterialization) for e in events)
    }
