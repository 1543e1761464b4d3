"""FLIP's training loop: one process on a laptop, or one for each GPU under ``torchrun`` (paper §5.1)."""

from __future__ import annotations

import dataclasses
import itertools
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from facecaption_ml.devices import compute_dtype
from facecaption_ml.errors import naming
from facecaption_ml.flip.errors import TrainingError, TrainingInterrupted
from facecaption_ml.flip.model.flops import matrix_rate, step_flops
from facecaption_ml.flip.model.presets import Preset
from facecaption_ml.flip.model.tokenization import CaptionTokenizer
from facecaption_ml.flip.model.weight_names import load_stable, stable_state
from facecaption_ml.flip.pairs.loader import PairBatch
from facecaption_ml.flip.training.checkpoint import Checkpoint, TrainingCheckpoints
from facecaption_ml.flip.training.config import TrainingConfig
from facecaption_ml.flip.training.data import training_loader, training_pairs, training_tokenizer
from facecaption_ml.flip.training.distributed import ProcessGroup
from facecaption_ml.flip.training.evaluation import HeldOutRecall, encode_pairs, held_out_recall, matching_by_split
from facecaption_ml.flip.training.export import TrainingOutcome, write_checkpoint
from facecaption_ml.flip.training.momentum import check_queue_size
from facecaption_ml.flip.training.objectives import soft_target_alpha
from facecaption_ml.flip.training.optimisation import learning_rate, warm_up_within
from facecaption_ml.flip.training.progress import Report, StepMeter, TrainingLog, logger, memory_gib
from facecaption_ml.flip.training.task import PairLosses
from facecaption_ml.flip.training.train_state import TrainState

StopRequested = Callable[[], int | None]
"""The number of the signal that told the training to stop; None before."""


@dataclass
class Position:
    """Where a training stands: optimiser steps done, and the next batch of which epoch."""

    step: int = 0
    epoch: int = 0
    batch: int = 0


