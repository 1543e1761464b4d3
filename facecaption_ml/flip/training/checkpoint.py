"""Checkpoints of an unfinished training: written whole, a few kept, and read back to resume exactly where it stopped.

``flip_training/<variant>/`` (``flip_training/<key_prefix>/`` where a training has a prefix of its own) holds, for each step
that was kept, ``step-<n>.safetensors`` (the weights), ``step-<n>.pt`` (momentum towers, queue, optimiser, loss scale, random
numbers, position in the data, tokenizer, log) and ``step-<n>.json``. The last is written last and makes the checkpoint count,
so a process killed while writing leaves the one before it in force.
``best-<epoch>.safetensors`` holds the weights of the best epoch so far.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor

from facecaption_ml.errors import first_line
from facecaption_ml.flip.errors import TrainingError
from facecaption_ml.flip.model.files import require_finite, save_weights, sha256_of
from facecaption_ml.flip.training.config import TrainingConfig
from facecaption_ml.storage.base import StoreError
from facecaption_ml.storage.lease import LEASE_S, Check
from facecaption_ml.storage.lock import exclusive
from facecaption_ml.storage.store import Store
from facecaption_ml.texts import shortened

logger = logging.getLogger("facecaption")

TRAININGS: Final = "flip_training"
"""Where the checkpoints of unfinished trainings lie in the store, apart from the finished ones."""
_SHORT: Final = 60  # characters of a value in a message
_FRESH: Final = "set fresh=true to start anew"
_LOCK: Final = ".lock"  # a hidden file: none of the store's own
_PATIENCE: Final = 3  # leases that a training waits for: that of one that was killed has ended by then
_NAME: Final = re.compile(r"(?:step|best)-(\d+)\.(json|pt|safetensors)")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read: weights by name, everything else by name, and the step after which it was made."""

    step: int
    weights: dict[str, Tensor]
    state: dict[str, Any]


