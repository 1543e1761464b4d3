"""From a list of URLs to raw images."""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import dagster as dg
import polars as pl

from facecaption_assets.checks import tables as checks
from facecaption_assets.factories import previews, sheets
from facecaption_assets.factories.asset import configured_asset
from facecaption_assets.factories.progress import Progress, logger
from facecaption_assets.factories.records import note_source_rows
from facecaption_assets.factories.shards import ShardFunction, ShardResult, ShardWork, shard_asset
from facecaption_assets.machines.compute import CPU, DOWNLOAD
from facecaption_assets.partitions import REFETCH_TAG, SHARDS
from facecaption_assets.resources.data import SAMPLE, removals
from facecaption_assets.resources.manifests import SourceConfig, ingest_further, previous_data_version
from facecaption_assets.settings import PREFIX, Settings
from facecaption_ml.dataset.ingest import Ingested, ingest, reading_lists
from facecaption_ml.dataset.provenance import package_version
from facecaption_ml.dataset.sources import ManifestCounts
from facecaption_ml.errors import naming
from facecaption_ml.images import (
    EarlierRows,
    FetchStatus,
    count_by_status,
    fetch_status,
    fetch_to_file,
    keeps_its_pictures,
    success_rate,
)
from facecaption_ml.schemas import SCHEMAS, SOURCE, empty
from facecaption_ml.storage.content import table_version
from facecaption_ml.storage.lease import Check
from facecaption_ml.storage.store import Store
from facecaption_ml.storage.table_file import TableFile

GROUP = "source"
_SHEET_PICTURES: Final = 8
_FAILURES: Final = 8


def source_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """``source_manifest`` and ``raw_images``."""
    return [_source_manifest(settings), _raw_images(settings)]


def _world(settings: Settings) -> tuple[str, ...]:
    """What the sample world is drawn by, where it is the source."""
    return ("sample.scenes", "seed") if settings.source.location == SAMPLE else ()


def _source_manifest(settings: Settings) -> dg.AssetsDefinition:
    @configured_asset(
        settings,
        CPU,
        team="data",
        code_version="1",
        reads=("source.location", "source.columns", "source.rules", "source.shards", *_world(settings)),
        checks=checks.SOURCE_MANIFEST,
        resources=["source"],
        table="source_manifest",
        group_name=GROUP,
        kinds={"polars", "parquet"},
    )
    def source_manifest(context: dg.AssetExecutionContext, config: SourceConfig) -> dg.MaterializeResult:
        """The list of images to fetch, in shards.

        Reads a LAION-Face style table (Parquet, CSV, TSV, JSONL, a list of URLs; local or S3), a folder of pictures, with or
        without a table that names them, or the sample world; counts its rows on another way than it reads them;
        leaves out NSFW rows unless allowed; marks URLs that occur more than once; registers the shards as partitions.
        With a manifest in the run's config, that one's shards are added after the last.
        """
        store: Store = context.resources.store.open()
        with naming(f"{PREFIX}STORE"):
            store.check_writable()
        # Shards are numbered, written and registered by one process at a time; a removal waits for that too.
        with reading_lists(store, on_wait=context.log.info) as still_alone:
            return _read_lists(context, settings, store, config, still_alone)

    return source_manifest


def _read_lists(
    context: dg.AssetExecutionContext, settings: Settings, store: Store, config: SourceConfig, still_alone: Check
) -> dg.MaterializeResult:
    """The shards of the source, or of one more manifest; ``still_alone`` is called after each."""
    if config.manifest:
        ingested = ingest_further(store, settings, context.resources.source, context.instance, config, still_alone)
        first = ingested.names[0] if ingested.names else "none"
        metadata = {"manifest": config.manifest, "first shard": first}
        if ingested.known:
            metadata["same content as"] = ingested.known.location
        # The shards that there were have not changed: what was made from them is not out of date.
        before = previous_data_version(context.instance) or _content(_rows(store, ingested.ledger.names))
        note_source_rows(context.instance, _rows(store, ingested.names))
        return _result(store, ingested, metadata, before)
    counts, shown = ManifestCounts(), Progress("source_manifest", "rows written")

    def progress(rows: int, total: int) -> None:
        still_alone()
        shown(rows, total)

    batches = context.resources.source.batches(counts)
    with naming(f"{PREFIX}SOURCE"):
        ingested = ingest(batches, store, settings.source.shards, progress, removed=removals(settings), counts=counts)
    _register(context.instance, store, [*ingested.names, *ingested.ledger.names])
    rows = _rows(store, ingested.names)
    note_source_rows(context.instance, rows)
    return _result(store, ingested, {"source": settings.source.location}, _content(rows))


