"""Attention over a prompt prefix that all rows of a batch share, whose keys and values are kept once, not once a row.

In few-shot prompts nine tenths of the tokens are the same for every row. Copied into every row's cache they make each
decoding step read (and, where the cache grows by concatenation, copy) hundreds of megabytes. Here the scores against the
prefix are one matrix product over all rows, those against a row's own tokens another, and one softmax runs over both, so
the result is that of plain attention (the decomposition of Hydragen, Juravsky et al., 2024).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME: Final = "facecaption_shared_prefix"


class SharedPrefix:
    """Keys and values of one prefix, by layer: [key/value heads, tokens, width of a head]."""

    def __init__(self) -> None:
        self.layers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.tokens = 0


class _Current(threading.local):
    prefix: SharedPrefix | None = None


_current = _Current()


def supports(model: PreTrainedModel) -> bool:
    """Plain causal attention in every layer (no sliding windows), through transformers' attention interface."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    return kinds == {"full_attention"} and not window and bool(getattr(model, "_supports_attention_backend", False))


def prepare(model: PreTrainedModel) -> None:
    """Let the model attend with :func:`attend`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


@contextlib.contextmanager
def using(prefix: SharedPrefix | None) -> Iterator[None]:
    """The prefix that every row attends to, for this thread's forward passes inside the block."""
    _current.prefix = prefix
    try:
        yield
    finally:
        _current.prefix = None


def encode(model: PreTrainedModel, ids: torch.Tensor) -> SharedPrefix:
    """Run the model over a prefix (int64 [1, tokens]) and keep its keys and values."""
    from transformers import DynamicCache

    cache = DynamicCache()
    model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    prefix = SharedPrefix()
    prefix.tokens = int(ids.shape[1])
    for index, layer in enumerate(cache.layers):
        keys, values = layer.keys, layer.values  # type: ignore[union-attr]  # supports() admits attention layers only
        prefix.layers[index] = keys[0].contiguous(), values[0].contiguous()  # type: ignore[index]
    return prefix


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of ``query`` [B, H, Q, D] to the shared prefix and to ``key``, ``value`` [B, K, S, D]; gives [B, Q, H, D].

    ``attention_mask``: boolean (True: attend) or additive, [B or 1, 1, Q, S]; None: causal where Q > 1, else everything.
    """
    rows, heads, length, width = query.shape
    groups = key.shape[1]
    share = heads // groups
    scale = width**-0.5 if scaling is None else scaling
    grouped = query.reshape(rows, groups, share * length, width)
    own = torch.matmul(grouped, key.transpose(2, 3)).view(rows, groups, share, length, -1).float() * scale
    own = own + _bias(attention_mask, length, key.shape[2], own)
    prefix = _current.prefix.layers.get(module.layer_idx) if _current.prefix else None  # type: ignore[call-overload]
    if prefix is None:
        weights = own.softmax(-1).to(query.dtype)
        mixed = torch.matmul(weights.view(rows, groups, share * length, -1), value)
    else:
        keys, values = prefix
        flat = grouped.transpose(0, 1).reshape(groups, rows * share * length, width)
        before = torch.matmul(flat, keys.transpose(1, 2)).view(groups, rows, share, length, -1).transpose(0, 1)
        weights = torch.cat([before.float() * scale, own], -1).softmax(-1).to(query.dtype)
        split = keys.shape[1]
        shared = weights[..., :split].transpose(0, 1).reshape(groups, rows * share * length, split)
        mixed = torch.matmul(weights[..., split:].reshape(rows, groups, share * length, -1), value)
        mixed = mixed + torch.matmul(shared, values).view(groups, rows, share * length, width).transpose(0, 1)
    out = mixed.view(rows, groups, share, length, width).reshape(rows, heads, length, width)
    return out.transpose(1, 2).contiguous(), None


def _bias(mask: torch.Tensor | None, length: int, keys: int, like: torch.Tensor) -> torch.Tensor:
    """What is added to the scores: 0 or -inf, to broadcast over [B, K, share, Q, S]."""
    if mask is None:
        if length == 1:
            return like.new_zeros(())
        seen = torch.ones(length, keys, dtype=torch.bool, device=like.device).tril(keys - length)
        return like.new_zeros(()).masked_fill(~seen, float("-inf"))
    mask = mask[..., :keys]
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=like.dtype).masked_fill(~mask, torch.finfo(like.dtype).min)
    return mask.unsqueeze(1)