class TrainingCheckpoints:
    """The checkpoints of one variant's training in a store, the newest ``keep`` of them."""

    def __init__(self, store: Store, variant: str, keep: int) -> None:
        self._store, self._folder, self._keep = store, f"{TRAININGS}/{variant}", keep
        self._still_alone: Check = lambda: None

    @classmethod
    def of(cls, config: TrainingConfig) -> TrainingCheckpoints:
        return cls(config.open_store(), config.key_prefix or config.variant, config.options.keep_checkpoints)

    @property
    def lock(self) -> Path | None:
        """The file that a training of this folder holds locked; None on S3, where it holds a lease."""
        return None if "://" in self._store.root else Path(self.uri) / _LOCK

    @contextlib.contextmanager
    def alone(self, lease_s: float = LEASE_S) -> Iterator[None]:
        """Within the block no other training writes these checkpoints, from whatever machine.

        In a folder another one is refused at once. On S3 it is waited for until the lease of one that was killed has ended, and
        a training whose lease another has taken, as after its node was cut off, writes no more. Raises LockedError.
        """
        what = f"a training with checkpoints under {self.uri}"
        if self.lock:
            try:
                self.lock.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(f"cannot write {self.uri}: {error.strerror}") from error
            with exclusive(self.lock, what):
                yield
            return
        name = self._folder.replace("/", "-")
        alone = self._store.working_alone(name, what, wait_s=_PATIENCE * lease_s, lease_s=lease_s, on_wait=logger.info)
        with alone as check:
            self._still_alone = check
            yield

    def require_alone(self) -> None:
        """Raises LockedError where another training may have taken this one's place."""
        self._still_alone()

    @property
    def uri(self) -> str:
        """Where they lie."""
        return self._store.uri(self._folder)

    def save(
        self,
        step: int,
        weights: Mapping[str, Tensor],
        state: Mapping[str, Any],
        reproducibility: Mapping[str, Any],
        processes: int,
        best_epoch: int = 0,
    ) -> str:
        """Write a checkpoint after ``step`` optimiser steps, forget what is too old, and return its address.

        ``reproducibility`` and ``processes`` must be the same when it is read back. ``best_epoch``: whose weights it needs, 0:
        none.
        """
        self.require_alone()
        digests: dict[str, str] = {}
        with self._store.writing_file(self._key("step", step, "safetensors")) as path:
            save_weights(weights, path)
            digests["safetensors"] = sha256_of(path)
        # Given a path, torch says of a full disk only that a position is unexpected.
        with self._store.writing_file(self._key("step", step, "pt")) as path, path.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            digests["pt"] = sha256_of(path)
        record = {
            "step": step,
            "processes": processes,
            "best_epoch": best_epoch,
            "sha256": digests,
            "reproducibility": dict(reproducibility),
        }
        key = self._key("step", step, "json")
        self._store.write_bytes(key, json.dumps(record, indent=1).encode())
        kept = self._steps()[-self._keep :]
        self._forget("step", set(kept))
        self._forget("best", {self._record(step)["best_epoch"] for step in kept})
        return self._store.uri(key.removesuffix(".json"))

    def load(self, config: TrainingConfig, processes: int) -> Checkpoint | None:
        """The newest whole checkpoint; None where there is none.

        Raises TrainingError naming the first option under which it was made and that is another now, or what is damaged.
        """
        step = self.latest_step()
        if step is None:
            return None
        record = self._record(step)
        self._require_same(record, config, processes)
        written = record.get("sha256", {})  # of an earlier version: nothing to compare with
        with self._reading(step, "safetensors", written) as path:
            weights = load_file(path)
            require_finite(weights)
        with self._reading(step, "pt", written) as path:
            state = torch.load(path, weights_only=True, map_location="cpu")
        return Checkpoint(step, weights, state)

    def latest_step(self) -> int | None:
        """The step of the newest whole checkpoint."""
        return max(self._steps(), default=None)

    def save_best(self, epoch: int, weights: Mapping[str, Tensor]) -> None:
        """Keep the weights of the best epoch so far. Those that the newest checkpoint needs stay: it may be resumed."""
        self.require_alone()
        with self._store.writing_file(self._key("best", epoch, "safetensors")) as path:
            save_weights(weights, path)
        self._forget("best", {epoch, *(self._record(step)["best_epoch"] for step in self._steps())})

    @contextlib.contextmanager
    def best(self, epoch: int) -> Iterator[Path]:
        """The file of that epoch's weights. Raises TrainingError where it is gone."""
        key = self._key("best", epoch, "safetensors")
        if not self._store.exists(key):
            raise TrainingError(f"{self._store.uri(key)} is gone: {_FRESH}", "fresh")
        with self._store.reading_file(key) as path:
            yield path

    def remove(self) -> None:
        """Forget the training, once its result is in place or another is to take its place."""
        self._forget("step", set())
        self._forget("best", set())

    def _forget(self, kind: str, kept: set[int]) -> None:
        for number, ending in self._files(kind):
            if number not in kept:
                self._store.delete(self._key(kind, number, ending))

    def _steps(self) -> list[int]:
        """Of whole checkpoints, in order."""
        return [number for number, ending in self._files("step") if ending == "json"]

    def _files(self, kind: str) -> list[tuple[int, str]]:
        """Number and ending of all files of a kind. Records come first, so that nothing half deleted counts."""
        names = (key.rpartition("/")[2] for key in self._store.keys(f"{self._folder}/{kind}-"))
        matches = (match.groups() for match in map(_NAME.fullmatch, names) if match)
        return sorted(((int(number), ending) for number, ending in matches), key=lambda one: (one[1], one[0]))

    def _key(self, kind: str, number: int, ending: str) -> str:
        return f"{self._folder}/{kind}-{number:08d}.{ending}"

    def _record(self, step: int) -> dict[str, Any]:
        with self._reading(step, "json") as path:
            return dict(json.loads(path.read_text(encoding="utf-8")))

    @contextlib.contextmanager
    def _reading(self, step: int, ending: str, written: Mapping[str, str] | None = None) -> Iterator[Path]:
        """A file of a checkpoint; ``written`` are the SHA-256 of what was written, by ending.

        Raises TrainingError in the place of what readers of three formats raise.
        """
        key = self._key("step", step, ending)
        try:
            with self._store.reading_file(key) as path:
                if written and written.get(ending) not in (None, sha256_of(path)):
                    raise ValueError("its SHA-256 is not that of what was written")
                yield path
        except Exception as error:
            earlier = [kept for kept in self._steps() if kept < step]
            resume = f"remove step-{step:08d}.json there to resume after step {earlier[-1]}, or " if earlier else ""
            raise TrainingError(
                f"{self._store.uri(key)} cannot be read ({first_line(error)}): {resume}{_FRESH}", "fresh"
            ) from error

    def _require_same(self, record: Mapping[str, Any], config: TrainingConfig, processes: int) -> None:
        if "reproducibility" not in record:
            raise TrainingError(
                f"the unfinished training under {self.uri} is of an earlier version of this program, which cannot be "
                f"resumed: {_FRESH}",
                "fresh",
            )
        made = {**record["reproducibility"], "processes": record["processes"]}
        now = json.loads(json.dumps({**config.reproducibility_fields(), "processes": processes}))
        for name in now:
            if made.get(name) != now[name]:
                raise TrainingError(
                    f"the unfinished training under {self.uri} was made with {name} {_short(made.get(name))}, now it is "
                    f"{_short(now[name])}: set it back, or {_FRESH}",
                    name,
                    "fresh",
                )


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} from {value[0]} to {value[-1]}" if value else "none"
    return shortened(str(value), _SHORT) if value != "" else "empty"
