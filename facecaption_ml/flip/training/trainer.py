"""FLIP's training loop: one process on a laptop, or one for each GPU under ``torchrun`` (paper §5.1)."""

from __future__ import annotations

import dataclasses
import itertools
import signal
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from facecaption_ml.devices import compute_dtype
from facecaption_ml.flip.model.flops import matrix_rate, step_flops
from facecaption_ml.flip.model.initialisation import tokenizer_of
from facecaption_ml.flip.model.presets import Preset
from facecaption_ml.flip.model.tokenization import CaptionTokenizer
from facecaption_ml.flip.pairs.loader import PairBatch
from facecaption_ml.flip.pairs.splits import TrainingPairs, read_pairs, training_loader
from facecaption_ml.flip.training.checkpoint import Checkpoint, TrainingCheckpoints
from facecaption_ml.flip.training.config import TrainingConfig, TrainingError
from facecaption_ml.flip.training.distributed import Processes, processes
from facecaption_ml.flip.training.evaluation import HeldOutRecall, encode_pairs, held_out_recall
from facecaption_ml.flip.training.learner import Learner
from facecaption_ml.flip.training.objectives import soft_target_alpha
from facecaption_ml.flip.training.optimisation import memory_gib
from facecaption_ml.flip.training.progress import Report, StepMeter, TrainingLog, logger
from facecaption_ml.flip.training.queue import check_queue_size
from facecaption_ml.flip.training.schedule import learning_rate
from facecaption_ml.flip.training.stopping import StopRequest, TrainingInterrupted, stop_signals
from facecaption_ml.flip.training.task import PairLosses
from facecaption_ml.flip.use.export import TrainingOutcome, write_checkpoint


def train(config: TrainingConfig, work: Path, report: Report | None = None) -> TrainingOutcome | None:
    """Train the variant, go on where an unfinished training stopped, and write the checkpoint to the store.

    Called by every process; ``work`` is a local folder for logs and TensorBoard files. ``report`` is given each record on the
    first process. Returns the outcome there, None elsewhere and where ``max_steps`` ended the run before the training was
    done. Raises TrainingError, PresetError, WeightsNotReachable, StoreError or ValueError with one line that names what is
    wrong, and TrainingInterrupted after SIGTERM or SIGINT.
    """
    with stop_signals() as stop, processes(config.device) as group:
        if config.threads:
            torch.set_num_threads(config.threads)
        trainer = Trainer(config, group, work, report)
        try:
            trainer.fit(stop)
            return trainer.finish()
        finally:
            trainer.close()


@dataclass
class Position:
    """Where a training stands: optimiser steps done, and the next batch of which epoch."""

    step: int = 0
    epoch: int = 0
    batch: int = 0


