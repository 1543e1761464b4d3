"""One more manifest becomes shards after the last one, without a change to those that there are."""

import dagster as dg
from pydantic import Field

from facecaption_assets.factories.progress import Progress
from facecaption_assets.partitions import SHARDS
from facecaption_assets.resources.data import SourceResource, removals
from facecaption_assets.settings import Settings
from facecaption_ml.dataset.ingest import Ingested, ingest
from facecaption_ml.dataset.manifests import stat_manifest
from facecaption_ml.dataset.sources import ManifestCounts, SourceError
from facecaption_ml.storage.lease import Check
from facecaption_ml.storage.store import Store


class SourceConfig(dg.Config):
    """What a run of ``source_manifest`` reads."""

    manifest: str = Field(
        "",
        description=(
            "File or s3:// address of one more manifest, added after the last shard; '': FACECAPTION_SOURCE. Thresholds and "
            "all other settings are environment variables of the code location: `facecaption settings` lists them."
        ),
    )
    version: str = Field("", description="The state of that manifest that is meant; '': as it is now.")


def ingest_further(
    store: Store,
    settings: Settings,
    source: SourceResource,
    instance: dg.DagsterInstance,
    config: SourceConfig,
    still_alone: Check,
) -> Ingested:
    """Write the shards of ``config.manifest``, enter it in the ledger and register all shards of the ledger.

    ``still_alone`` is called after each shard, and raises where another process may be at work on them.

    A manifest that is in the ledger already, or another one with the same content, adds nothing. Raises SourceError where
    the manifest is absent, unusable, not in the state that is meant, or changes while it is read.
    """
    assert SHARDS.name
    manifest = stat_manifest(config.manifest, settings.storage.options)
    if config.version and manifest.version != config.version:
        raise SourceError(f"manifest {manifest.location}: it has changed since it was asked for; ask again")
    counts = ManifestCounts()
    shown = Progress(f"source_manifest {manifest.location.rpartition('/')[2]}", "rows written")

    def progress(rows: int, total: int) -> None:
        still_alone()
        shown(rows, total)

    ingested = ingest(
        source.read(manifest.location, counts, pictures=False),
        store,
        settings.source.shards,
        progress,
        manifest,
        registered=instance.get_dynamic_partitions(SHARDS.name),
        options=settings.storage.options,
        removed=removals(settings),
        counts=counts,
    )
    instance.add_dynamic_partitions(SHARDS.name, ingested.ledger.names)
    return ingested


def previous_data_version(instance: dg.DagsterInstance) -> dg.DataVersion | None:
    """The data version of ``source_manifest`` as it stands, or None."""
    event = instance.get_latest_materialization_event(dg.AssetKey("source_manifest"))
    materialization = event.asset_materialization if event else None
    version = (materialization.tags or {}).get("dagster/data_version") if materialization else None
    return dg.DataVersion(version) if version else None
