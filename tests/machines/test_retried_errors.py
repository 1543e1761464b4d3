"""Which errors of an asset lead to another try: those that more memory may mend, and no other."""

import errno
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from facecaption_assets.factories.shards import Check, ShardFunction, ShardResult, ShardWork
from facecaption_assets.machines.retries import is_transient, no_retry_on_user_error, retry_policy
from facecaption_assets.resources.data import StoreResource
from facecaption_assets.settings import Settings, SettingsError, load_settings
from facecaption_ml.storage.store import StoreError
from small_shards import KEY, RANGE, SHARDS, rows, small_shard_asset


class Tries:
    """An asset that raises each error in turn, then succeeds, under the retry policy of given settings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **given: Any) -> None:
        monkeypatch.setattr("facecaption_assets.machines.retries.DELAY_S", 0.01)
        self.settings: Settings = load_settings(profile="sample", **{"executor": "multiprocess", **given})

    def count(self, *errors: BaseException) -> tuple[int, bool]:
        """How often it was tried, and whether it succeeded in the end."""
        left, tried = list(errors), []

        @dg.asset(retry_policy=retry_policy(self.settings.deploy))
        @no_retry_on_user_error(self.settings.deploy)
        def failing(context: dg.AssetExecutionContext) -> None:
            tried.append(context.retry_number)
            if left:
                raise left.pop(0)

        result = dg.materialize([failing], raise_on_error=False)
        self.failures = [
            event.step_failure_data.user_failure_data for event in result.all_events if event.is_step_failure
        ]
        assert tried == list(range(len(tried)))
        return len(tried), result.success


def gpu_is_full() -> BaseException:
    from torch import OutOfMemoryError

    return OutOfMemoryError("CUDA out of memory")


def wrapped_in(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def test_what_was_short_of_memory_or_lost_a_process_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = Tries(monkeypatch)
    for error in (
        MemoryError(),
        gpu_is_full(),
        OSError(errno.ENOMEM, "cannot fork"),
        wrapped_in(StoreError("cannot read x"), MemoryError()),
        wrapped_in(dg.Failure("a training process was killed"), ChildProcessError()),
    ):
        assert is_transient(error)
        assert tries.count(error) == (2, True)


@pytest.mark.parametrize(
    "error",
    [
        SettingsError("wrong"),
        StoreError("materialize it first"),
        OSError(errno.ENOSPC, "the disk is full"),
        KeyError("a defect"),
        dg.Failure("the training failed"),
    ],
)
def test_other_errors_are_final(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    assert not is_transient(error)
    assert Tries(monkeypatch).count(error) == (1, False)


def test_the_number_of_tries_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in (0, 1, 3):
        tries = Tries(monkeypatch, step_retries=number)
        assert tries.count(*[MemoryError()] * number) == (1 + number, True)
        assert tries.count(*[MemoryError()] * (number + 1)) == (1 + number, False)


def test_the_last_try_says_in_one_line_why_the_step_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that an error occurred while executing an op."""
    tries = Tries(monkeypatch, step_retries=1)
    assert tries.count(MemoryError("no memory for the crops"), MemoryError("no memory for the crops")) == (2, False)
    (said,) = tries.failures
    assert said
    assert (said.description or "").startswith("internal error: MemoryError: no memory for the crops")


def test_a_laptop_has_one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Tries(monkeypatch, executor="in_process").count(MemoryError()) == (1, False)


class Shards:
    """A shard asset that runs out of memory at one shard, at the given tries."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, short: Mapping[int, str]) -> None:
        monkeypatch.setattr("facecaption_assets.machines.retries.DELAY_S", 0.01)
        self.settings = load_settings(profile="sample", executor="multiprocess", step_retries=1)
        self.folder, self.short, self.computed = folder, short, list[tuple[int, str]]()

    @contextmanager
    def open_work(self, work: ShardWork) -> Iterator[ShardFunction]:
        def compute(shard: str) -> ShardResult:
            self.computed.append((work.context.retry_number, shard))
            if self.short.get(work.context.retry_number) == shard:
                raise MemoryError("no memory for the crops")
            return ShardResult(rows(shard), {}, [Check("hard", True)])

        yield compute

    def run(self) -> tuple[dg.ExecuteInProcessResult, list[str]]:
        """The result, and the shards that count as done."""
        asset = small_shard_asset(self.open_work, self.settings, hard="must hold")
        store = StoreResource(root=str(self.folder / "store"))
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions("shards", SHARDS)
            given: dict[str, Any] = {"instance": instance, "resources": {"store": store}, "tags": RANGE}
            result = dg.materialize([asset], raise_on_error=False, **given)
            return result, sorted(instance.get_materialized_partitions(KEY))


def test_a_shard_that_was_short_of_memory_is_tried_again_and_those_before_it_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = Shards(tmp_path, monkeypatch, {0: SHARDS[1]})
    result, done = world.run()
    assert result.success
    assert done == SHARDS
    assert world.computed == [(0, SHARDS[0]), (0, SHARDS[1]), (1, SHARDS[1]), (1, SHARDS[2])]


def test_a_shard_that_is_always_short_of_memory_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result, done = Shards(tmp_path, monkeypatch, dict.fromkeys((0, 1), SHARDS[1])).run()
    assert not result.success
    assert done == [SHARDS[0], SHARDS[2]]
    (failure,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert failure.user_failure_data
    assert "shard-00001: internal error: MemoryError: no memory" in (failure.user_failure_data.description or "")
