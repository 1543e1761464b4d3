"""Checkpoints of a training under way: written whole, a few kept, and read back to go on exactly where they stopped.

``<prefix>/training/step-<n>/`` holds ``model.safetensors`` (the weights) and ``state.pt`` (momentum towers, queue, optimiser,
loss scale, random numbers, place in the data, history); ``<prefix>/training/latest.json`` is written last and names the
step, so a process killed while writing leaves the checkpoint before it in force.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from facecaption_ml.flip.config import TrainingConfig, TrainingError
from facecaption_ml.store import Store

MODEL: Final = "model.safetensors"
_STATE: Final = "state.pt"
_LATEST: Final = "latest.json"
_BEST: Final = "best.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as read: weights by name, everything else by name, and the step after which it was made."""

    step: int
    weights: dict[str, Tensor]
    state: dict[str, Any]


class TrainingCheckpoints:
    """The checkpoints of one training in a store, the newest ``keep`` of them."""

    def __init__(self, store: Store, prefix: str, keep: int) -> None:
        self._store, self._folder, self._keep = store, f"{prefix}/training", keep

    def save(
        self,
        step: int,
        weights: Mapping[str, Tensor],
        state: Mapping[str, Any],
        science: Mapping[str, Any],
        processes: int,
    ) -> str:
        """Write a checkpoint after ``step`` optimiser steps, forget those that are too old, and return its address."""
        folder = f"{self._folder}/step-{step:08d}"
        with self._store.writing_file(f"{folder}/{MODEL}") as path:
            save_weights(weights, path)
        with self._store.writing_file(f"{folder}/{_STATE}") as path:
            torch.save(dict(state), path)
        record = {"step": step, "processes": processes, "settings": dict(science)}
        self._store.write_bytes(f"{self._folder}/{_LATEST}", json.dumps(record, indent=1).encode())
        self._forget_old(step)
        return self._store.uri(folder)

    def load(self, config: TrainingConfig, processes: int) -> Checkpoint | None:
        """The newest whole checkpoint; None where there is none.

        Raises TrainingError naming the first setting under which it was made and that is another now.
        """
        record = self._record()
        if record is None:
            return None
        self._require_same(record, config, processes)
        folder = f"{self._folder}/step-{record['step']:08d}"
        with self._store.reading_file(f"{folder}/{MODEL}") as path:
            weights = load_file(path)
        with self._store.reading_file(f"{folder}/{_STATE}") as path:
            state = torch.load(path, weights_only=True, map_location="cpu")
        return Checkpoint(record["step"], weights, state)

    def latest_step(self) -> int | None:
        """The step of the newest whole checkpoint."""
        record = self._record()
        return record["step"] if record else None

    def save_best(self, weights: Mapping[str, Tensor]) -> None:
        with self._store.writing_file(f"{self._folder}/{_BEST}") as path:
            save_weights(weights, path)

    @contextlib.contextmanager
    def best(self) -> Iterator[Path | None]:
        """The file of the best epoch's weights; None before the first."""
        if not self._store.exists(f"{self._folder}/{_BEST}"):
            yield None
            return
        with self._store.reading_file(f"{self._folder}/{_BEST}") as path:
            yield path

    def remove(self) -> None:
        """Forget the training, once its result is in place."""
        self._store.delete(f"{self._folder}/{_LATEST}")
        for key in self._store.keys(f"{self._folder}/"):
            self._store.delete(key)

    def _record(self) -> dict[str, Any] | None:
        key = f"{self._folder}/{_LATEST}"
        return json.loads(self._store.read_bytes(key)) if self._store.exists(key) else None

    def _require_same(self, record: Mapping[str, Any], config: TrainingConfig, processes: int) -> None:
        made = {**record["settings"], "processes": record["processes"]}
        now = json.loads(json.dumps({**config.science(), "processes": processes}))
        for name in now:
            if made.get(name) != now[name]:
                raise TrainingError(
                    f"the unfinished training under {self._store.uri(self._folder)} was made with {name} "
                    f"{_short(made.get(name))}, now it is {_short(now[name])}: set it back, or FACECAPTION_FLIP_FRESH=true to "
                    "start anew"
                )

    def _forget_old(self, step: int) -> None:
        folders: dict[str, list[str]] = {}
        for key in self._store.keys(f"{self._folder}/step-"):
            folders.setdefault(key.rpartition("/")[0], []).append(key)
        older = sorted(folder for folder in folders if folder < f"{self._folder}/step-{step:08d}")
        newer = [folder for folder in folders if folder > f"{self._folder}/step-{step:08d}"]  # of a training given up
        for folder in [*older[: len(older) - self._keep + 1], *newer]:
            for key in folders[folder]:
                self._store.delete(key)


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """As safetensors, on the CPU."""
    save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, path)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
