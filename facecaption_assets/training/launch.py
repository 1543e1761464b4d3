"""FLIP's training as a step starts it: the settings as one record, the processes, and what a failure is called."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
from dagster._core.storage.tags import RETRY_NUMBER_TAG

from facecaption_assets.settings import Settings
from facecaption_assets.settings.flip import FROM_SCRATCH
from facecaption_assets.training.process import CONFIG
from facecaption_ml.storage.store import Store

if TYPE_CHECKING:
    from facecaption_ml.flip import Flip
    from facecaption_ml.flip.training.config import TrainingConfig

STOP_SECONDS: Final = 180
"""How long a training that is told to stop has for the checkpoint it goes on from: some 4 GB of ``base``."""
_PREFIX: Final = "flip_"
_NOT_FOR_THE_TRAINING: Final = (
    "flip_preset", "flip_processes", "flip_threads", "flip_image_init", "flip_text_init",
)  # fmt: skip


def training_config(
    settings: Settings,
    variant: str,
    shards: Sequence[str],
    versions: Mapping[str, str],
    processes: int,
    place: str = "",
) -> TrainingConfig:
    """The settings of a variant's training; ``place``: where its checkpoint lies, if not at the variant's own.

    Raises TrainingError or PresetError naming a setting that cannot be.
    """
    from facecaption_ml.flip.training.config import TrainingConfig

    given = {
        name.removeprefix(_PREFIX): value
        for name, value in settings.model_dump().items()
        if name.startswith(_PREFIX) and name not in _NOT_FOR_THE_TRAINING
    }
    return TrainingConfig.of_preset(
        settings.flip_preset,
        store=settings.store_root,
        storage_options=settings.storage_options,
        shards=tuple(shards),
        variant=variant,
        image_init=_start(settings.flip_image_init),
        text_init=_start(settings.flip_text_init),
        seed=settings.seed,
        device=settings.device,
        threads=_threads(settings, processes),
        place=place,
        versions=dict(versions),
        **given,
    )


def load_checkpoint(settings: Settings, store: Store, prefix: str) -> Flip:
    """The checkpoint under ``prefix`` as whoever uses it reads it: from the store. Raises StoreError or FlipError."""
    from facecaption_ml.devices import resolve_device
    from facecaption_ml.flip import Flip

    device = resolve_device(settings.device, settings.threads)
    return Flip.load(store.local_folder(prefix, settings.home / "cache"), device)


def _start(given: str) -> str | None:
    """What a tower starts from: None for the preset's own, '' for random weights."""
    return "" if given == FROM_SCRATCH else given or None


def _threads(settings: Settings, processes: int) -> int:
    """Of each process: as set, else its share of those that the whole pipeline has."""
    if settings.flip_threads:
        return settings.flip_threads
    return max(1, (settings.threads or os.cpu_count() or 1) // processes)


def process_count(settings: Settings) -> int:
    """As set, else one for each GPU, else one."""
    if settings.flip_processes or settings.device == "cpu":
        return settings.flip_processes or 1
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
    failed first, and in a run that run retries have started: the processes or the pod of a training may outlive their run's
    own process, and two trainings would write one checkpoint.
    """
    from dagster._core.errors import DagsterPipesExecutionError

    if RETRY_NUMBER_TAG in context.run.tags:
        line = "an earlier run's training may still be at work: materialise again when it has ended"
        raise dg.Failure(description=line, allow_retries=False)
    shutil.rmtree(work, ignore_errors=True)  # of an earlier run; what a training goes on from lies in the store
    work.mkdir(parents=True)
    (work / CONFIG).write_text(config.to_json(), encoding="utf-8")
    try:
        command = training_command(processes, "facecaption_assets.training.process", str(work))
        pipes.run(context=context, command=command, env=training_environment(processes))
    except DagsterPipesExecutionError as error:
        raise dg.Failure(description=_failure(config, work, str(error))) from None
    shutil.rmtree(work)
    found: dict[str, Any] = json.loads(config.open_store().read_bytes(f"{config.prefix}/config.json"))
    return found


def training_command(processes: int, module: str, *arguments: str) -> list[str]:
    """A module under torchrun where there are several processes; a single one does without its start-up."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    return [sys.executable, *launcher, "-m", module, *arguments]


def training_environment(processes: int) -> dict[str, str]:
    """What the processes of a training need in their environment beside what is there."""
    # Threads that spin while they wait for each other are a fifth faster on an idle machine, and ten times slower on one
    # where something else runs, such as the decoding thread.
    found = {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}
    if processes > 1:
        # between telling its processes to stop and killing them; torchrun's own would cut a large checkpoint short
        found["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(STOP_SECONDS - 30)
    return found


def _failure(config: TrainingConfig, work: Path, error: str) -> str:
    """The line of the process that failed first, or what is known where one was killed."""
    from facecaption_ml.flip.training.process import first_failure

    status = re.search(r"code (-?\d+)", error)
    killed = f"a training process was killed (exit status {status[1] if status else 'unknown'})"
    return failure(config, first_failure(work), killed)


def failure(config: TrainingConfig, line: str | None, otherwise: str) -> str:
    """The line of the process that failed first; where there is none, ``otherwise`` and what to do about it."""
    from facecaption_ml.flip.training.checkpoint import TrainingCheckpoints

    if line and not line.startswith("lost touch"):  # with a process that had no time to leave a line
        return line
    step = TrainingCheckpoints.of(config).latest_step()
    kept = f"the checkpoint after step {step} is intact: materialise again to go on from it"
    none = "there was no checkpoint yet: materialise again to begin anew"
    return f"{otherwise}; {kept if step else none}"
