"""FLIP's training loop: one process on a laptop, or one for each GPU under ``torchrun`` (paper §5.1)."""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from facecaption_ml.flip.checkpoint import TrainingCheckpoints
from facecaption_ml.flip.config import TrainingConfig, TrainingError
from facecaption_ml.flip.data import PairBatch, PairLoader
from facecaption_ml.flip.distributed import Processes, processes
from facecaption_ml.flip.evaluation import HeldOutRecall, encode_pairs, held_out_recall
from facecaption_ml.flip.export import TrainingOutcome, write_checkpoint
from facecaption_ml.flip.flops import matrix_rate, step_flops
from facecaption_ml.flip.initialisation import build, tokenizer_of
from facecaption_ml.flip.objectives import soft_target_alpha
from facecaption_ml.flip.optimisation import memory_gib, parameter_groups, random_state, restore_random_state
from facecaption_ml.flip.pairs import TrainingPairs, read_pairs
from facecaption_ml.flip.precision import autocast, compute_dtype
from facecaption_ml.flip.presets import Preset
from facecaption_ml.flip.pretraining import FlipPretraining, PairLosses
from facecaption_ml.flip.progress import Report, StepMeter, TrainingLog, logger
from facecaption_ml.flip.queue import check_queue_size
from facecaption_ml.flip.schedule import learning_rate
from facecaption_ml.flip.tokenization import CaptionTokenizer


class TrainingInterrupted(RuntimeError):  # noqa: N818  (nothing went wrong)
    """The training was told to stop (SIGTERM or SIGINT) and left a checkpoint to go on from."""