class Trainer:
    """One process's part of a training. Everything it needs is made, and a checkpoint read, on construction."""

    def __init__(
        self,
        config: TrainingConfig,
        dist: ProcessGroup,
        work: Path,
        report: Report | None,
        checkpoints: TrainingCheckpoints,
    ) -> None:
        self.config, self.options, self.dist, self.work = config, config.options, dist, work
        self.preset = Preset.named(self.options.preset)
        if self.options.batch_size * dist.count < 2:
            raise TrainingError("batch_size is 1: a pair alone has nothing to be told apart from", "batch_size")
        check_queue_size(self.options.queue_size, self.options.batch_size * dist.count)
        with naming("precision"):
            dtype = compute_dtype(self.options.precision, dist.device)
        self.store = config.open_store()
        self.checkpoints = checkpoints
        self.pairs = training_pairs(config, self.preset, dist)
        self.loader = training_loader(config, self.preset, self.pairs.train, dist)
        self.steps_per_epoch = self.loader.batches_per_epoch // self.options.accumulation
        if not self.steps_per_epoch:
            raise TrainingError(
                f"accumulation is {self.options.accumulation}, but an epoch has {self.loader.batches_per_epoch} batches",
                "accumulation",
            )
        self.steps = self.options.epochs * self.steps_per_epoch
        self.warm_up = warm_up_within(self.options.warm_up_steps, self.steps)
        self._rate = matrix_rate(dist.device, dtype) if dist.is_main_process else 0.0
        checkpoint = self._unfinished()
        self.tokenizer = self._tokenizer(checkpoint)
        self.state = TrainState(config, self.preset, self.tokenizer, dist)
        self.rate, self.is_saving = 0.0, False  # the rate is that of the last step
        self.position, self.best, self.best_epoch = Position(), -1.0, 0
        self.seen: Counter[str] = Counter()  # by this process; the main one's begins with what all have seen before
        self.history: list[dict[str, Any]] = []
        if checkpoint:
            self._resume(checkpoint)
        earlier = checkpoint.state["log"] if checkpoint else ()
        self.log = TrainingLog(work, report, earlier) if dist.is_main_process else None
        if self.log:
            self._announce()
        self.meter = StepMeter()
        self._saved_step, self._saved_at, self._waited = self.position.step, time.monotonic(), 0.0

    # -- preparation -------------------------------------------------------------------------------------------------

    def _unfinished(self) -> Checkpoint | None:
        """The checkpoint to resume from. Raises TrainingError where it is of other options or pairs."""
        if self.options.fresh:
            if self.dist.is_main_process:
                self.checkpoints.remove()
            self.dist.barrier()
            return None
        checkpoint = self.checkpoints.load(self.config, self.dist.count)
        if checkpoint and checkpoint.state["pairs"] != self.pairs.version:
            raise TrainingError(
                f"the unfinished training under {self.checkpoints.uri} read other pairs than there are now: set fresh=true "
                "to start anew",
                "fresh",
            )
        return checkpoint

    def _tokenizer(self, checkpoint: Checkpoint | None) -> CaptionTokenizer:
        if checkpoint:
            return CaptionTokenizer.from_json(checkpoint.state["tokenizer"], self.preset.text.max_tokens)
        return training_tokenizer(self.config, self.preset, self.pairs, self.dist)

    def _resume(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state
        self.state.resume(checkpoint.weights, state, state["random"][self.dist.rank])
        self.position = Position(**state["position"])
        self.best, self.best_epoch, self.history = state["best"], state["best_epoch"], state["history"]
        self.seen.update(state["seen"] if self.dist.is_main_process else {})
        if self.dist.is_main_process:
            logger.info("%s: resuming after step %d of %d", self.config.variant, self.position.step, self.steps)

    def _announce(self) -> None:
        assert self.log
        parameters, pairs = self.state.model.parameter_count(), len(self.pairs.train)
        global_batch = self.options.batch_size * self.options.accumulation * self.dist.count
        line = (
            f"{self.config.variant}: preset {self.preset.name}, {parameters / 1e6:.1f}M parameters without momentum copies; "
            f"{pairs:,} pairs of {len(self.config.shards)} shards, {self.steps:,} steps in {self.options.epochs} epochs, "
            f"global batch {global_batch}; {self.dist.count} processes, "
            f"{self.dist.device.type}, {str(self.state.dtype).removeprefix('torch.')}"
        )
        self.log.record("start", self.position.step, line, parameters=parameters, pairs=pairs)
        if self.warm_up < self.options.warm_up_steps:
            logger.warning(
                "%s: warm_up_steps is %d, more than a tenth of this training's %d steps: the rate rises over %d",
                self.config.variant, self.options.warm_up_steps, self.steps, self.warm_up,
            )  # fmt: skip

    # -- the loop ----------------------------------------------------------------------------------------------------

    def fit(self, stop: StopRequested) -> None:
        """All epochs from where the position is. Raises TrainingInterrupted, TrainingError (a loss that is not finite)."""
        last = min(self.steps, self.config.max_steps or self.steps)
        while self.position.step < last:
            self._epoch(last, stop)
        if self.position.step < self.steps and self.position.step != self._saved_step:
            self._save()

    def _epoch(self, last: int, stop: StopRequested) -> None:
        """The rest of the epoch. Between steps the position is always that of the next batch."""
        left = self.steps_per_epoch * self.options.accumulation - self.position.batch
        with closing(self.loader.epoch(self.position.epoch, self.position.batch)) as batches:
            for batch in itertools.islice(batches, left):
                ends_step = (self.position.batch + 1) % self.options.accumulation == 0
                losses = self._backward(batch, ends_step)
                self.position.batch += 1
                if ends_step:
                    self._update(losses)
                    self._between_steps(stop)
                    if self.position.step >= last:
                        return

    def _backward(self, batch: PairBatch, ends_step: bool) -> PairLosses:
        alpha = soft_target_alpha(
            self.position.step, self.steps_per_epoch, self.options.soft_targets, self.options.soft_target_epochs
        )
        losses, tokens = self.state.backward(batch, alpha, ends_step)
        self.seen.update(truncated=tokens.truncated, undecodable=batch.undecodable)
        flops = step_flops(self.preset, len(batch.texts), tokens.ids.shape[1], self.dist.count)
        self.meter.add(losses.logged(), len(batch.texts), flops)
        return losses

    def _update(self, losses: PairLosses) -> None:
        norm = self.state.gradient_norm()
        finite = bool(torch.isfinite(losses.total.detach())) and (
            self.state.skips_overflow or bool(torch.isfinite(norm))
        )
        if self.dist.any(not finite)[0]:
            raise self._diverged(
                f"the loss or its gradient is not finite at step {self.position.step + 1} (contrastive "
                f"{float(losses.contrastive):.4g}, matching {float(losses.matching):.4g})"
            )
        self.rate = self._learning_rate()
        self.state.step(self.rate)
        self.position.step += 1
        self.meter.grad_norm = float(norm)

    def _learning_rate(self) -> float:
        c = self.options
        rates = c.first_learning_rate, c.peak_learning_rate, c.last_learning_rate
        return learning_rate(self.position.step, self.steps, *rates, self.warm_up)

    def _diverged(self, what: str) -> TrainingError:
        kept = self.checkpoints.latest_step()
        intact = f"the checkpoint after step {kept} is intact; " if kept else ""
        return TrainingError(
            f"{what}: {intact}lower peak_learning_rate (now {self.options.peak_learning_rate:g}), or set precision=fp32",
            "peak_learning_rate",
            "precision",
        )

    def _require_finite_weights(self) -> None:
        """Before anything is made of them: the loss of the next step would say it too late."""
        if not self.state.is_finite:
            raise self._diverged(f"the weights are not finite after step {self.position.step}")

    def _between_steps(self, stop: StopRequested) -> None:
        if self.position.step % self.options.log_every == 0 or self.position.step == 1:
            self._log_steps()
        if self.position.batch == self.steps_per_epoch * self.options.accumulation:
            self.position.epoch, self.position.batch = self.position.epoch + 1, 0
            self._require_finite_weights()
            self._evaluate()
        due = self.dist.is_main_process and time.monotonic() - self._saved_at > 60 * self.options.checkpoint_minutes
        number = stop()
        stopping, saving = self.dist.any(number is not None, due)
        if stopping or saving:
            uri = self._save()
        if stopping:
            line = f"told to stop after step {self.position.step} of {self.steps}; the next run resumes from {uri}"
            raise TrainingInterrupted(line, number or signal.SIGTERM)

    # -- log, checkpoints and result -----------------------------------------------------------------------------------

    def _log_steps(self) -> None:
        meter, self.meter = self.meter, StepMeter()
        sums = self.dist.mean(meter.sums.to(self.dist.device))
        if not self.log:
            return
        waited, self._waited = self.loader.wait_seconds - self._waited, self.loader.wait_seconds
        self.log.step(
            self.position.step,
            f"{self._in_epoch(self.position.epoch + 1)} step {self.position.step}/{self.steps}",
            **meter.values(sums, self.dist.count, self._rate, waited),
            temperature=float(self.state.model.temperature.detach()),
            learning_rate=self.rate,
            memory_gib=memory_gib(self.dist.device),
        )

    def _in_epoch(self, epoch: int) -> str:
        return f"{self.config.variant} epoch {epoch}/{self.options.epochs}"

    def _evaluate(self) -> None:
        """After an epoch: recall on held-out pairs; the weights of the best one, by mean reciprocal rank, are kept.

        Other processes wait.
        """
        started = time.monotonic()
        if self.log:
            recall = self._held_out("validation")
            values = recall.values() if recall else {}
            self.history.append({"epoch": self.position.epoch, "step": self.position.step, **values})
            if not recall or recall.reciprocal_rank > self.best:
                self.best = recall.reciprocal_rank if recall else self.best
                self.best_epoch = self.position.epoch
                self.checkpoints.save_best(self.best_epoch, stable_state(self.state.model))
            line = f"{self._in_epoch(self.position.epoch)} done · {recall or 'no held-out pairs'}"
            self.log.record("epoch", self.position.step, line, epoch=self.position.epoch, **values)
        self.dist.barrier()
        self.meter.exclude(time.monotonic() - started)

    def _held_out(self, split: str) -> HeldOutRecall | None:
        batches = self.pairs.held_out[split]
        features = encode_pairs(self.state.model, self.tokenizer, batches, self.dist.device, self.state.dtype)
        return held_out_recall(*features) if len(features[0]) else None

    def _save(self) -> str:
        """A checkpoint, and where it lies ('' on other processes). Raises TrainingError where the weights are not finite."""
        self.is_saving = True
        try:
            return self._save_now()
        finally:
            self.is_saving = False

    def _save_now(self) -> str:
        started = time.monotonic()
        self._require_finite_weights()
        random = self.dist.gather_object(self.state.random_state())
        seen = self._seen_by_all()
        uri = ""
        if self.log:
            uri = self.checkpoints.save(
                self.position.step,
                stable_state(self.state.model),
                {**self._own_state(), "random": random, "seen": dict(seen)},
                self.config.reproducibility_fields(),
                self.dist.count,
                self.best_epoch,
            )
            seconds = time.monotonic() - started
            line = f"{self.config.variant} checkpoint after step {self.position.step}: {uri} ({seconds:.1f} s)"
            self.log.record("checkpoint", self.position.step, line, seconds=seconds)
        self._saved_step, self._saved_at = self.position.step, time.monotonic()
        self.dist.barrier()
        self.meter.exclude(time.monotonic() - started)
        return uri

    def _own_state(self) -> dict[str, Any]:
        """All else that the next run needs and the main process has."""
        assert self.log
        return {
            **self.state.state(),
            "position": dataclasses.asdict(self.position),
            "best": self.best,
            "best_epoch": self.best_epoch,
            "history": self.history,
            "tokenizer": self.tokenizer.to_json(),
            "pairs": self.pairs.version,
            "log": self.log.records,
        }

    def _seen_by_all(self) -> Counter[str]:
        """Of the captions cut and the pictures that did not decode, over all processes; on the main process only."""
        return sum(self.dist.gather_object(self.seen), Counter())

    def finish(self) -> TrainingOutcome | None:
        """The best epoch's weights, judged once on the test split, to the store; the unfinished state is forgotten."""
        if self.position.step < self.steps:
            return None
        seen = self._seen_by_all()
        if not self.log:
            return None
        with self.checkpoints.best(self.best_epoch) as weights:
            load_stable(self.state.model, load_file(weights))
            recalls = {split: recall for split in self.pairs.held_out if (recall := self._held_out(split))}
            for split, recall in recalls.items():
                line = f"{self.config.variant} epoch {self.best_epoch} chosen · {split}: {recall}"
                self.log.record(split, self.position.step, line, epoch=self.best_epoch, **recall.values())
            judged = self.dist.device, self.state.dtype, self.config.seed
            matching = matching_by_split(self.state.model, self.tokenizer, self.pairs.held_out, *judged)
            for split, auc in matching.items():
                line = f"{self.config.variant} epoch {self.best_epoch} chosen · {split}: matching AUC {auc:.3f} (chance 0.5)"
                self.log.record(f"{split}_matching", self.position.step, line, epoch=self.best_epoch, auc=auc)
            self.log.flush()
            self.checkpoints.require_alone()
            outcome = write_checkpoint(
                store=self.store,
                training=self.config,
                preset=self.state.model.preset,  # with the form of the image tower that came in
                weights=weights,
                tokenizer=self.tokenizer,
                work=self.work,
                best_epoch=self.best_epoch,
                recalls=recalls,
                matching=matching,
                facts=self._facts(seen),
            )
        self.checkpoints.remove()
        return outcome

    def _facts(self, seen: Counter[str]) -> dict[str, Any]:
        return {
            "parameters": self.state.model.parameter_count(),
            "steps": self.position.step,
            "pairs": len(self.pairs.train),
            "data_version": self.pairs.version,
            "excluded": {reason: count for reason, count in self.pairs.train.counts.items() if reason != "pairs"},
            "undecodable": seen["undecodable"],
            "truncated": seen["truncated"],
            "processes": self.dist.count,
            "precision": str(self.state.dtype).removeprefix("torch."),
            "history": self.history,
        }

    def close(self) -> None:
        self.loader.close()
        if self.log:
            self.log.close()
