"""The one way a shard asset runs.

A run gets one shard or a range of them. Each shard is computed, checked, written and recorded by itself, once: as soon as it
is done it counts as materialized, whatever happens to the others or to the process. A shard that fails is recorded with its
reason, and so it is in each asset after it; the others go on, in the assets after it too (``executors``). The step fails at
its end, naming the shards, so that a backfill of what is missing takes just those, and a run that is executed again from
its failure takes over what is good.

The record of a shard holds the version of its content, and those of its inputs' contents, so that Dagster shows as stale
what was made of something else, and nothing that was merely made again.
"""

import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import dagster as dg
import polars as pl

from facecaption_assets.factories import records
from facecaption_assets.factories.asset import SETTINGS_USED, configured_asset
from facecaption_assets.factories.check import Check
from facecaption_assets.factories.code_versions import settings_line
from facecaption_assets.factories.missing_inputs import why_missing
from facecaption_assets.factories.progress import logger
from facecaption_assets.machines.compute import Compute
from facecaption_assets.machines.retries import is_transient, retries_left
from facecaption_assets.partitions import RESUME_TAG, SHARD_ASSETS, SHARDS
from facecaption_assets.settings import Settings
from facecaption_ml.errors import describe
from facecaption_ml.storage.content import NOT_CONTENT, content_version, table_version
from facecaption_ml.storage.objects import object_version
from facecaption_ml.storage.store import Store, StoreError
from facecaption_ml.storage.table_file import TableFile

SCHEMA: Final = {"schema": "What the store gives back has the table's columns, their types, and every row written."}
"""The check that every shard asset has, whatever its table."""
_CONTENT: Final = "content version"
_RESULT: Final = "result"  # Dagster's name of an asset's own output


@dataclass(frozen=True)
class ShardResult:
    """A shard's table, what a person looks at, and what the checks found.

    A TableFile is for a table that memory should not hold; it is gone once it is written.
    ``rejected`` says why the shard does not count as done although it has rows; they are kept apart for the next try.
    ``notes`` go into the Parquet file's metadata, for whoever reads the table.
    """

    frame: pl.DataFrame | TableFile
    metadata: Mapping[str, Any]
    checks: Sequence[Check]
    rejected: str | None = None
    notes: Mapping[str, str] | None = None


@dataclass(frozen=True)
class ShardWork:
    """What a shard asset is given for a whole run."""

    store: Store
    settings: Settings
    context: dg.AssetExecutionContext


ShardFunction = Callable[[str], ShardResult]
ShardOpener = Callable[[ShardWork], AbstractContextManager[ShardFunction]]


def shard_asset(
    *,
    name: str,
    open_work: ShardOpener,
    deps: Sequence[str],
    checks: Mapping[str, str],
    group: str,
    kinds: set[str],
    description: str,
    code_version: str,
    reads: Collection[str],
    compute: Compute,
    settings: Settings,
    files: Collection[Path] = (),
    required_resources: Collection[str] = (),
) -> dg.AssetsDefinition:
    """An asset partitioned by shard whose table is ``schemas.SCHEMAS[name]``.

    ``open_work`` opens what a run needs once (a model, a server) and yields the function that computes one shard.
    ``checks`` maps the names of the checks that every shard reports to their descriptions.
    """

    @configured_asset(
        settings,
        compute,
        team="data",
        code_version=code_version,
        reads=reads,
        files=files,
        checks={**checks, **SCHEMA},
        blocking=True,
        resources=required_resources,
        defined_by=open_work,
        table=name,
        name=name,
        partitions_def=SHARDS,
        deps=list(deps),
        group_name=group,
        kinds=kinds,
        description=description,
        backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=settings.source.shards_per_run),
    )
    def asset(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.Output[None]]:
        work = ShardWork(context.resources.store.open(), settings, context)
        recorder = _Recorder(work, name, {*checks, *SCHEMA}, settings_line(settings, reads))
        shards = recorder.to_do(context.partition_keys)
        if shards:
            with open_work(work) as compute_shard:
                for number, shard in enumerate(shards, start=1):
                    recorder.run(shard, partial(_compute_and_write, work, name, shard, compute_shard))
                    logger.info("%s %s: %s (%d of %d)", name, shard, recorder.last_line, number, len(shards))
        yield from recorder.outputs()
        recorder.raise_failures()

    return asset


