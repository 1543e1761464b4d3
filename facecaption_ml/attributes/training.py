"""Training of the attribute network, with checkpoint, resume, early stopping and calibration.

    python -m facecaption_ml.attributes --data CELEBA_FOLDER --preset tiny --out FOLDER

The epoch is chosen by the validation loss of the averaged weights; the calibration is fitted on the validation split; the
test split is looked at once, at the end. The command line is in ``command_line.py``.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from facecaption_ml.attributes.augmentation import augment, mix
from facecaption_ml.attributes.checkpoints import WEIGHTS, read_weights, write_weights
from facecaption_ml.attributes.commands import COMMANDS, commands_before, merged, training_command
from facecaption_ml.attributes.data import AttributeData
from facecaption_ml.attributes.distillation import soft_labels
from facecaption_ml.attributes.evaluation import Evaluation
from facecaption_ml.attributes.finishing import finish_checkpoint
from facecaption_ml.attributes.labels import PAPER_THRESHOLD
from facecaption_ml.attributes.network import AttributeNetwork, Preset
from facecaption_ml.attributes.prediction import AttributePredictor
from facecaption_ml.attributes.starting_weights import start_from
from facecaption_ml.attributes.training_state import Learned, Progress, TrainingState
from facecaption_ml.attributes.weighting import adaptive_weights
from facecaption_ml.devices import autocast, compute_dtype
from facecaption_ml.pretrained import weights_version
from facecaption_ml.storage.lock import exclusive

logger = logging.getLogger("facecaption")

LOCK: Final = ".lock"
_LEARNING_RATE_SHARE: Final = 0.25
"""Of the preset's rate: what a checkpoint has learned would be lost at the rate that random weights need."""
_TREND_WINDOW: Final = 2  # epochs on either side of the trend


@dataclass(frozen=True)
class EpochReport:
    """What an epoch came to; losses are mean binary cross-entropies."""

    epoch: int
    epochs: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    seconds: float


