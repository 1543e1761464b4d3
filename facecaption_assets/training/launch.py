"""Starting FLIP's training processes from a step: their configuration from the settings, and what a failure is called."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
from dagster._core.storage.tags import RETRY_NUMBER_TAG  # dagster has no public name for it

from facecaption_assets.settings import PREFIX, Settings, SettingsError
from facecaption_assets.training.process import CONFIG
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.flip.training.options import TrainingOptions
from facecaption_ml.processes import interrupts
from facecaption_ml.processes.tree import environment_of_children
from facecaption_ml.storage.local_files import write_file
from facecaption_ml.storage.lock import exclusive

if TYPE_CHECKING:
    from facecaption_ml.flip.training.config import TrainingConfig

STOP_SECONDS: Final = 180
"""How long a training that is told to stop has for the checkpoint it resumes from: some 4 GB of ``base``."""
_GROUP: Final = "flip_"


def training_config(
    settings: Settings,
    variant: str,
    shards: Sequence[str],
    versions: Mapping[str, str],
    processes: int,
    key_prefix: str = "",
) -> TrainingConfig:
    """The configuration of a variant's training; ``key_prefix``: where its checkpoint lies, if not at the variant's own.

    Raises SettingsError naming a setting that cannot be.
    """
    from pydantic import ValidationError

    from facecaption_ml.flip.errors import named_options
    from facecaption_ml.flip.training.config import TrainingConfig, first_fault

    threads = settings.flip.threads or max(1, (settings.threads or os.cpu_count() or 1) // processes)
    try:
        return TrainingConfig(
            options=settings.flip.model_copy(update={"threads": threads}),
            store=settings.store_root,
            storage_options=settings.storage.options,
            shards=tuple(shards),
            variant=variant,
            seed=settings.seed,
            device=settings.device,
            key_prefix=key_prefix,
            versions=dict(versions),
        )
    except ValidationError as error:
        options = [str(part) for part in error.errors()[0]["loc"]]
        raise SettingsError(_in_settings(first_fault(error), options)) from None
    except FaceCaptionError as error:
        raise SettingsError(_in_settings(str(error), named_options(error))) from error


def process_count(settings: Settings) -> int:
    """As set, else one for each GPU, else one."""
    processes = settings.flip.processes
    if processes or settings.device == "cpu":
        return processes or 1
    import torch

    return max(1, torch.cuda.device_count())


def run_training(
    context: dg.AssetExecutionContext,
    pipes: dg.PipesSubprocessClient,
    config: TrainingConfig,
    work: Path,
    processes: int,
) -> dict[str, Any]:
    """Train in processes of their own, and return the ``config.json`` of the checkpoint that they left in the store.

    ``work`` is theirs for logs; it goes when the checkpoint is in place. Raises dg.Failure with the line of the process that
    failed first; caused by ChildProcessError where one was killed, so that the step may be tried again. Raises it too in a run
    that run retries have started: the step of the earlier run may still be at work, and two trainings would write one
    checkpoint. Raises LockedError where another step, or the training of one that has ended, works in ``work``.
    """
    from dagster._core.errors import DagsterPipesExecutionError  # dagster has no public name for it

    from facecaption_ml.flip.training.process import first_failure, lock_of

    if RETRY_NUMBER_TAG in context.run.tags:
        line = "an earlier run's training may still be at work: materialize again when it has ended"
        raise dg.Failure(description=line, allow_retries=False)
    what = f"the training of {config.variant} in {work}"
    with exclusive(work.with_name(f"{work.name}.lock"), what):
        # That of a step that was killed ends soon after it, with a checkpoint; until then the folder is its.
        with exclusive(lock_of(work), what):
            _empty(work, lock_of(work))
        write_file(work / CONFIG, config.to_json())
        try:
            command = training_command(processes, "facecaption_assets.training.process", str(work))
            pipes.run(context=context, command=command, env=training_environment(processes))
        except DagsterPipesExecutionError as error:
            failure = first_failure(work)
            if failure and not failure.is_echo:
                raise dg.Failure(description=_in_settings(failure.line, failure.options)) from None
            raise dg.Failure(description=_killed(config, str(error))) from ChildProcessError(str(error))
        shutil.rmtree(work)
    checkpoint: dict[str, Any] = json.loads(config.open_store().read_bytes(f"{config.prefix}/config.json"))
    return checkpoint


def _empty(work: Path, lock: Path) -> None:
    """Of what an earlier run has left but its lock; what a training resumes from lies in the store."""
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path != lock:
            path.unlink()


def training_command(processes: int, module: str, *arguments: str) -> list[str]:
    """A module under torchrun where there are several processes; a single one does without its start-up."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    return [sys.executable, *launcher, "-m", module, *arguments]


def training_environment(processes: int) -> dict[str, str]:
    """What the processes of a training need in their environment beside what is there."""
    # Threads that spin while they wait for each other are a fifth faster on an idle machine, and ten times slower on one
    # where something else runs, such as the decoding thread.
    environment = {
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        **environment_of_children(speaks=interrupts.is_running()),
    }
    if processes > 1:
        # between telling its processes to stop and killing them; torchrun's own would cut a large checkpoint short
        environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(STOP_SECONDS - 30)
    return environment


def _killed(config: TrainingConfig, error: str) -> str:
    """What is known of a training one of whose processes had no time to leave a line."""
    from facecaption_ml.flip.training.checkpoint import TrainingCheckpoints

    status = re.search(r"code (-?\d+)", error)
    step = TrainingCheckpoints.of(config).latest_step()
    kept = f"the checkpoint after step {step} is intact: materialize again to resume from it"
    none = "there was no checkpoint yet: materialize again to start anew"
    return f"a training process was killed (exit status {status[1] if status else 'unknown'}); {kept if step else none}"


def _in_settings(line: str, options: Iterable[str]) -> str:
    """The line with the settings' names in the place of those of ``options``."""
    for option in options:
        group = _GROUP if option in TrainingOptions.model_fields else ""
        if group or option == "seed":  # others are no settings
            line = re.sub(rf"\b{option}\b", f"{PREFIX}{group}{option}".upper(), line)
    return line
