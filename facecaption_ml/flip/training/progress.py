"""The log of a training while it runs: lines for people, records for programs, curves for TensorBoard."""

from __future__ import annotations

import json
import logging
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

LOG: Final = "log.jsonl"
TENSORBOARD: Final = "tensorboard"
logger = logging.getLogger("facecaption")

Record = dict[str, Any]
Report = Callable[[Mapping[str, Any]], None]


@dataclass
class StepMeter:
    """Sums over the steps since the last line."""

    sums: torch.Tensor = field(default_factory=lambda: torch.zeros(4))
    batches: int = 0
    pairs: int = 0
    flops: float = 0.0
    grad_norm: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def add(self, values: torch.Tensor, pairs: int, flops: float) -> None:
        """``values``: contrastive, matching, match accuracy, pairs without a negative."""
        self.sums = self.sums.to(values.device) + values
        self.batches += 1
        self.pairs += pairs
        self.flops += flops

    def exclude(self, seconds: float) -> None:
        """Time that went into something else than steps."""
        self.started += seconds

    def values(self, sums: torch.Tensor, processes: int, matrix_rate: float, waited: float) -> dict[str, float]:
        """Means for the log, by name. ``sums``: of ``values`` given to ``add``, averaged over the processes."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        contrastive, matching, accuracy, without = (sums / max(self.batches, 1)).tolist()
        return {
            "loss": contrastive + matching,
            "contrastive_loss": contrastive,
            "matching_loss": matching,
            "match_accuracy": accuracy,
            "without_negative": without,
            "gradient_norm": self.grad_norm,
            "pairs_per_second": self.pairs * processes / seconds,
            "mfu": self.flops / seconds / matrix_rate,
            "data_wait_share": waited / seconds,
        }


class TrainingLog:
    """Lines to the log and to ``report``, records to ``log.jsonl``, scalars to TensorBoard files; on the first process only.

    ``earlier``: the records of a training that is resumed, from its checkpoint. The folder's files then hold those and
    what follows, whatever was in them: steps that are run again are there once, also on another machine.
    """

    def __init__(self, folder: Path, report: Report | None, earlier: Iterable[Record] = ()) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        self.records: list[Record] = []
        self._path, self._report = folder / LOG, report
        shutil.rmtree(folder / TENSORBOARD, ignore_errors=True)
        self._tensorboard = SummaryWriter(str(folder / TENSORBOARD))
        self._path.write_text("", encoding="utf-8")
        self._write(list(earlier))

    def record(self, kind: str, step: int, line: str, **values: float) -> None:
        """One record of ``kind`` (``step``, ``epoch``, ``checkpoint`` …) with its line for people."""
        entry = {"kind": kind, "step": step, "time": round(time.time(), 3), **values}
        self._write([entry])
        logger.info("%s", line)
        if self._report:
            self._report({**entry, "line": line})

    def step(self, step: int, prefix: str, **values: float) -> None:
        """A record of the steps since the last; ``prefix`` is how the line begins."""
        line = (
            f"{prefix} · loss {values['loss']:.3f} (contrastive {values['contrastive_loss']:.3f}, matching "
            f"{values['matching_loss']:.3f}) · learning rate {values['learning_rate']:.2g}"
            f" · {values['pairs_per_second']:.1f} pairs/s · MFU {values['mfu']:.0%} · {values['memory_gib']:.1f} GiB"
            f" · waited for data {values['data_wait_share']:.0%}"
        )
        self.record("step", step, line, **values)

    def flush(self) -> None:
        """TensorBoard's writer keeps what it was given for up to two minutes."""
        self._tensorboard.flush()

    def close(self) -> None:
        self._tensorboard.close()

    def _write(self, records: list[Record]) -> None:
        self.records += records
        with self._path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
        for record in records:
            for name in sorted(record.keys() - {"kind", "step", "time"}):
                self._tensorboard.add_scalar(f"{record['kind']}/{name}", record[name], record["step"], record["time"])


def read_log(path: Path) -> list[Record]:
    """The records of a ``log.jsonl``; a last line cut by a kill is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def memory_gib(device: torch.device) -> float:
    """The peak so far, GiB: of the GPU's memory that was allocated, or of this process's memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
