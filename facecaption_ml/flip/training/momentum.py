"""Momentum towers, an exponential moving average of the trained weights (He et al., CVPR 2020; ALBEF, §3.2), and the queue of
their features: past batches as further candidates of the contrastive loss."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from types import MethodType
from typing import TypeVar

import torch
from torch import Tensor, nn

from facecaption_ml.flip.errors import TrainingError

M = TypeVar("M", bound=nn.Module)


def momentum_copy(module: M) -> M:
    """A copy that no optimiser trains, in evaluation mode and kept there: its features are targets, so without dropout."""
    copied = copy.deepcopy(module).requires_grad_(False).eval()
    copied.train = MethodType(_stay_in_evaluation, copied)  # type: ignore[method-assign]
    return copied


def _stay_in_evaluation(self: nn.Module, mode: bool = True) -> nn.Module:
    return self


@torch.no_grad()
def update_momentum(source: nn.Module, target: nn.Module, momentum: float) -> None:
    """``target`` = ``momentum`` · ``target`` + (1 − ``momentum``) · ``source``, parameter by parameter; buffers are copied.

    ``target`` may lack parts of ``source``. Raises ValueError, with ``target`` as it was, naming a parameter or buffer of
    ``target`` that ``source`` lacks.
    """
    trained, averaged = dict(source.named_parameters()), dict(target.named_parameters())
    buffers, copied = dict(source.named_buffers()), dict(target.named_buffers())
    for kind, names, known in (("parameter", averaged, trained), ("buffer", copied, buffers)):
        for name in names:
            if name not in known:
                raise ValueError(f"the momentum copy has a {kind} {name!r} that the trained module lacks")
    torch._foreach_lerp_(list(averaged.values()), [trained[name] for name in averaged], 1 - momentum)
    for name, buffer in copied.items():
        buffer.copy_(buffers[name])


@dataclass(frozen=True)
class QueueView:
    """What the loss sees: features float32 [Q, D] of both modalities, caption ids int64 [Q], ``valid`` bool [Q].

    Rows that are not ``valid`` have not been filled yet and are no candidates.
    """

    image_features: Tensor
    text_features: Tensor
    caption_ids: Tensor
    valid: Tensor


class FeatureQueue(nn.Module):
    """A ring of the last ``size`` pairs' features, part of the module's state. ``size`` 0 is no queue."""

    image_features: Tensor
    text_features: Tensor
    caption_ids: Tensor
    valid: Tensor
    position: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("image_features", torch.zeros(size, dim))
        self.register_buffer("text_features", torch.zeros(size, dim))
        self.register_buffer("caption_ids", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("valid", torch.zeros(size, dtype=torch.bool))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    @property
    def size(self) -> int:
        return len(self.valid)

    @torch.no_grad()
    def enqueue(self, image_features: Tensor, text_features: Tensor, caption_ids: Tensor) -> None:
        """Put the features [G, D] and caption ids int64 [G] of the global batch in the place of the oldest rows.

        Raises ValueError for more rows than the queue has.
        """
        if not self.size:
            return
        if len(image_features) > self.size:
            raise ValueError(f"{len(image_features)} rows do not fit a queue of {self.size}")
        rows = (self.position + torch.arange(len(image_features), device=self.valid.device)) % self.size
        self.image_features[rows] = image_features.to(self.image_features.dtype)
        self.text_features[rows] = text_features.to(self.text_features.dtype)
        self.caption_ids[rows] = caption_ids
        self.valid[rows] = True
        self.position.add_(len(image_features)).remainder_(self.size)

    def view(self) -> QueueView:
        """The rows as they are: not copies, so a backward pass over them must come before the next ``enqueue``."""
        return QueueView(self.image_features, self.text_features, self.caption_ids, self.valid)


def check_queue_size(size: int, global_batch: int) -> None:
    """Raises TrainingError, naming sizes that fit, where ``size`` is no multiple of the global batch."""
    if size % global_batch:
        below, above = size // global_batch * global_batch, (size // global_batch + 1) * global_batch
        fitting = f"{below} or {above}" if below else f"0 (no queue) or {above}"
        raise TrainingError(
            f"queue_size is {size}, no multiple of the global batch of {global_batch} (batch size × processes): "
            f"{fitting} would fit",
            "queue_size",
        )
