"""One more manifest becomes shards after the last one, without a change to those that there are."""

from dataclasses import dataclass
from typing import Any

import dagster as dg
from pydantic import Field

from facecaption_assets.factories.progress import Progress, logger
from facecaption_assets.partitions import SHARDS
from facecaption_assets.resources.data import SourceResource
from facecaption_assets.settings import Settings
from facecaption_ml.dataset.manifests import (
    Ledger,
    Manifest,
    TakenIn,
    appended,
    content_digest,
    delete_leftovers,
    known_ids,
    stat_manifest,
)
from facecaption_ml.dataset.sources import ManifestCounts, SourceError, build_shards, read_source
from facecaption_ml.storage.store import Store


class SourceConfig(dg.Config):
    """What a run of ``source_manifest`` reads."""

    manifest: str = Field(
        "", description="file or s3:// address of one more manifest, added after the last shard; '': FACECAPTION_SOURCE"
    )
    version: str = Field("", description="the state of that manifest that is meant; '': as it is now")


@dataclass(frozen=True)
class Intake:
    """What became of a source: its shards, the rows in them, its rows by outcome, and what a person looks at."""

    names: list[str]
    rows: int
    counts: ManifestCounts
    metadata: dict[str, Any]


def take_in(
    store: Store, settings: Settings, source: SourceResource, instance: dg.DagsterInstance, config: SourceConfig
) -> Intake:
    """Write the shards of ``config.manifest``, enter it in the ledger and register all shards of the ledger.

    A manifest that is in the ledger already, or another one with the same content, adds nothing. Raises SourceError where
    the manifest is absent, unusable, not in the state that is meant, or changes while it is read.
    """
    assert SHARDS.name
    options = settings.storage.options
    manifest = stat_manifest(config.manifest, options)
    if config.version and manifest.version != config.version:
        raise SourceError(f"manifest {manifest.location}: it has changed since it was asked for; ask again")
    ledger = Ledger.read(store).begun(store, instance.get_dynamic_partitions(SHARDS.name))
    ledger.write(store)
    counts = ManifestCounts()
    digest = content_digest(manifest)
    rows, names = 0, list[str]()
    known = ledger.find(manifest) or ledger.same_content(digest)
    if not known:
        delete_leftovers(store, ledger)
        rows, names = _write(store, settings, source, manifest, ledger.next_number, counts)
        if not names:
            logger.warning("manifest %s: no usable row among %d", manifest.location, counts.rows)
    if not ledger.find(manifest):
        if stat_manifest(config.manifest, options) != manifest:
            raise SourceError(f"manifest {manifest.location}: it has changed while it was read; run this again")
        ledger = _enter(store, ledger, manifest, digest, len(names), counts.rows)
    instance.add_dynamic_partitions(SHARDS.name, ledger.names)
    metadata = {"manifest": manifest.location, "first shard": names[0] if names else "none"}
    if known:
        metadata["same content as"] = known.location
    return Intake(names, rows, counts, metadata)


def _write(
    store: Store, settings: Settings, source: SourceResource, manifest: Manifest, first: int, counts: ManifestCounts
) -> tuple[int, list[str]]:
    batches = read_source(manifest.location, source.columns, settings.storage.options)
    frames = build_shards(
        batches,
        settings.source.shard_size,
        counts,
        allow_nsfw=settings.source.allow_nsfw,
        nsfw_values=settings.source.nsfw_values,
    )
    progress = Progress(f"source_manifest {manifest.location.rpartition('/')[2]}", "rows written")
    names: list[str] = []
    rows = repeated = 0
    for frame in appended(frames, first, known_ids(store, first)):
        names.append(frame["shard"][0])
        store.write_table("source_manifest", frame, names[-1])
        rows += len(frame)
        repeated += int(frame["duplicate_url"].sum())
        progress(rows, 0)
    counts.duplicates = repeated
    return rows, names


def _enter(store: Store, begun: Ledger, manifest: Manifest, digest: str, shards: int, rows: int) -> Ledger:
    """Raises SourceError where another run has entered a manifest meanwhile: both wrote the same shards."""
    if Ledger.read(store) != begun:
        raise SourceError(f"manifest {manifest.location}: another manifest was taken in meanwhile; run this again")
    first = begun.next_number
    entry = TakenIn(manifest.id, manifest.location, manifest.version, digest, first, shards, rows)
    ledger = begun.with_entry(entry)
    ledger.write(store)
    return ledger


def previous_data_version(instance: dg.DagsterInstance) -> dg.DataVersion | None:
    """The data version of ``source_manifest`` as it stands, or None."""
    event = instance.get_latest_materialization_event(dg.AssetKey("source_manifest"))
    found = event.asset_materialization if event else None
    version = (found.tags or {}).get("dagster/data_version") if found else None
    return dg.DataVersion(version) if version else None