def train(config: TrainingConfig, work: Path, report: Report | None = None) -> TrainingOutcome | None:
    """Train the variant, go on where an unfinished training stopped, and write the checkpoint to the store.

    Called by every process; ``work`` is a local folder for logs and TensorBoard files. ``report`` is given each record on the
    first process. Returns the outcome there, None elsewhere. Raises TrainingError, PresetError, WeightsNotReachable
    or ValueError with one line that names what is wrong, and TrainingInterrupted after SIGTERM or SIGINT.
    """
    with processes(config.device) as group, _stop_signals() as stop:
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
        self.dtype = compute_dtype(config.precision, group.device)
        self.store = config.open_store()
        self.checkpoints = TrainingCheckpoints(self.store, config.prefix, config.keep_checkpoints)
        self.pairs: TrainingPairs = read_pairs(config, self.preset, group)
        self.loader = PairLoader(
            self.pairs.train,
            batch_size=config.batch_size,
            image_size=self.preset.image.size,
            seed=config.seed,
            rank=group.rank,
            world_size=group.count,
            augment=True,
            randaugment=config.augmentation,
            threads=config.loader_threads,
            process=config.loader_process,
            window_row_groups=config.window_row_groups,
        )
        self.steps_per_epoch = self.loader.batches_per_epoch // config.accumulation
        if not self.steps_per_epoch:
            raise TrainingError(
                f"FACECAPTION_FLIP_ACCUMULATION is {config.accumulation}, but an epoch has {self.loader.batches_per_epoch} "
                "batches"
            )
        self.steps = config.epochs * self.steps_per_epoch
        self.tokenizer = self._tokenizer()
        self._build()
        self.position, self.best, self.best_epoch, self.truncated = Position(), -1.0, 0, 0
        self.history: list[dict[str, Any]] = []
        self._resume()
        self.log = TrainingLog(work, report, self.position.step) if group.first else None
        self.meter = StepMeter()
        self._rate = matrix_rate(group.device, self.dtype) if group.first else 0.0
        self._saved_at, self._waited = time.monotonic(), 0.0

    # -- preparation -------------------------------------------------------------------------------------------------

    def _tokenizer(self) -> CaptionTokenizer:
        found = tokenizer_of(self.preset, self.config.text_init, self.pairs.texts) if self.group.first else None
        return CaptionTokenizer.from_json(self.group.share(found and found.to_json()), self.preset.text.max_tokens)

    def _build(self) -> None:
        config, device = self.config, self.group.device
        model = build(self.preset, self.tokenizer, config.seed, config.image_init, config.text_init)
        if config.activation_checkpointing:
            for tower in (model.image, model.text):
                tower.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(config.seed + 1_000_003 * self.group.rank)  # dropout differs between processes
        self.pretraining = FlipPretraining(
            model, self.tokenizer.enc_id, config.queue_size, config.momentum, config.seed
        ).to(device)
        self.pretraining.train()
        self.optimizer = torch.optim.AdamW(
            parameter_groups(model, config.weight_decay), lr=config.first_learning_rate, fused=True
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)
        stepped: nn.Module = self.pretraining
        if config.compile:
            stepped = torch.compile(stepped)  # type: ignore[assignment]
        if self.group.count > 1:
            ids = [device.index] if device.type == "cuda" else None
            # the queue is fed equally everywhere: nothing to broadcast
            stepped = nn.parallel.DistributedDataParallel(stepped, device_ids=ids, broadcast_buffers=False)
        self.stepped = stepped

    def _resume(self) -> None:
        if self.config.fresh:
            if self.group.first:
                self.checkpoints.remove()
            self.group.wait()
            return
        found = self.checkpoints.load(self.config, self.group.count)
        if found is None:
            return
        state = found.state
        if state["vocabulary"] != self.tokenizer.vocabulary or state["pairs"] != self.pairs.version:
            raise TrainingError(
                f"the unfinished training under {self.store.uri(self.config.prefix)} read other pairs than there are now: set "
                "FACECAPTION_FLIP_FRESH=true to start anew"
            )
        self.pretraining.model.load_state_dict(found.weights)
        self.pretraining.momentum_model.load_state_dict(state["momentum"])
        self.pretraining.queue.load_state_dict(state["queue"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        restore_random_state(state["random"][self.group.rank], self.pretraining.generator(self.group.device))
        self.position = Position(**state["position"])
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.history, self.truncated = state["history"], state["truncated"]
        logger.info("%s: going on after step %d of %d", self.config.variant, self.position.step, self.steps)

    # -- the loop ----------------------------------------------------------------------------------------------------

    def fit(self, stop: threading.Event) -> None:
        """All epochs from where the position is. Raises TrainingInterrupted, TrainingError (a loss that is not finite)."""
        last = min(self.steps, self.config.max_steps or self.steps)
        while self.position.step < last and self.position.epoch < self.config.epochs:
            self._epoch(last, stop)
            if self.position.batch >= self.steps_per_epoch * self.config.accumulation:
                self.position.epoch, self.position.batch = self.position.epoch + 1, 0
                self._evaluate()
        if self.position.step < self.steps:
            self._save()

    def _epoch(self, last: int, stop: threading.Event) -> None:
        whole = self.steps_per_epoch * self.config.accumulation
        batches = self.loader.epoch(self.position.epoch, self.position.batch)
        try:
            for batch in batches:
                if self.position.batch >= whole or self.position.step >= last:
                    return
                ends_step = (self.position.batch + 1) % self.config.accumulation == 0
                losses = self._backward(batch, ends_step)
                self.position.batch += 1
                if ends_step:
                    self._update(losses)
                    self._between_steps(stop)
        finally:
            batches.close()

    def _backward(self, batch: PairBatch, ends_step: bool) -> PairLosses:
        device = self.group.device
        # with several processes all batches are of one width, since token ids are gathered
        tokens = self.tokenizer(batch.texts, self.preset.text.max_tokens if self.group.count > 1 else None)
        self.truncated += tokens.truncated
        tokens = tokens.to(device)
        pixels = batch.images.to(device, non_blocking=True)
        alpha = soft_target_alpha(
            self.position.step, self.steps_per_epoch, self.config.soft_targets, self.config.soft_target_epochs
        )
        waits = isinstance(self.stepped, nn.parallel.DistributedDataParallel) and not ends_step
        with self.stepped.no_sync() if waits else nullcontext():  # type: ignore[operator]
            with autocast(self.dtype, device):
                losses: PairLosses = self.stepped(pixels, tokens.ids, tokens.mask, batch.caption_ids.to(device), alpha)
            self.scaler.scale(losses.total / self.config.accumulation).backward()
        flops = step_flops(self.preset, len(batch.texts), tokens.ids.shape[1], self.group.count)
        self.meter.add(losses.logged(), len(batch.texts), flops)
        return losses

    def _update(self, losses: PairLosses) -> None:
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.pretraining.model.parameters(), self.config.clip_norm or float("inf"))
        finite = bool(torch.isfinite(losses.total.detach())) and (
            self.scaler.is_enabled() or bool(torch.isfinite(norm))
        )
        if self.group.any(not finite)[0]:
            kept = self.checkpoints.latest_step()
            raise TrainingError(
                f"the loss or its gradient is not finite at step {self.position.step + 1} (contrastive "
                f"{float(losses.contrastive):.4g}, matching {float(losses.matching):.4g}); "
                + (f"the checkpoint after step {kept} is intact: " if kept else "")
                + "lower FACECAPTION_FLIP_PEAK_LEARNING_RATE, or set FACECAPTION_FLIP_PRECISION=fp32"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.pretraining.after_step()
        self.position.step += 1
        self.meter.grad_norm = float(norm)

    def _learning_rate(self) -> float:
        c = self.config
        rates = c.first_learning_rate, c.peak_learning_rate, c.last_learning_rate
        return learning_rate(self.position.step, self.steps, *rates, c.warm_up_steps)

    def _between_steps(self, stop: threading.Event) -> None:
        due = self.group.first and time.monotonic() - self._saved_at > 60 * self.config.checkpoint_minutes
        stopping, saving = self.group.any(stop.is_set(), due)
        if self.position.step % self.config.log_every == 0 or self.position.step == 1:
            self._log_steps()
        if stopping or saving:
            place = self._save()
            if stopping:
                raise TrainingInterrupted(
                    f"told to stop after step {self.position.step} of {self.steps}; {place} is where the next run goes on"
                )

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
            temperature=float(self.pretraining.model.temperature.detach()),
            learning_rate=self.optimizer.param_groups[0]["lr"],
            memory_gib=memory_gib(self.group.device),
        )

    def _place(self, epoch: int) -> str:
        return f"{self.config.variant} epoch {epoch}/{self.config.epochs}"

    def _evaluate(self) -> None:
        """After an epoch: recall on held-out pairs; the best epoch's weights are kept. Other processes wait."""
        if self.log:
            found = self._held_out("validation")
            values = found.values() if found else {}
            self.history.append({"epoch": self.position.epoch, "step": self.position.step, **values})
            if not found or found.mean > self.best:
                self.best = found.mean if found else self.best
                self.best_epoch = self.position.epoch
                self.checkpoints.save_best(self.pretraining.model.state_dict())
            line = f"{self._place(self.position.epoch)} done · {found or 'no held-out pairs'}"
            self.log.record("epoch", self.position.step, line, epoch=self.position.epoch, **values)
        self.group.wait()

    def _held_out(self, split: str) -> HeldOutRecall | None:
        batches = self.pairs.held_out[split]
        features = encode_pairs(self.pretraining.model, self.tokenizer, batches, self.group.device, self.dtype)
        return held_out_recall(*features) if len(features[0]) else None

    def _save(self) -> str:
        random = self.group.collect(random_state(self.pretraining.generator(self.group.device)))
        place = ""
        if self.group.first:
            state = {
                "momentum": self.pretraining.momentum_model.state_dict(),
                "queue": self.pretraining.queue.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "random": random,
                "position": dataclasses.asdict(self.position),
                "best": self.best,
                "best_epoch": self.best_epoch,
                "history": self.history,
                "truncated": self.truncated,
                "vocabulary": self.tokenizer.vocabulary,
                "pairs": self.pairs.version,
            }
            started = time.monotonic()
            place = self.checkpoints.save(
                self.position.step, self.pretraining.model.state_dict(), state, self.config.science(), self.group.count
            )
            assert self.log
            seconds = time.monotonic() - started
            line = f"{self.config.variant} checkpoint after step {self.position.step}: {place} ({seconds:.1f} s)"
            self.log.record("checkpoint", self.position.step, line, seconds=seconds)
        self._saved_at = time.monotonic()
        self.group.wait()
        return place

    def finish(self) -> TrainingOutcome | None:
        """The best epoch's weights, judged once on the test split, to the store; the unfinished state is forgotten."""
        if not self.log or self.position.step < self.steps:
            return None
        with self.checkpoints.best() as weights:
            assert weights is not None, "an epoch has been evaluated"
            self.pretraining.model.load_state_dict(load_file(weights))
            recalls = {split: found for split in self.pairs.held_out if (found := self._held_out(split))}
            outcome = write_checkpoint(
                store=self.store,
                training=self.config,
                preset=self.preset,
                weights=weights,
                tokenizer=self.tokenizer,
                work=self.work,
                best_epoch=self.best_epoch,
                recalls=recalls,
                facts=self._facts(),
            )
        self.checkpoints.remove()
        return outcome

    def _facts(self) -> dict[str, Any]:
        return {
            "parameters": self.pretraining.model.parameter_count(),
            "steps": self.position.step,
            "pairs": len(self.pairs.train),
            "data_version": self.pairs.version,
            "left_out": {reason: count for reason, count in self.pairs.train.counts.items() if reason != "pairs"},
            "undecodable": self.loader.undecodable,
            "truncated": self.truncated,
            "processes": self.group.count,
            "precision": str(self.dtype).removeprefix("torch."),
            "history": self.history,
        }

    def close(self) -> None:
        self.loader.close()
        if self.log:
            self.log.close()


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, so that a step is finished and a checkpoint written before the end."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
