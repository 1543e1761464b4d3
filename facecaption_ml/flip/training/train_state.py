"""One process's model in training with its optimiser, loss scale and random numbers: a step, and their state to resume."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from facecaption_ml.devices import autocast, compute_dtype
from facecaption_ml.flip.model.initialisation import build
from facecaption_ml.flip.model.model import FlipModel
from facecaption_ml.flip.model.presets import Preset
from facecaption_ml.flip.model.tokenization import CaptionTokenizer, Tokens
from facecaption_ml.flip.model.weight_names import load_stable, stable_state
from facecaption_ml.flip.pairs.loader import PairBatch
from facecaption_ml.flip.training.config import TrainingConfig
from facecaption_ml.flip.training.distributed import ProcessGroup
from facecaption_ml.flip.training.optimisation import parameter_groups, random_state, restore_random_state
from facecaption_ml.flip.training.task import FlipTask, PairLosses


class TrainState:
    """The model, momentum towers, queue, optimiser and random numbers of one process of ``dist``.

    ``model`` is the trained one, ``dtype`` the type it computes in. Raises WeightsNotReachable where a tower's weights cannot
    be had, FaceCaptionError for a precision that the device does not have.
    """

    def __init__(self, config: TrainingConfig, preset: Preset, tokenizer: CaptionTokenizer, dist: ProcessGroup) -> None:
        options = config.options
        self.options, self.preset, self.tokenizer, self.dist = options, preset, tokenizer, dist
        self.dtype = compute_dtype(options.precision, dist.device)
        self.model: FlipModel = build(
            preset, tokenizer, config.seed, options.image_init, options.text_init, options.init
        )
        if options.activation_checkpointing:
            for tower in (self.model.image, self.model.text):
                tower.activation_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(config.seed + 1_000_003 * dist.rank)  # dropout differs between processes
        self._task = FlipTask(self.model, tokenizer.enc_id, options.queue_size, options.momentum, config.seed)
        self._task.to(dist.device).train()
        self._optimizer = torch.optim.AdamW(
            parameter_groups(self.model, options.weight_decay), lr=options.first_learning_rate, fused=True
        )
        self._scaler = torch.amp.GradScaler(dist.device.type, enabled=self.dtype is torch.float16)
        self._stepped: nn.Module = self._task
        if options.compile:
            self._stepped = torch.compile(self._stepped)  # type: ignore[assignment]
        if dist.count > 1:
            ids = [dist.device.index] if dist.device.type == "cuda" else None
            # the queue is fed equally everywhere: nothing to broadcast
            self._stepped = nn.parallel.DistributedDataParallel(self._stepped, device_ids=ids, broadcast_buffers=False)

    def backward(self, batch: PairBatch, alpha: float, ends_step: bool) -> tuple[PairLosses, Tokens]:
        """Add the batch's gradient. ``alpha``: weight of soft targets. Processes exchange gradients where it ``ends_step``."""
        device = self.dist.device
        # with several processes all batches are of one width, since token ids are gathered
        tokens = self.tokenizer(batch.texts, self.preset.text.max_tokens if self.dist.count > 1 else None).to(device)
        pixels = batch.images.to(device, non_blocking=True)
        waits = isinstance(self._stepped, nn.parallel.DistributedDataParallel) and not ends_step
        with self._stepped.no_sync() if waits else nullcontext():  # type: ignore[operator]
            with autocast(self.dtype, device):
                losses: PairLosses = self._stepped(pixels, tokens.ids, tokens.mask, batch.caption_ids.to(device), alpha)
            self._scaler.scale(losses.total / self.options.accumulation).backward()
        return losses, tokens

    def gradient_norm(self) -> Tensor:
        """Clip the gradient of all batches since the last step; its norm before that."""
        self._scaler.unscale_(self._optimizer)
        return nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip_norm or float("inf"))

    @property
    def skips_overflow(self) -> bool:
        """Whether a step whose gradient is not finite is skipped and the loss scale lowered, as with float16."""
        return self._scaler.is_enabled()

    def step(self, learning_rate: float) -> None:
        """One optimiser step with the gradient as it is, and what follows one."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        self._task.after_step()

    @property
    def is_finite(self) -> bool:
        """Whether no weight is infinite or NaN. The same on every process."""
        return bool(torch.isfinite(nn.utils.get_total_norm(list(self.model.parameters()))))

    def state(self) -> dict[str, Any]:
        """What it takes to resume besides the weights and each process's ``random_state``."""
        return {
            "momentum": stable_state(self._task.momentum_model),
            "queue": self._task.queue.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def random_state(self) -> dict[str, Tensor]:
        """Of this process: dropout's and the negatives' random numbers."""
        return random_state(self._task.generator(self.dist.device))

    def resume(self, weights: Mapping[str, Tensor], state: Mapping[str, Any], random: Mapping[str, Tensor]) -> None:
        """Take up weights, what ``state`` gave, and what ``random_state`` gave on this process."""
        load_stable(self.model, weights)
        load_stable(self._task.momentum_model, state["momentum"])
        self._task.queue.load_state_dict(state["queue"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        restore_random_state(random, self._task.generator(self.dist.device))
