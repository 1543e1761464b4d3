"""The Dagster instance of this machine, and runs in this process for people who do not open the UI."""

import os
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import dagster as dg

from facecaption_assets.automation.alerts import innermost_error
from facecaption_assets.definitions import build_definitions
from facecaption_assets.partitions import RANGE_END_TAG, RANGE_START_TAG, SHARDS
from facecaption_assets.settings import Settings
from facecaption_ml.errors import FaceCaptionError


class RunFailedError(FaceCaptionError):
    """A run did not end well; the message is the first failed step's."""


class UnknownShardError(FaceCaptionError):
    """A shard that the source manifest has not registered."""


def prepare_home(settings: Settings) -> Path:
    """Make DAGSTER_HOME with its ``dagster.yaml`` and point this process and its children to it.

    On Kubernetes the pod's own DAGSTER_HOME leads to the instance that all processes share, and stays.
    """
    given = Path(os.environ.get("DAGSTER_HOME", ""))
    if settings.deploy.executor == "kubernetes" and (given / "dagster.yaml").is_file():
        return given
    home = settings.dagster_home
    config = home / "dagster.yaml"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not config.exists():
            text = resources.files("facecaption_assets.commands").joinpath("laptop.yaml").read_text(encoding="utf-8")
            config.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunFailedError(f"cannot write {home} (FACECAPTION_HOME): {error.strerror}") from error
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    return home


class Pipeline:
    """Runs assets in this process, recorded in the instance that the UI shows."""

    def __init__(self, settings: Settings, tags: Mapping[str, str] | None = None) -> None:
        """``tags``: of all runs."""
        prepare_home(settings)
        self._tags = dict(tags or {})
        self.settings = settings
        self.instance = dg.DagsterInstance.get()
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
        tags = dict(self._tags)
        if first is not None:
            tags |= {RANGE_START_TAG: first, RANGE_END_TAG: last or first}
        result = self._definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(name) for name in assets],
            partition_key=partition,
            tags=tags,
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        if not result.success:
            raise RunFailedError(_first_failure(result))


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
