"""Attention of the text tower: PyTorch's fused kernels, with one picture's keys and values serving several captions.

The matching loss looks at every picture twice: with its own caption and with another's. Keys and values of
cross-attention depend on the picture alone, so they are computed once a picture and taken by row, which saves two thirds of
that work. ``transformers`` lets attention functions be registered by name and hands them the keyword arguments of the
model's ``forward``; nothing of its layers is written again here.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME: Final = "flip_sdpa"


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    image_rows: Tensor | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """SDPA. ``image_rows``: int64 [N], the picture of each caption in the batch; self-attention has no use for it."""

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if image_rows is not None and type(module).__name__ == "BertCrossAttention":
            key, value = key.index_select(0, image_rows), value.index_select(0, image_rows)
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, **kwargs)[0]

    if dropout and query.device.type == "cpu" and torch.is_grad_enabled():
        # PyTorch's fused kernel for CPUs knows no dropout; the other keeps probabilities for the backward pass (1.3 GB in a
        # step of 8 pairs). Computing them again costs little, as the fused kernels do it too.
        return checkpoint(attend, query, key, value, use_reentrant=False), None
    return attend(query, key, value), None


AttentionInterface.register(NAME, _attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