def _result(
    store: Store, ingested: Ingested, metadata: Mapping[str, str], data_version: dg.DataVersion | None = None
) -> dg.MaterializeResult:
    counts, rows = ingested.counts, ingested.rows
    for line in counts.lines():
        logger.warning("source_manifest: %s", line)
    entered = counts.rows if counts.records is None else counts.records
    conserved = checks.conserved("rows_conserved", entered, rows, counts.dropped, "rows of the source")
    complete = conserved.passed and rows == counts.by_outcome["kept"]
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": rows,
            "dagster/uri": store.uri("source_manifest"),
            "shards": len(ingested.names),
            **previews.counts("rows", counts.by_outcome),
            "duplicate URLs": counts.duplicates,
            "removed on request": ingested.removed_rows,
            **_reading(counts),
            "facecaption": package_version(),
            **metadata,
        },
        data_version=data_version,
        check_results=[replace(conserved, passed=complete).result()],
    )


def _reading(counts: ManifestCounts) -> dict[str, Any]:
    """How the files of the source were read: what was dropped, mended and passed over, with examples."""
    metadata: dict[str, Any] = {"files read": counts.files, **previews.counts("repaired", counts.repaired)}
    if counts.continued_lines:
        metadata["lines within quoted fields"] = counts.continued_lines
    for name, examples in (("dropped rows", counts.dropped_examples), ("repaired rows", counts.repaired_examples)):
        if examples:
            # What the rows hold stays in the file: nobody could take it back out of the event log.
            metadata[name] = previews.rows(["file", "place", "reason"], [example[:3] for example in examples])
    if counts.passed_over:
        kinds = [
            (kind, count, ", ".join(counts.passed_over_examples[kind])) for kind, count in counts.passed_over.items()
        ]
        metadata["files passed over"] = previews.rows(["kind", "files", "such as"], sorted(kinds))
    if counts.notes:
        metadata["notes"] = "; ".join(counts.notes[:20])
    return metadata


def _rows(store: Store, names: Sequence[str]) -> dict[str, str]:
    """The version of each shard's rows, so that only shards whose rows have changed are made again."""
    return {name: table_version(store, SOURCE, name, columns=SCHEMAS[SOURCE]) for name in names}


def _content(rows: Mapping[str, str]) -> dg.DataVersion:
    """Of the source's shards, so that a source that was read again without a change makes nothing stale."""
    lines = "".join(f"{name} {version}\n" for name, version in rows.items())
    return dg.DataVersion(hashlib.sha256(lines.encode()).hexdigest()[:16])


def _register(instance: dg.DagsterInstance, store: Store, names: list[str]) -> None:
    """The partitions become the manifests' shards; those of an earlier, longer source go."""
    assert SHARDS.name
    present = set(instance.get_dynamic_partitions(SHARDS.name))
    gone = sorted(present - set(names))
    for name in gone:
        instance.delete_dynamic_partition(SHARDS.name, name)
        store.delete(store.table_key("source_manifest", name))
    if gone:
        logger.info(
            "source_manifest: gone from the source: %s; the partitions are removed, and their tables take part in nothing and "
            "stay until `facecaption clean`",
            gone[0] if len(gone) == 1 else f"{len(gone):,} shards, {gone[0]} to {gone[-1]}",
        )
    instance.add_dynamic_partitions(SHARDS.name, names)


def _raw_images(settings: Settings) -> dg.AssetsDefinition:
    return shard_asset(
        name="raw_images",
        open_work=_open_download,
        deps=["source_manifest"],
        checks=checks.RAW_IMAGES,
        group=GROUP,
        kinds={"python", "parquet"},
        description=(
            "Every URL of the shard fetched, or the reason why not. Running a shard again fetches only rows whose failure "
            "may pass (DNS, time-outs, 5xx) or was due to a setting that has changed since, and files that were replaced; with "
            f"the tag {REFETCH_TAG}, also rows of the statuses that it names. A shard whose success rate is under "
            "FACECAPTION_SUCCESS_FLOOR does not count as done."
        ),
        code_version="1",
        reads=("download", "source.success_floor", *_world(settings)),
        compute=DOWNLOAD,
        settings=settings,
        required_resources={"downloader"},
    )


