"""Small assets whose steps are lost at their first try, for processes and pods to run. Settings come from the environment.

``LOST_STEPS`` is a folder: the store, and a line for each try in ``tries.txt``.
"""

import contextlib
import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from facecaption_assets.factories.shards import Check, ShardFunction, ShardResult, ShardWork
from facecaption_assets.machines import retries
from facecaption_assets.machines.compute import Compute
from facecaption_assets.machines.executors import build_executor
from facecaption_assets.resources.data import StoreResource
from facecaption_assets.settings import load_settings
from facecaption_ml.storage.store import StoreError
from small_shards import SHARDS, rows, small_shard_asset

TINY = Compute("tiny", "cpu", cores=1, memory_gib=1, disk_gib=1, timeout_minutes=5)
MIB = 2**20
retries.DELAY_S = 0.1  # type: ignore[misc]


def steps() -> dg.JobDefinition:
    """The job of every asset here."""
    settings, folder = load_settings(profile="sample"), Path(os.environ["LOST_STEPS"])
    retried = dg.asset(op_tags=TINY.op_tags, retry_policy=retries.retry_policy(settings.deploy))
    final = retries.no_retry_on_user_error(settings.deploy)

    @retried
    @final
    def hungry(context: dg.AssetExecutionContext) -> None:
        """Takes 400 MiB beside what Python needs."""
        note(folder, "hungry")
        context.log.info(f"the last byte is {(bytearray(b'x') * (400 * MIB))[-1]}")  # one allocation, all written

    @retried
    @final
    def evicted(context: dg.AssetExecutionContext) -> None:
        """Is told to stop, as a pod is whose node is taken away."""
        if note(folder, "evicted") == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    @retried
    @final
    def misled(context: dg.AssetExecutionContext) -> None:
        """What it needs is not there."""
        note(folder, "misled")
        raise StoreError("no shard of facecaption_dataset is there yet:\nmaterialize it first")

    @retried
    @final
    def stopped_early(context: dg.AssetExecutionContext) -> None:
        """Is told to stop after its start and before this function (by the logger below)."""
        note(folder, "stopped_early")

    @dg.resource
    def opening(context: dg.InitResourceContext) -> None:
        """Is told to stop while it opens, before its step has started."""
        if note(folder, "opening") == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    @dg.asset(
        op_tags=TINY.op_tags, retry_policy=retries.retry_policy(settings.deploy), required_resource_keys={"opening"}
    )
    @final
    def stopped_opening(context: dg.AssetExecutionContext) -> None:
        """Its resource is told to stop."""
        note(folder, "stopped_opening")

    @contextlib.contextmanager
    def open_work(work: ShardWork) -> Iterator[ShardFunction]:
        def compute(shard: str) -> ShardResult:
            if shard == SHARDS[1] and note(folder, shard) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return ShardResult(rows(shard), {"try": note(folder, f"{shard} done")}, [Check("acceptance", False)])

        yield compute

    killed = small_shard_asset(open_work, settings, acceptance="warns")  # in the middle of its second shard
    store = StoreResource(root=str(folder / "store"))
    made = dg.Definitions(
        [hungry, evicted, misled, stopped_early, stopped_opening, killed],
        jobs=[dg.define_asset_job("steps")],
        resources={"store": store, "opening": opening},
        loggers={"signals": signals},
        executor=build_executor(settings.deploy),
    )
    return made.resolve_job_def("steps")


class _Signals(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if 'Started execution of step "stopped_early"' in record.getMessage():
            folder = Path(os.environ["LOST_STEPS"])
            if note(folder, "start of stopped_early") == 1:
                os.kill(os.getpid(), signal.SIGTERM)


@dg.logger
def signals(context: dg.InitLoggerContext) -> logging.Logger:
    """Tells this process to stop when it hears that the step ``stopped_early`` has started."""
    found = logging.Logger("signals")
    found.addHandler(_Signals())
    return found


def note(folder: Path, line: str) -> int:
    """Write a line, and say how often it is there now."""
    with (folder / "tries.txt").open("a") as file:
        file.write(f"{line}\n")
    return noted(folder).count(line)


def noted(folder: Path) -> list[str]:
    return (folder / "tries.txt").read_text().splitlines()