def _compute_and_write(work: ShardWork, name: str, shard: str, compute_shard: ShardFunction) -> ShardResult:
    """Again where the removal list has changed meanwhile.

    Whoever asks for a removal while a shard is being made finds it written already, or it is made anew without what goes.
    """
    listed = _removal_list(work)
    while True:
        result = _compute_and_write_once(work, name, shard, compute_shard)
        before, listed = listed, _removal_list(work)
        if listed == before:
            return result
        logger.info("%s %s: the removal list has changed meanwhile, so it is made anew", name, shard)


def _removal_list(work: ShardWork) -> str | None:
    """What tells the list from the one before."""
    path = work.settings.removals_address
    return object_version(path, work.settings.storage.options) if path else None


def _compute_and_write_once(work: ShardWork, name: str, shard: str, compute_shard: ShardFunction) -> ShardResult:
    started = time.monotonic()
    result = compute_shard(shard)
    rejected = result.rejected or _failed(result.checks)
    uri = work.store.write_table(name, result.frame, shard, incomplete=rejected is not None, notes=result.notes)
    stored = _stored_check(work.store, name, shard, result.frame, incomplete=rejected is not None)
    if not stored.passed:
        work.store.delete(work.store.table_key(name, shard))
        rejected = rejected or _failed([stored])
    metadata = {
        **result.metadata,
        _CONTENT: "" if rejected else _version(work.store, name, shard, result.frame),
        "dagster/row_count": len(result.frame),
        "dagster/uri": uri,
        "seconds": round(time.monotonic() - started, 2),
    }
    return ShardResult(result.frame.clear(), metadata, [*result.checks, stored], rejected)


def _failed(checks: Sequence[Check]) -> str | None:
    """Why a shard with these checks does not count as done, or None."""
    names = [check.name for check in checks if check.blocks and not check.passed]
    return f"check failed: {', '.join(names)}" if names else None


def _stored_check(store: Store, name: str, shard: str, written: pl.DataFrame | TableFile, *, incomplete: bool) -> Check:
    schema, rows = store.stored_schema(name, shard, incomplete=incomplete)
    wrong = [column for column, dtype in written.schema.items() if schema.get(column) != dtype]
    return Check(
        "schema",
        not wrong and list(schema) == written.columns and rows == len(written),
        {"columns": len(schema), "rows": rows, "rows written": len(written), "columns of another type": wrong},
        found=f"the store gives back {rows:,} of {len(written):,} rows in {len(schema)} columns, "
        + (f"of another type: {', '.join(wrong)}" if wrong else "each of its type"),
    )


def _version(store: Store, name: str, shard: str, written: pl.DataFrame | TableFile) -> str:
    """The version of a shard's content: of the frame in memory, or else of what was stored of it."""
    if isinstance(written, TableFile):
        return table_version(store, name, shard, columns=written.columns)
    return content_version([written.drop(NOT_CONTENT.get(name, ()))])