@contextlib.contextmanager
def _open_download(work: ShardWork) -> Iterator[ShardFunction]:
    refetch = _statuses_of(work.context.run.tags.get(REFETCH_TAG, ""))
    with work.context.resources.downloader.session(refetch) as (policy, context):

        def fetch(shard: str) -> ShardResult:
            manifest = work.store.read_table("source_manifest", shard)
            progress = Progress(f"raw_images {shard}", "URLs")
            was_done = work.store.has_table("raw_images", shard)
            with _previous(work.store, shard) as previous:
                denied = work.context.resources.downloader.denied()
                today = replace(context, denied=denied)
                raw, facts = fetch_to_file(manifest, policy, today, previous, progress)
                # Else a shard that loses pictures to a removal falls under its floor, and its old table, with them, stays.
                stays_done = was_done and previous is not None and keeps_its_pictures(facts, previous.facts)
            rate = success_rate(facts)
            floor = work.settings.source.success_floor
            reason = f"only {rate:.1%} of the images arrived; the floor is {floor:.0%} (FACECAPTION_SUCCESS_FLOOR)"
            return ShardResult(
                frame=raw,
                metadata=_download_metadata(raw, facts, rate),
                checks=[
                    checks.rows_conserved(manifest, facts),
                    checks.failures_explained(facts),
                    checks.unique(facts.filter(pl.col("status") == "ok"), "sha256", "unique_images"),
                    checks.denials_honoured(facts, denied),
                ],
                rejected=reason if rate < floor and not stays_done else None,
            )

        yield fetch


def _statuses_of(tag: str) -> frozenset[FetchStatus]:
    """The statuses that a run's tag names. Raises FaceCaptionError for one that there is not."""
    names = [name.strip() for name in tag.split(",") if name.strip()]
    return frozenset(fetch_status(name, f"tag {REFETCH_TAG}") for name in names)


@contextlib.contextmanager
def _previous(store: Store, shard: str) -> Iterator[EarlierRows | None]:
    """The rows of an earlier run of the shard, done or not."""
    for incomplete in (False, True):
        if store.has_table("raw_images", shard, incomplete=incomplete):
            with store.open_table("raw_images", shard, incomplete=incomplete) as parquet:
                yield EarlierRows.of_file(parquet)
            return
    yield None


def _first_pictures(raw: TableFile) -> pl.DataFrame:
    """The first rows with a picture, for a sheet; reads no more of the table than it takes to find them."""
    found = [empty("raw_images")]
    for batch in raw.batches():
        found.append(batch.filter(pl.col("status") == "ok").head(_SHEET_PICTURES - sum(map(len, found))))
        if sum(map(len, found)) == _SHEET_PICTURES:
            break
    return pl.concat(found)


def _download_metadata(raw: TableFile, facts: pl.DataFrame, rate: float) -> dict[str, Any]:
    fetched = facts.filter(pl.col("status") == "ok")
    pictures: dict[str, Any] = {}
    if len(fetched):
        sides = fetched.select(pl.min_horizontal("width", "height")).to_series().to_numpy()
        pictures = {
            "sizes": previews.spread(sides, "px, shorter side", "sizes of the pictures"),
            "pictures": sheets.picture_sheet(_first_pictures(raw), "pictures as fetched"),
        }
    metadata: dict[str, Any] = {
        **pictures,
        "success rate": round(rate, 4),
        **previews.counts("status", count_by_status(facts)),
        "megabytes": round(float(fetched["image_bytes"].sum()) / 1e6, 1),
    }
    failures = facts.filter(pl.col("status") != "ok").select("status", "url", "error").head(_FAILURES)
    if len(failures):
        metadata["failures"] = previews.rows(["status", "URL", "reason"], list(failures.iter_rows()))
    return {**metadata, "facecaption": package_version()}