class Trainer:
    """One process's part of a training. Everything it needs is made, and a checkpoint read, on construction."""

    def __init__(self, config: TrainingConfig, group: Processes, work: Path, report: Report | None) -> None:
        self.config, self.group, self.work = config, group, work
        self.preset = Preset.named(config.preset)
        check_queue_size(config.queue_size, config.batch_size * group.count)
        dtype = compute_dtype(config.precision, group.device)
        self.store = config.open_store()
        self.checkpoints = TrainingCheckpoints.of(config)
        self.pairs: TrainingPairs = read_pairs(config, self.preset, group)
        self.loader = training_loader(config, self.preset, self.pairs.train, group)
        self.steps_per_epoch = self.loader.batches_per_epoch // config.accumulation
        if not self.steps_per_epoch:
            raise TrainingError(
                f"FACECAPTION_FLIP_ACCUMULATION is {config.accumulation}, but an epoch has {self.loader.batches_per_epoch} "
                "batches"
            )
        self.steps = config.epochs * self.steps_per_epoch
        self._rate = matrix_rate(group.device, dtype) if group.first else 0.0
        found = self._unfinished()
        self.tokenizer = self._tokenizer(found)
        self.learner = Learner(config, self.preset, self.tokenizer, group)
        self.rate = 0.0  # of the last step
        self.position, self.best, self.best_epoch = Position(), -1.0, 0
        self.seen: Counter[str] = Counter()  # by this process; the first one's begins with what all have seen before
        self.history: list[dict[str, Any]] = []
        if found:
            self._go_on(found)
        self.log = TrainingLog(work, report, found.state["log"] if found else ()) if group.first else None
        if self.log:
            self._announce()
        self.meter = StepMeter()
        self._saved_step, self._saved_at, self._waited = self.position.step, time.monotonic(), 0.0

    # -- preparation -------------------------------------------------------------------------------------------------

    def _unfinished(self) -> Checkpoint | None:
        """The checkpoint to go on from. Raises TrainingError where it is of other settings or pairs."""
        if self.config.fresh:
            if self.group.first:
                self.checkpoints.remove()
            self.group.wait()
            return None
        found = self.checkpoints.load(self.config, self.group.count)
        if found and found.state["pairs"] != self.pairs.version:
            raise TrainingError(
                f"the unfinished training under {self.checkpoints.uri} read other pairs than there are now: set "
                "FACECAPTION_FLIP_FRESH=true to start anew"
            )
        return found

    def _tokenizer(self, found: Checkpoint | None) -> CaptionTokenizer:
        if found:
            return CaptionTokenizer.from_json(found.state["tokenizer"], self.preset.text.max_tokens)
        made = tokenizer_of(self.preset, self.config.text_init, self.pairs.texts) if self.group.first else None
        return CaptionTokenizer.from_json(self.group.share(made and made.to_json()), self.preset.text.max_tokens)

    def _go_on(self, found: Checkpoint) -> None:
        state = found.state
        self.learner.go_on(found.weights, state, state["random"][self.group.rank])
        self.position = Position(**state["position"])
        self.best, self.best_epoch, self.history = state["best"], state["best_epoch"], state["history"]
        self.seen.update(state["seen"] if self.group.first else {})
        if self.group.first:
            logger.info("%s: going on after step %d of %d", self.config.variant, self.position.step, self.steps)

    def _announce(self) -> None:
        assert self.log
        parameters, pairs = self.learner.model.parameter_count(), len(self.pairs.train)
        line = (
            f"{self.config.variant}: preset {self.preset.name}, {parameters / 1e6:.1f}M parameters without momentum copies; "
            f"{pairs:,} pairs of {len(self.config.shards)} shards, {self.steps:,} steps in {self.config.epochs} epochs, global "
            f"batch {self.config.batch_size * self.config.accumulation * self.group.count}; {self.group.count} processes, "
            f"{self.group.device.type}, {str(self.learner.dtype).removeprefix('torch.')}"
        )
        self.log.record("start", self.position.step, line, parameters=parameters, pairs=pairs)

    # -- the loop ----------------------------------------------------------------------------------------------------

    def fit(self, stop: StopRequest) -> None:
        """All epochs from where the position is. Raises TrainingInterrupted, TrainingError (a loss that is not finite)."""
        last = min(self.steps, self.config.max_steps or self.steps)
        while self.position.step < last:
            self._epoch(last, stop)
        if self.position.step < self.steps and self.position.step != self._saved_step:
            self._save()

    def _epoch(self, last: int, stop: StopRequest) -> None:
        """The rest of the epoch. Between steps the position is always that of the next batch."""
        left = self.steps_per_epoch * self.config.accumulation - self.position.batch
        with closing(self.loader.epoch(self.position.epoch, self.position.batch)) as batches:
            for batch in itertools.islice(batches, left):
                ends_step = (self.position.batch + 1) % self.config.accumulation == 0
                losses = self._backward(batch, ends_step)
                self.position.batch += 1
                if ends_step:
                    self._update(losses)
                    self._between_steps(stop)
                    if self.position.step >= last:
                        return

    def _backward(self, batch: PairBatch, ends_step: bool) -> PairLosses:
        alpha = soft_target_alpha(
            self.position.step, self.steps_per_epoch, self.config.soft_targets, self.config.soft_target_epochs
        )
        losses, tokens = self.learner.backward(batch, alpha, ends_step)
        self.seen.update(truncated=tokens.truncated, undecodable=batch.undecodable)
        flops = step_flops(self.preset, len(batch.texts), tokens.ids.shape[1], self.group.count)
        self.meter.add(losses.logged(), len(batch.texts), flops)
        return losses

    def _update(self, losses: PairLosses) -> None:
        norm = self.learner.gradient_norm()
        finite = bool(torch.isfinite(losses.total.detach())) and (
            self.learner.skips_overflow or bool(torch.isfinite(norm))
        )
        if self.group.any(not finite)[0]:
            raise self._diverged(
                f"the loss or its gradient is not finite at step {self.position.step + 1} (contrastive "
                f"{float(losses.contrastive):.4g}, matching {float(losses.matching):.4g})"
            )
        self.rate = self._learning_rate()
        self.learner.step(self.rate)
        self.position.step += 1
        self.meter.grad_norm = float(norm)

    def _learning_rate(self) -> float:
        c = self.config
        rates = c.first_learning_rate, c.peak_learning_rate, c.last_learning_rate
        return learning_rate(self.position.step, self.steps, *rates, c.warm_up_steps)

    def _diverged(self, what: str) -> TrainingError:
        kept = self.checkpoints.latest_step()
        intact = f"the checkpoint after step {kept} is intact; " if kept else ""
        return TrainingError(
            f"{what}: {intact}lower FACECAPTION_FLIP_PEAK_LEARNING_RATE (now {self.config.peak_learning_rate:g}), or set "
            "FACECAPTION_FLIP_PRECISION=fp32"
        )

    def _require_finite_weights(self) -> None:
        """Before anything is made of them: the loss of the next step would say it too late."""
        if not self.learner.is_finite:
            raise self._diverged(f"the weights are not finite after step {self.position.step}")

    def _between_steps(self, stop: StopRequest) -> None:
        if self.position.step % self.config.log_every == 0 or self.position.step == 1:
            self._log_steps()
        if self.position.batch == self.steps_per_epoch * self.config.accumulation:
            self.position.epoch, self.position.batch = self.position.epoch + 1, 0
            self._require_finite_weights()
            self._evaluate()
        due = self.group.first and time.monotonic() - self._saved_at > 60 * self.config.checkpoint_minutes
        stopping, saving = self.group.any(stop.number is not None, due)
        if stopping or saving:
            place = self._save()
        if stopping:
            told = f"told to stop after step {self.position.step} of {self.steps}; the next run goes on from {place}"
            raise TrainingInterrupted(told, stop.number or signal.SIGTERM)

    # -- what it says and leaves -------------------------------------------------------------------------------------

    def _log_steps(self) -> None:
        meter, self.meter = self.meter, StepMeter()
        sums = self.group.mean(meter.sums.to(self.group.device))
        if not self.log:
            return
        waited, self._waited = self.loader.wait_seconds - self._waited, self.loader.wait_seconds
        self.log.step(
            self.position.step,
            f"{self._place(self.position.epoch + 1)} step {self.position.step}/{self.steps}",
            **meter.values(sums, self.group.count, self._rate, waited),
            temperature=float(self.learner.model.temperature.detach()),
            learning_rate=self.rate,
            memory_gib=memory_gib(self.group.device),
        )

    def _place(self, epoch: int) -> str:
        return f"{self.config.variant} epoch {epoch}/{self.config.epochs}"

    def _evaluate(self) -> None:
        """After an epoch: recall on held-out pairs; the best epoch's weights are kept. Other processes wait."""
        started = time.monotonic()
        if self.log:
            found = self._held_out("validation")
            values = found.values() if found else {}
            self.history.append({"epoch": self.position.epoch, "step": self.position.step, **values})
            if not found or found.mean > self.best:
                self.best = found.mean if found else self.best
                self.best_epoch = self.position.epoch
                self.checkpoints.save_best(self.best_epoch, self.learner.model.state_dict())
            line = f"{self._place(self.position.epoch)} done · {found or 'no held-out pairs'}"
            self.log.record("epoch", self.position.step, line, epoch=self.position.epoch, **values)
        self.group.wait()
        self.meter.leave_out(time.monotonic() - started)

    def _held_out(self, split: str) -> HeldOutRecall | None:
        batches = self.pairs.held_out[split]
        features = encode_pairs(self.learner.model, self.tokenizer, batches, self.group.device, self.learner.dtype)
        return held_out_recall(*features) if len(features[0]) else None

    def _save(self) -> str:
        """A checkpoint, and where it lies ('' on other processes). Raises TrainingError where the weights are not finite."""
        started = time.monotonic()
        self._require_finite_weights()
        random = self.group.collect(self.learner.random_state())
        seen = self._seen_by_all()
        place = ""
        if self.log:
            place = self.checkpoints.save(
                self.position.step,
                self.learner.model.state_dict(),
                {**self._state(), "random": random, "seen": dict(seen)},
                self.config.science(),
                self.group.count,
                self.best_epoch,
            )
            seconds = time.monotonic() - started
            line = f"{self.config.variant} checkpoint after step {self.position.step}: {place} ({seconds:.1f} s)"
            self.log.record("checkpoint", self.position.step, line, seconds=seconds)
        self._saved_step, self._saved_at = self.position.step, time.monotonic()
        self.group.wait()
        self.meter.leave_out(time.monotonic() - started)
        return place

    def _state(self) -> dict[str, Any]:
        """What else the first process has that the next run needs."""
        assert self.log
        return {
            **self.learner.state(),
            "position": dataclasses.asdict(self.position),
            "best": self.best,
            "best_epoch": self.best_epoch,
            "history": self.history,
            "tokenizer": self.tokenizer.to_json(),
            "pairs": self.pairs.version,
            "log": self.log.records,
        }

    def _seen_by_all(self) -> Counter[str]:
        """Of the captions cut and the pictures that did not decode, over all processes; on the first process only."""
        return sum(self.group.collect(self.seen), Counter())

    def finish(self) -> TrainingOutcome | None:
        """The best epoch's weights, judged once on the test split, to the store; the unfinished state is forgotten."""
        if self.position.step < self.steps:
            return None
        seen = self._seen_by_all()
        if not self.log:
            return None
        with self.checkpoints.best(self.best_epoch) as weights:
            self.learner.model.load_state_dict(load_file(weights))
            recalls = {split: found for split in self.pairs.held_out if (found := self._held_out(split))}
            for split, found in recalls.items():
                line = f"{self.config.variant} epoch {self.best_epoch} chosen · {split}: {found}"
                self.log.record(split, self.position.step, line, epoch=self.best_epoch, **found.values())
            self.log.flush()
            outcome = write_checkpoint(
                store=self.store,
                training=self.config,
                preset=self.preset,
                weights=weights,
                tokenizer=self.tokenizer,
                work=self.work,
                best_epoch=self.best_epoch,
                recalls=recalls,
                facts=self._facts(seen),
            )
        self.checkpoints.remove()
        return outcome

    def _facts(self, seen: Counter[str]) -> dict[str, Any]:
        return {
            "parameters": self.learner.model.parameter_count(),
            "steps": self.position.step,
            "pairs": len(self.pairs.train),
            "data_version": self.pairs.version,
            "left_out": {reason: count for reason, count in self.pairs.train.counts.items() if reason != "pairs"},
            "undecodable": seen["undecodable"],
            "truncated": seen["truncated"],
            "processes": self.group.count,
            "precision": str(self.learner.dtype).removeprefix("torch."),
            "history": self.history,
        }

    def close(self) -> None:
        self.loader.close()
        if self.log:
            self.log.close()
