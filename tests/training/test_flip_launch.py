"""Starting a training from a step: which settings a failure names, what is tried again, and what never runs twice."""

import threading
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from facecaption_assets.machines import retries
from facecaption_assets.settings import SettingsError, load_settings
from facecaption_assets.training.launch import run_training, training_config
from facecaption_ml.storage.store import Store
from squares import micro_config, steps_kept, write_squares
from training_processes import kill_training


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(str(tmp_path / "store"))
    write_squares(found, pairs=80)
    return found


def train(
    store: Store, work: Path, tags: dict[str, str] | None = None, **given: Any
) -> tuple[Any, list[str], list[str]]:
    """One run of an asset that trains as in a pod; the result, the lines of failures, and the run's log."""
    settings = load_settings(profile="sample", executor="kubernetes")

    @dg.asset(retry_policy=retries.training_retry_policy(settings.deploy))
    @retries.no_retry_on_user_error(settings.deploy)
    def training(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        config = micro_config(store, **{"epochs": 1, **given})
        checkpoint = run_training(context, dg.PipesSubprocessClient(), config, work, 1)
        return dg.MaterializeResult(metadata={"steps": checkpoint["steps"], "tries": context.retry_number + 1})

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([training], instance=instance, raise_on_error=False, tags=tags)
        lines = [entry.user_message for entry in instance.all_logs(result.run_id)]
    failed = [event.step_failure_data.user_failure_data for event in result.all_events if event.is_step_failure]
    return result, [data.description or "" for data in failed if data], lines


@pytest.mark.processes
def test_a_killed_training_is_tried_again_and_resumes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "DELAY_S", 0.1)

    def kill_once() -> None:
        deadline = time.monotonic() + 100
        while not steps_kept(store) and time.monotonic() < deadline:
            time.sleep(0.02)
        kill_training()

    thread = threading.Thread(target=kill_once)
    thread.start()
    result, failures, lines = train(store, tmp_path / "work", epochs=40, checkpoint_minutes=0)
    thread.join()
    assert result.success, failures
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["tries"].value == 2
    assert event.materialization.metadata["steps"].value == 40 * 4
    assert any("resuming after step" in line for line in lines)


@pytest.mark.processes
def test_a_faulty_training_is_not_tried_again_and_names_the_setting(store: Store, tmp_path: Path) -> None:
    result, (failure,), _ = train(store, tmp_path / "work", queue_size=7)
    assert failure.startswith("FACECAPTION_FLIP_QUEUE_SIZE is 7, no multiple of the global batch")
    assert not [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY]


def test_a_run_that_run_retries_have_started_trains_nothing(store: Store, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    log = tmp_path / "work" / "of the earlier training"
    log.touch()
    _, failures, _ = train(store, tmp_path / "work", tags={"dagster/retry_number": "1"})
    assert failures == ["an earlier run's training may still be at work: materialize again when it has ended"]
    assert log.exists()
    assert not store.keys("flip_training/")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"flip_preset": "huge"}, "FACECAPTION_FLIP_PRESET is 'huge': there are base"),
        ({"flip_peak_learning_rate": float("inf")}, "FACECAPTION_FLIP_PEAK_LEARNING_RATE is inf"),
    ],
)
def test_a_setting_that_cannot_be_is_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError) as error:
        training_config(load_settings(profile="sample", **given), "flip", ["shard-00000"], {}, 1)
    assert str(error.value).startswith(named)


@pytest.mark.processes
def test_an_unfinished_training_of_another_seed_names_that_setting(store: Store, tmp_path: Path) -> None:
    assert train(store, tmp_path / "work", max_steps=1)[0].success is False  # there is no checkpoint yet
    _, (failure,), _ = train(store, tmp_path / "work", seed=1)
    assert "FACECAPTION_SEED 0, now it is 1" in failure
    assert "FACECAPTION_FLIP_FRESH=true" in failure
