"""The one way a shard asset runs.

A run gets one shard or a range of them. Each shard is computed, checked, written and recorded by itself: as soon as it is
done it counts as materialized, whatever happens to the others or to the process. A shard that fails is recorded with its
reason, the others go on, and the run then fails naming the shards, so that a backfill of what is missing takes just those.

In a range run Dagster writes a materialization event per shard when the whole step succeeds. That comes too late for a
process that is killed, so this module also records each shard on the spot; the step's own event follows with the same
metadata and code version, plus data versions. A run of one partition needs no record of its own; a range of one shard does,
since Dagster names no partition in the check results of any range. A step that is tried again (``retries``) leaves what is
recorded alone.
"""

import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import dagster as dg
import polars as pl
from dagster._core.events import StepMaterializationData

from facecaption_assets.factories.asset import configured_asset
from facecaption_assets.factories.check import Check
from facecaption_assets.factories.progress import logger
from facecaption_assets.machines.compute import Compute
from facecaption_assets.machines.retries import is_transient, retries_left
from facecaption_assets.partitions import RANGE_START_TAG, SHARDS
from facecaption_assets.settings import Settings
from facecaption_ml.errors import describe
from facecaption_ml.storage.store import Store
from facecaption_ml.storage.table_file import TableFile

CODE_VERSION: Final = "dagster/code_version"
"""The tag of a materialization that says which code made it."""
SCHEMA: Final = {"schema": "What the store gives back has the table's columns, their types, and every row written."}
"""The check that every shard asset has, whatever its table."""


@dataclass(frozen=True)
class ShardResult:
    """A shard's table, what a person looks at, and what the checks found.

    A TableFile is for a table that memory should not hold; it is gone once it is written.
    ``rejected`` says why the shard does not count as done although it has rows; they are kept apart for the next try.
    """

    frame: pl.DataFrame | TableFile
    metadata: Mapping[str, Any]
    checks: Sequence[Check]
    rejected: str | None = None


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
    compute: Compute,
    settings: Settings,
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
    def asset(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        work = ShardWork(context.resources.store.open(), settings, context)
        recorder = _Recorder(work, name, code_version, {*checks, *SCHEMA})
        before = recorder.finished_before() if context.retry_number else set()
        shards = [shard for shard in context.partition_keys if shard not in before]
        with open_work(work) as compute_shard:
            for number, shard in enumerate(shards, start=1):
                recorder.run(shard, partial(_compute_and_write, work, name, shard, compute_shard))
                logger.info("%s %s: %s (%d of %d)", name, shard, recorder.last_line, number, len(shards))
        return recorder.result()

    return asset


def _compute_and_write(work: ShardWork, name: str, shard: str, compute_shard: ShardFunction) -> ShardResult:
    started = time.monotonic()
    result = compute_shard(shard)
    rejected = result.rejected or _failed(result.checks)
    uri = work.store.write_table(name, result.frame, shard, incomplete=rejected is not None)
    stored = _stored_check(work.store, name, shard, result.frame, incomplete=rejected is not None)
    if not stored.passed:
        work.store.delete(work.store.table_key(name, shard))
        rejected = rejected or _failed([stored])
    metadata = {
        **result.metadata,
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
    )


class _Recorder:
    """Records shards as they end and says at the end how the step ends."""

    def __init__(self, work: ShardWork, asset: str, code_version: str, checks: set[str]) -> None:
        self._context, self._asset, self._code_version, self._checks = work.context, asset, code_version, checks
        self._in_range = RANGE_START_TAG in work.context.run.tags
        self._retries_left = retries_left(work.context, work.settings.deploy)
        self._failures: dict[str, str] = {}
        self._evaluated: list[tuple[str, Check]] = []
        self.last_line = ""

    def run(self, shard: str, work: Callable[[], ShardResult]) -> None:
        try:
            result = work()
        except Exception as error:  # any fault of one shard must leave the others alone,
            if self._retries_left and is_transient(error):  # unless another try, with more memory, may do without it
                raise
            self._fail(shard, describe(error), traceback.format_exc())
            return
        missing = self._checks - {check.name for check in result.checks}
        if missing:
            raise AssertionError(f"{self._asset} did not report its checks {sorted(missing)}")
        self._evaluated += [(shard, check) for check in result.checks]
        if self._in_range or result.rejected:
            for check in result.checks:
                self._context.log_event(check.evaluation(self._asset, shard))
        if result.rejected:
            self._fail(shard, result.rejected, None, result.metadata)
            return
        self._context.add_asset_metadata(dict(result.metadata), partition_key=shard)
        if self._in_range:
            tags = {CODE_VERSION: self._code_version}  # Dagster adds it to the step's own event only
            self._context.log_event(
                dg.AssetMaterialization(self._asset, partition=shard, metadata=dict(result.metadata), tags=tags)
            )
        self.last_line = f"{result.metadata['dagster/row_count']:,} rows in {result.metadata['seconds']} s"

    def finished_before(self) -> set[str]:
        """Shards of a range that an earlier try of this step has recorded; its metadata and checks become this try's."""
        kinds = {dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_CHECK_EVALUATION}
        done, key = set[str](), dg.AssetKey(self._asset)
        evaluated: list[tuple[str, Check]] = []
        for entry in self._context.instance.all_logs(self._context.run.run_id, of_type=kinds):
            data = entry.get_dagster_event().event_specific_data
            if isinstance(data, dg.AssetCheckEvaluation) and data.asset_key == key and data.partition:
                blocks = data.severity == dg.AssetCheckSeverity.ERROR
                evaluated.append((data.partition, Check(data.check_name, data.passed, data.metadata, blocks)))
            elif isinstance(data, StepMaterializationData):
                shard = data.materialization.partition
                if data.materialization.asset_key == key and shard and shard not in done:
                    self._context.add_asset_metadata(dict(data.materialization.metadata), partition_key=shard)
                    done.add(shard)
        self._evaluated += [(shard, check) for shard, check in evaluated if shard in done]
        logger.info("%s: %d shard(s) are there from the try before", self._asset, len(done))
        return done

    def result(self) -> dg.MaterializeResult:
        if self._failures:
            shard, reason = next(iter(self._failures.items()))
            failed = f"{len(self._failures)} shard(s) of {self._asset} failed: {', '.join(self._failures)}"
            metadata = {name: dg.MetadataValue.text(why) for name, why in self._failures.items()}
            raise dg.Failure(f"{failed}; {shard}: {reason}", metadata=metadata, allow_retries=False)
        return dg.MaterializeResult(check_results=[self._summary(name) for name in sorted(self._checks)])

    def _fail(self, shard: str, reason: str, trace: str | None, metadata: Mapping[str, Any] | None = None) -> None:
        self._failures[shard] = reason
        self.last_line = f"FAILED: {reason}"
        self._context.log.error(f"{self._asset} {shard} failed: {reason}" + (f"\n{trace}" if trace else ""))
        self._context.log_event(
            dg.AssetObservation(self._asset, partition=shard, metadata={"failure": reason, **(metadata or {})})
        )

    def _summary(self, name: str) -> dg.AssetCheckResult:
        """The result that the step owes: of its one shard, or of all of a range together."""
        named = [(shard, check) for shard, check in self._evaluated if check.name == name]
        failed = [shard for shard, check in named if not check.passed]
        metadata = named[0][1].metadata if len(named) == 1 else {"shards": len(named), "failed": failed}
        return Check(name, not failed, metadata, blocks=named[0][1].blocks if named else True).result()
