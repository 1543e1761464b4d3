"""The Dagster instance of this machine, and runs in this process for people who do not open the UI."""

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import dagster as dg
from dagster._core.remote_origin import (  # dagster has no public names for them
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.utils import make_new_run_id

from facecaption_assets.automation.alerts import innermost_error
from facecaption_assets.automation.jobs import job_of
from facecaption_assets.commands.dagster_home import shared_home
from facecaption_assets.commands.dead_runs import PROCESS_TAG, fail_dead_runs
from facecaption_assets.definitions import build_definitions
from facecaption_assets.machines.executors import continue_past_failed_shards, register_pools
from facecaption_assets.partitions import RANGE_END_TAG, RANGE_START_TAG, SHARDS
from facecaption_assets.settings import Settings
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.processes import interrupts
from facecaption_ml.processes.tree import PARENT, ProcessIdentity
from facecaption_ml.storage.local_files import atomic_write

CODE_LOCATION: Final = "facecaption"
"""What the UI calls the code location."""


class RunFailedError(FaceCaptionError):
    """A run did not end well; the message is the first failed step's."""


class UnknownShardError(FaceCaptionError):
    """A shard that the source manifest has not registered."""


def prepare_home(settings: Settings) -> Path:
    """Make DAGSTER_HOME with its ``dagster.yaml`` and point this process and its children to it.

    On Kubernetes the pod's own DAGSTER_HOME leads to the instance that all processes share, and stays.
    """
    shared = shared_home(settings)
    if shared:
        return shared
    home = settings.dagster_home
    if "?" in str(home):  # what follows it would be options of the database's address
        raise RunFailedError(
            f"FACECAPTION_HOME is {settings.home}: Dagster's database cannot lie below a name with '?'"
        )
    config = home / "dagster.yaml"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not config.exists() or not config.read_bytes().strip():  # empty: Dagster's own defaults, telemetry too
            text = resources.files("facecaption_assets.commands").joinpath("laptop.yaml").read_text(encoding="utf-8")
            with atomic_write(config) as file:
                file.write(text.encode())
    except OSError as error:
        raise RunFailedError(f"cannot write {home} (FACECAPTION_HOME): {error.strerror}") from error
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    return home


class Pipeline:
    """Runs assets in this process, recorded in the instance that the UI shows."""

    def __init__(self, settings: Settings, tags: Mapping[str, str] | None = None) -> None:
        """``tags``: of all runs."""
        home = prepare_home(settings)
        self._tags = dict(tags or {})
        self.settings = settings
        interrupts.advise("what is finished is kept, and the same command resumes from there")
        self.instance = dg.DagsterInstance.get()
        if settings.deploy.executor != "kubernetes" and PARENT not in os.environ:
            fail_dead_runs(self.instance, home)
            register_pools(self.instance, settings.deploy)
        # Runs from the shell are in this process, whatever the UI's runs do.
        self._definitions = build_definitions(settings.replaced(executor="in_process"))

    def shards(self) -> list[str]:
        """The registered shards, in order of registration."""
        assert SHARDS.name
        return list(self.instance.get_dynamic_partitions(SHARDS.name))

    def check_shards(self, names: Sequence[str]) -> None:
        """Raises UnknownShardError for the first name that is not registered."""
        known = self.shards()
        for name in names:
            if name not in known:
                listed = f"they run from {known[0]} to {known[-1]}" if known else "materialize source_manifest first"
                raise UnknownShardError(f"there is no shard {name!r}: {listed}")

    def run(
        self, *assets: str, first: str | None = None, last: str | None = None, partition: str | None = None
    ) -> None:
        """Materialize assets: those by shard for ``first`` to ``last``, others for ``partition``.

        Raises RunFailedError.
        """
        if self.settings.deploy.executor == "kubernetes":
            raise RunFailedError(
                "FACECAPTION_EXECUTOR is kubernetes, where runs are launched in the UI: "
                "on one machine set FACECAPTION_EXECUTOR=in_process"
            )
        interrupts.halt_if_ending()
        tags = {**self._tags, PROCESS_TAG: str(ProcessIdentity.own())}
        if first is not None:
            tags |= {RANGE_START_TAG: first, RANGE_END_TAG: last or first}
        job = job_of(assets)
        definition = (
            self._definitions.resolve_job_def(job) if job else self._definitions.resolve_implicit_global_asset_job_def()
        )
        run_id = make_new_run_id()
        with (
            continue_past_failed_shards(),
            interrupts.before_end(lambda: self._cancel(run_id)),
            _origin(self.instance, definition.name),
            _quiet_event_log(),
        ):
            result = definition.execute_in_process(
                instance=self.instance,
                asset_selection=[dg.AssetKey(name) for name in assets],
                partition_key=partition,
                run_id=run_id,
                tags=tags,
                raise_on_error=False,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
        interrupts.halt_if_ending()
        if not result.success:
            raise RunFailedError(_first_failure(result))

    def _cancel(self, run_id: str) -> None:
        """Mark a run canceled whose process is being told to stop."""
        with dg.DagsterInstance.get() as instance:
            run = instance.get_run_by_id(run_id)
            if run and not run.is_finished:
                instance.report_run_canceled(run)


def job_origin(job: str) -> RemoteJobOrigin:
    """Where the UI finds the job of a run."""
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(CODE_LOCATION), "__repository__")
    return RemoteJobOrigin(repository, job)


@contextlib.contextmanager
def _origin(instance: dg.DagsterInstance, job: str) -> Iterator[None]:
    """Within the block a run that is made says which job of which code location it is of.

    Without it the UI shows the run neither on its timeline nor in the job's history. ``execute_in_process`` knows no origin.
    """
    create: Any = instance.create_run_for_job
    instance.create_run_for_job = functools.partial(  # type: ignore[method-assign]
        create, remote_job_origin=job_origin(job)
    )
    try:
        yield
    finally:
        instance.create_run_for_job = create  # type: ignore[method-assign]


@contextlib.contextmanager
def _quiet_event_log() -> Iterator[None]:
    """Within the block Dagster does not print what its event log cannot take, with the statement: the error says it again."""
    from dagster._core.instance import types

    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        own, vars(types)["sys"] = vars(types)["sys"], SimpleNamespace(stderr=nowhere)
        try:
            yield
        finally:
            vars(types)["sys"] = own


def _first_failure(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            if data.user_failure_data and data.user_failure_data.description:
                return str(data.user_failure_data.description)
            error = innermost_error(data.error)
            if error:
                return " ".join(error.message.split(": ", 1)[-1].split())
    return "the run failed; see `facecaption ui`"