def train_attributes(
    data: AttributeData,
    preset: str | Preset,
    out: Path,
    *,
    epochs: int = 0,
    seed: int = 0,
    device: str = "cpu",
    patience: int = 15,
    resume: bool = True,
    adaptive: float = 0.3,
    init: Path | None = None,
    teacher: Path | None = None,
    rate_share: float = 0.0,
    threshold: float = PAPER_THRESHOLD,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> Evaluation:
    """Train, keep the best epoch in ``out`` (weights, config, evaluation) and return its scores on the test split.

    ``epochs`` 0: the preset's own number. ``patience``: epochs without a better validation loss before it stops.
    ``adaptive`` in 0–1: how far the task weights follow the validation loss's trend (0: equal weights). ``init`` names a
    checkpoint folder of the same preset to fine-tune, at a quarter of its learning rate; for ``face_resnet``, the file of its
    trunk's weights too, at the full one. ``teacher``: a checkpoint whose probabilities make half of the labels.
    ``rate_share`` in place of that quarter; 0: as said.
    ``threshold``: that of labels, for the evaluation. A training that was killed resumes after its last whole epoch where
    ``resume`` is set and ``out`` holds its state. Raises PresetError, CheckpointError where ``init`` or ``teacher`` does not
    fit, and LockedError where another process trains in ``out``.
    """
    shape = preset if isinstance(preset, Preset) else Preset.named(preset)
    lock = exclusive(out / LOCK, f"a training in {out}")
    with lock, _threads(shape.threads):
        run = _Training(data, shape, out, epochs, seed, device, adaptive, init, teacher, rate_share)
        if resume:
            run.progress = run.state.restore()
        else:
            run.state.forget()
        while run.progress.epoch < run.epochs and run.progress.epoch - run.progress.best_epoch <= patience:
            report = run.run_epoch()
            logger.info(
                "attribute_model: epoch %d of %d, train loss %.3f, validation loss %.3f, accuracy %.2f%%, %.0f s",
                report.epoch,
                report.epochs,
                report.train_loss,
                report.validation_loss,
                100 * report.validation_accuracy,
                report.seconds,
            )
            if on_epoch:
                on_epoch(report)
        return run.finish(threshold)


@contextlib.contextmanager
def _threads(limit: int) -> Iterator[None]:
    """At most ``limit`` torch threads inside the block; 0 leaves them as they are."""
    before = torch.get_num_threads()
    if limit:
        torch.set_num_threads(min(limit, before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Training:
    def __init__(
        self,
        data: AttributeData,
        preset: Preset,
        out: Path,
        epochs: int,
        seed: int,
        device: str,
        adaptive: float,
        init: Path | None = None,
        teacher: Path | None = None,
        rate_share: float = 0.0,
    ) -> None:
        torch.manual_seed(seed)
        self.data, self.preset, self.out, self.seed, self.device = data, preset, out, seed, device
        self.epochs, self.adaptive = epochs or preset.epochs, adaptive
        self.progress = Progress()
        self.network = AttributeNetwork(preset).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.init, is_checkpoint = start_from(self.network, init) if init else ("", False)
        self.targets, self.teacher = data.labels.astype(np.float32), ""
        if teacher:
            known = AttributePredictor.load(teacher, device)
            self.targets, self.teacher = soft_labels(data, known), known.version
        self.source, self.taught_by, self.starts_whole = init, teacher, is_checkpoint
        self.rate_share = rate_share or (_LEARNING_RATE_SHARE if is_checkpoint else 1.0)
        self.average = copy.deepcopy(self.network).eval()
        self.optimizer = torch.optim.AdamW(_groups(self.network, preset), fused=True)
        self.peaks = [group["lr"] * self.rate_share for group in self.optimizer.param_groups]
        self.steps_per_epoch = max(len(data.rows["train"]) // preset.batch_size, 1)
        self.dtype = compute_dtype("auto", device)
        out.mkdir(parents=True, exist_ok=True)
        identity = {
            "preset": asdict(preset),
            "seed": seed,
            "epochs": self.epochs,
            "init": self.init,
            "teacher": self.teacher,
            "rate_share": self.rate_share,
            "data": data.fingerprint,
        }
        self.state = TrainingState(out, Learned(self.network, self.average, self.optimizer), identity)

    def run_epoch(self) -> EpochReport:
        started = time.monotonic()
        epoch = self.progress.epoch
        # Order and views follow from seed and epoch alone, so that a resumed training sees what it would have seen.
        generator = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
        rows = self.data.rows["train"]
        order = rows[torch.randperm(len(rows), generator=generator).numpy()]
        weights = adaptive_weights(self.progress.validation_losses or [np.ones(40)], _TREND_WINDOW, self.adaptive)
        task_weights = torch.from_numpy(weights).float().to(self.device)
        self.network.train()
        losses = []
        for step in range(self.steps_per_epoch):
            batch = order[step * self.preset.batch_size : (step + 1) * self.preset.batch_size]
            losses.append(self._step(batch, epoch * self.steps_per_epoch + step, task_weights, generator))
        return self._end_epoch(float(np.mean(losses)), started)

    def _step(self, batch: np.ndarray, number: int, task_weights: Tensor, generator: torch.Generator) -> float:
        share = _schedule(number, self.epochs * self.steps_per_epoch, self.preset.warm_up)
        for group, peak in zip(self.optimizer.param_groups, self.peaks, strict=True):
            group["lr"] = peak * share
        pixels = torch.from_numpy(self.data.images.batch(batch, self.preset.input)).permute(0, 3, 1, 2).float()
        labels = torch.from_numpy(self.targets[batch])
        x, y = mix(
            augment(pixels.to(self.device), generator, self.preset.augmentation),
            labels.to(self.device),
            self.preset.mixup,
            generator,
        )
        with autocast(self.dtype, self.device):
            logits = self.network(self.network.normalised(x))
        loss = (F.binary_cross_entropy_with_logits(logits.float(), y, reduction="none").mean(0) * task_weights).mean()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the attribute loss is not finite at step {number}: lower the learning rate")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self._update_average()
        return loss.item()

    @torch.no_grad()
    def _update_average(self) -> None:
        self.progress.updates += 1
        updates = self.progress.updates
        decay = min(self.preset.average_decay, (1 + updates) / (10 + updates))
        for mean, value in zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True):
            if mean.dtype.is_floating_point:
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    def _end_epoch(self, train_loss: float, started: float) -> EpochReport:
        logits, labels = self._logits("validation")
        per_task = np.logaddexp(0.0, np.where(labels, -logits, logits)).mean(0)
        progress = self.progress
        progress.epoch += 1
        progress.validation_losses.append(per_task)
        if per_task.mean() < progress.best_loss:
            progress.best_loss, progress.best_epoch = float(per_task.mean()), progress.epoch
            self._save_weights()
        self.state.save(progress)
        accuracy = float(((logits > 0) == labels).mean())
        seconds = time.monotonic() - started
        return EpochReport(progress.epoch, self.epochs, train_loss, float(per_task.mean()), accuracy, seconds)

    @torch.inference_mode()
    def _logits(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Logits of the averaged weights, crop and mirror image together, and labels; both [N, 40]."""
        rows = self.data.rows[split]
        logits = []
        for start in range(0, len(rows), 256):
            pixels = torch.from_numpy(self.data.images.batch(rows[start : start + 256], self.preset.input))
            with autocast(self.dtype, self.device):
                logits.append(self.average.views(pixels.permute(0, 3, 1, 2).float().to(self.device)))
        return torch.cat(logits).cpu().numpy(), self.data.labels[rows]

    def _save_weights(self) -> None:
        write_weights(self.out / WEIGHTS, self.average.state_dict(), self.preset.eight_bits)

    def finish(self, threshold: float) -> Evaluation:
        """Calibrate the best epoch on the validation split, evaluate it on the test split, write config and scores."""
        self.average.load_state_dict(read_weights(self.out / WEIGHTS))
        self.dtype = torch.float32  # the predictor's own arithmetic
        logits = {split: self._logits(split)[0] for split in ("validation", "test")}
        config: dict[str, Any] = {
            "preset": asdict(self.preset),
            "best_epoch": self.progress.best_epoch,
            "seed": self.seed,
        }
        if self.source:
            config["init"] = f"{self.source.name} ({self.init})"
        if self.teacher:
            config["teacher"] = self.teacher
        config[COMMANDS] = self._commands()
        return finish_checkpoint(self.out, logits, self.data, config, threshold)

    def _commands(self) -> list[str]:
        options: dict[str, object] = {}
        usual = _LEARNING_RATE_SHARE if self.starts_whole else 1.0
        for name, value, default in (
            ("epochs", self.epochs, self.preset.epochs),
            ("init", self.source, None),
            ("teacher", self.taught_by, None),
            ("rate-share", self.rate_share, usual),
            ("adaptive", self.adaptive, 0.3),
        ):
            if value != default:
                options[name] = value
        own = training_command(self.preset, self.seed, weights_version(self.out / WEIGHTS), options)
        return merged(commands_before(self.source), commands_before(self.taught_by), [own])


def _groups(network: AttributeNetwork, preset: Preset) -> list[dict[str, Any]]:
    """The trunk's and the head's parameters, each with its peak rate; norms and biases are not decayed."""
    groups = []
    for is_trunk, rate in ((True, preset.trunk_rate or preset.learning_rate), (False, preset.learning_rate)):
        chosen = [
            p for name, p in network.named_parameters() if p.requires_grad and name.startswith("trunk.") == is_trunk
        ]
        groups.append({"params": [p for p in chosen if p.ndim > 1], "lr": rate, "weight_decay": preset.weight_decay})
        groups.append({"params": [p for p in chosen if p.ndim <= 1], "lr": rate, "weight_decay": 0.0})
    return groups


def _schedule(step: int, steps: int, warm_share: float) -> float:
    """Warm-up over a share of the steps (at most 500), then a cosine to zero; a share of the peak rate."""
    warm_up = max(min(int(steps * warm_share), 500), 1)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(steps - warm_up, 1)))