class _Recorder:
    """Records shards as they end and says at the end how the step ends."""

    def __init__(self, work: ShardWork, asset: str, checks: set[str], settings: str) -> None:
        self._work, self._context, self._asset, self._checks, self._settings = (
            work,
            work.context,
            asset,
            checks,
            settings,
        )
        self._instance = work.context.instance
        definition = work.context.assets_def
        self._code = definition.code_versions_by_key[definition.key] or ""
        self._parents = sorted(definition.dependency_keys)
        self._retries_left = retries_left(work.context, work.settings.deploy)
        self._failures: dict[str, str] = {}
        self._done = 0
        self.last_line = ""

    def to_do(self, shards: Sequence[str]) -> list[str]:
        """The shards to make, without those that this run's earlier try, or the run that it repeats, has made.

        Shards that failed in an asset before this one in the same run are recorded as failed here too: what there is of
        their input is of another run.
        """
        run = self._context.run
        here = records.events_of(self._instance, run.run_id, self._asset) if self._context.retry_number else {}
        before: dict[str, list[Any]] = {}
        if run.parent_run_id and run.tags.get(RESUME_TAG) == "true":
            before = records.events_of(self._instance, run.parent_run_id, self._asset)
        earlier = [key.to_user_string() for key in self._parents if key.to_user_string() in SHARD_ASSETS]
        failed = records.failures_in_run(self._instance, run.run_id, earlier)
        wanted = []
        for shard in shards:
            if shard in failed:
                first, reason = failed[shard]
                self._fail(shard, f"{first} failed: {reason}", None, {records.FAILED_IN: first})
            elif shard in here:
                self._done += 1
            elif not self._taken_over(shard, before.get(shard, [])):
                wanted.append(shard)
        if self._done:
            logger.info("%s: %d shard(s) are there from the try before", self._asset, self._done)
        return wanted

    def _taken_over(self, shard: str, events: Sequence[Any]) -> bool:
        """Whether the shard is still as the repeated run has made it; that run's records then become this one's."""
        made = next((event for event in reversed(events) if isinstance(event, dg.AssetMaterialization)), None)
        if made is None or not self._work.store.has_table(self._asset, shard):
            return False
        inputs = records.input_tags(self._instance, self._parents, shard)
        tags = made.tags or {}
        if not records.same_origin(tags, self._code, inputs):
            return False
        self._record(shard, made.metadata, records.version_tags(self._code, tags[records.DATA_VERSION_TAG], inputs))
        self._evaluate(event for event in events if isinstance(event, dg.AssetCheckEvaluation))
        return True

    def run(self, shard: str, work: Callable[[], ShardResult]) -> None:
        inputs = records.input_tags(self._instance, self._parents, shard)
        try:
            result = work()
        except Exception as error:  # any fault of one shard must leave the others alone,
            if self._retries_left and is_transient(error):  # unless another try, with more memory, may do without it
                raise
            self._fail(shard, self._reason(shard, error), traceback.format_exc())
            return
        missing = self._checks - {check.name for check in result.checks}
        if missing:
            raise AssertionError(f"{self._asset} did not report its checks {sorted(missing)}")
        evaluations = [check.evaluation(self._asset, shard) for check in result.checks]
        metadata = {name: value for name, value in result.metadata.items() if name != _CONTENT}
        if result.rejected:
            self._fail(shard, result.rejected, None, metadata, evaluations)
            return
        content = str(result.metadata[_CONTENT])
        self._record(
            shard, {**metadata, SETTINGS_USED: self._settings}, records.version_tags(self._code, content, inputs)
        )
        self._evaluate(evaluations)
        self.last_line = f"{metadata['dagster/row_count']:,} rows in {metadata['seconds']} s"

    def _record(self, shard: str, metadata: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        self._context.log_event(
            dg.AssetMaterialization(self._asset, partition=shard, metadata=dict(metadata), tags=dict(tags))
        )
        latest = records.latest_of(self._instance, self._asset, shard)
        if latest:
            records.remember(self._instance, self._asset, {shard: latest})
        self._done += 1

    def _evaluate(self, evaluations: Iterable[dg.AssetCheckEvaluation]) -> None:
        for evaluation in evaluations:
            self._context.log_event(records.about_latest(self._instance, evaluation))

    def _reason(self, shard: str, error: Exception) -> str:
        """What went wrong; of a missing input also what to do about it, which the store cannot know."""
        if isinstance(error, StoreError):
            tables = [key.to_user_string() for key in self._parents]
            return why_missing(self._instance, self._work.store, tables, shard) or describe(error)
        return describe(error)

    def outputs(self) -> Iterator[dg.MaterializeResult | dg.Output[None]]:
        """What lets the assets after this one begin, if there is a shard for them; the events are in the log already."""
        if not self._done:
            return
        yield dg.MaterializeResult(metadata=records.NO_EVENT)
        for name in sorted(self._context.op_execution_context.selected_output_names - {_RESULT}):
            yield dg.Output(None, output_name=name)

    def raise_failures(self) -> None:
        """Raises Failure naming the shards that failed, and why the first of them did."""
        if self._failures:
            shard, reason = next(iter(self._failures.items()))
            failed = f"{len(self._failures)} shard(s) of {self._asset} failed: {', '.join(self._failures)}"
            metadata = {name: dg.MetadataValue.text(why) for name, why in self._failures.items()}
            raise dg.Failure(f"{failed}; {shard}: {reason}", metadata=metadata, allow_retries=False)

    def _fail(
        self,
        shard: str,
        reason: str,
        trace: str | None,
        metadata: Mapping[str, Any] | None = None,
        evaluations: Sequence[dg.AssetCheckEvaluation] = (),
    ) -> None:
        """Dagster's own event of a failed partition cannot be read back outside Dagster+; a failed check shows in red."""
        self._failures[shard] = reason
        self.last_line = f"FAILED: {reason}"
        self._context.log.error(f"{self._asset} {shard} failed: {reason}" + (f"\n{trace}" if trace else ""))
        facts = {records.FAILURE: reason, **(metadata or {})}
        self._context.log_event(
            dg.AssetObservation(self._asset, partition=shard, description=f"FAILED: {reason}", metadata=facts)
        )
        failed = Check(next(iter(SCHEMA)), False, {records.FAILURE: reason}, found=reason)
        self._evaluate(evaluations or [failed.evaluation(self._asset, shard)])
