"""The one way an asset over the whole data set runs.

It reads every finished shard of ``facecaption_dataset``, one batch at a time. Shards that are not there yet are counted and
do not hold it up, neither does a model or folder that cannot be reached: what is missing is said in one line each, in the
metadata, in the log, in a check that warns and in the data card.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import dagster as dg
import polars as pl

from facecaption_assets.factories import previews
from facecaption_assets.factories.asset import configured_asset
from facecaption_assets.factories.check import STORED, Check
from facecaption_assets.factories.dataset_inputs import DatasetInputs
from facecaption_assets.factories.progress import logger
from facecaption_assets.machines.compute import Compute
from facecaption_assets.settings import Settings
from facecaption_ml.schemas import DATASET, Schema
from facecaption_ml.statistics.report import PREFIX, Report, key, write_files
from facecaption_ml.storage.store import Store, StoreError

COMPLETE: Final = "complete"
"""The check of statistics with models or folders that may be missing; it warns."""
_HEADLINES: Final = 5  # numbers that stand behind the figure
_BATCH_ROWS: Final = 10_000  # rows of text, without pixels


@dataclass(frozen=True)
class DatasetWork:
    """What a statistic is given: the finished shards, and how to read them."""

    store: Store
    settings: Settings
    resources: Any
    shards: Sequence[str] = field(default_factory=list)
    missing: Sequence[str] = field(default_factory=list)

    @classmethod
    def open(cls, store: Store, settings: Settings, resources: Any = None) -> "DatasetWork":
        done = store.registered_shards(DATASET)
        return cls(store, settings, resources, done, sorted(set(store.shards("source_manifest")) - set(done)))

    def require_shards(self) -> None:
        """Raises StoreError where no shard is finished: there is nothing to train on."""
        if not self.shards:
            raise StoreError(f"no shard of {DATASET} is there yet: materialize it first")

    @cached_property
    def rows(self) -> int:
        """Rows of all finished shards, by their files' own counts."""
        return sum(self.store.row_count(DATASET, shard) for shard in self.shards)

    def frames(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """The columns of every finished shard, in batches."""
        for shard in self.shards:
            yield from self.store.iter_table(DATASET, shard, columns=columns, batch_rows=_BATCH_ROWS)

    def made_from(self, **more: int | str) -> dict[str, int | str]:
        """What a statistic was made from, for its report."""
        return {
            "rows": self.rows,
            "shards": len(self.shards),
            "missing_shards": len(self.missing),
            "seed": self.settings.seed,
            **more,
        }


Measure = Callable[[DatasetWork], tuple[Report, Sequence[Check]]]


def statistics_asset(
    *,
    name: str,
    measure: Measure,
    schema: Schema,
    checks: Mapping[str, str],
    deps: Sequence[str],
    kinds: set[str],
    description: str,
    code_version: str,
    reads: Collection[str],
    compute: Compute,
    settings: Settings,
    required_resources: Collection[str] = (),
) -> dg.AssetsDefinition:
    """An asset whose numbers and figure lie under ``statistics/<name>/``; ``checks`` maps its checks to descriptions.

    ``schema``: of its main table.
    """

    @configured_asset(
        settings,
        compute,
        team="data",
        code_version=code_version,
        reads=reads,
        checks={**checks, **STORED},
        resources=required_resources,
        defined_by=measure,
        table=name,
        schema=schema,
        name=name,
        deps=list(deps),
        group_name=PREFIX,
        kinds=kinds,
        description=description,
    )
    def asset(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        store: Store = context.resources.store.open()
        work = DatasetWork.open(store, settings, context.resources)
        inputs = DatasetInputs.of(context.instance, work.shards)
        report, measured = measure(work)
        files = report.files(name)
        write_files(store, name, files)
        for note in report.notes:
            logger.warning("%s: %s", name, note)
        inputs.write(store, name)
        return dg.MaterializeResult(
            metadata={**_metadata(store, name, report, files, work), **inputs.metadata},
            data_version=dg.DataVersion(report.version),
            check_results=[check.result() for check in [*measured, _stored(store, name, report)]],
        )

    return asset


def _metadata(store: Store, name: str, report: Report, files: Mapping[str, bytes], work: DatasetWork) -> dict[str, Any]:
    main = next(iter(report.tables.values()))
    metadata: dict[str, Any] = {"dagster/row_count": len(main), "dagster/uri": store.uri(f"{PREFIX}/{name}")}
    if f"{name}.png" in files:
        metadata["figure"] = previews.png(files[f"{name}.png"], report.title)
    metadata |= _headlines(main)
    metadata |= {
        **{words.replace("_", " "): value for words, value in report.made_from.items()},
        "not there yet": ", ".join(work.missing[:20]) or "nothing",
        "notes": " · ".join(report.notes) or "none",
    }
    for table, frame in report.tables.items():
        label = table.replace("_", " ")
        if len(frame) <= previews.MOST_ROWS:
            metadata[label] = previews.rows(frame.columns, list(frame.iter_rows()))
        else:
            metadata[f"{label} ({len(frame):,} rows)"] = dg.MetadataValue.path(store.uri(key(name, f"{table}.parquet")))
    if f"{name}.png" in files:
        metadata["figure as SVG"] = dg.MetadataValue.path(store.uri(key(name, f"{name}.svg")))
    return metadata


def _headlines(main: pl.DataFrame) -> dict[str, float]:
    """The means of the main table by row, as numbers that the UI plots; of several origins, those that were measured."""
    measured = main.filter(pl.col("origin") == "measured") if "origin" in main.columns else main
    means = [name for name in main.columns if name.startswith("mean")]
    named = {
        f"{row[main.columns[0]]}: {name.replace('_', ' ')}": row[name]
        for row in measured.iter_rows(named=True)
        for name in means
        if row[name] is not None
    }
    return {name: round(float(value), 3) for name, value in list(named.items())[:_HEADLINES]}


def complete(notes: Sequence[str]) -> Check:
    """Passes where nothing that was asked for is missing; else it warns, with the lines that say what."""
    return Check.none_listed(
        COMPLETE,
        list(notes),
        well="all models and folders that the settings can name were there",
        ill=f"{len(notes)} missing",
    )


def _stored(store: Store, name: str, report: Report) -> Check:
    wrong = [
        table
        for table, frame in report.tables.items()
        if not pl.read_parquet(store.read_bytes(key(name, f"{table}.parquet"))).equals(frame)
    ]
    return Check.of_each("stored", wrong, len(report.tables), "tables come back from the store as they were written")
