"""A batch that a language model decodes, which rows may join and leave between any two steps.

The cost of a step hardly depends on the number of rows, so one that waits for its last row wastes most of its steps
(the observation behind iteration-level scheduling; Orca, Yu et al., OSDI 2022). Here each row's tokens end in the last
column of the keys and values, whenever the row joined; columns before its first token are masked, and those that no row
uses are cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch.nn.functional import pad
from transformers import DynamicCache

from facecaption_ml.captions.backends import shared_prefix

if TYPE_CHECKING:
    from facecaption_ml.captions.backends.shared_prefix import SharedPrefix

_TOKENS_AT_ONCE: Final = 1024  # of prompts in one pass: with more, what layers hand on outgrows a processor's cache


@dataclass
class _Block:
    """Keys and values of rows [B, K, S, D] a layer, and which columns are theirs: ``mask`` int64 [B, S], 1 or 0.

    ``places`` int64 [B, 1]: the position of each row's next token, counted from the start of the shared prefix.
    """

    cache: DynamicCache
    mask: torch.Tensor
    places: torch.Tensor


class RunningBatch:
    """Rows being written, in the order in which they joined; all stand behind one shared prefix, or none."""

    def __init__(self, model: Any, device: str, prefix: SharedPrefix | None = None) -> None:
        self._model, self._device, self._prefix = model, device, prefix
        self._block: _Block | None = None

    @torch.inference_mode()
    def join(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Add rows, by the token ids (at least one) behind the prefix; gives the logits [rows added, V] of their first tokens.

        Equal prompts are computed once. Memory is least where neighbours have similar lengths.
        """
        distinct = list(dict.fromkeys(tuple(prompt) for prompt in prompts))
        number = {prompt: i for i, prompt in enumerate(distinct)}
        read = [self._read(part) for part in _parts(distinct)]
        rows = torch.tensor([number[tuple(prompt)] for prompt in prompts], device=self._device)
        joining = _stacked([block for block, _ in read])
        if len(distinct) < len(prompts):
            _select(joining, rows)
        self._block = _stacked([self._block, joining]) if self._block else joining
        return torch.cat([logits for _, logits in read])[rows]

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Append a token to each row; gives the logits [B, V] of the next ones."""
        assert self._block is not None
        block = self._block
        ids = torch.tensor([[token] for token in tokens], device=self._device)
        block.mask = pad(block.mask, (0, 1), value=1)
        logits = self._forward(ids, block.mask, block.places, block.cache)
        block.places = block.places + 1
        return logits

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Let all other rows go; ``rows`` are numbers in the batch, ascending."""
        assert self._block is not None
        if not rows:
            self._block = None
            return
        _select(self._block, torch.tensor(rows, device=self._device))

    def _read(self, prompts: Sequence[Sequence[int]]) -> tuple[_Block, torch.Tensor]:
        """Prompts, padded on the left, as a block of their own, and the logits [B, V] behind them."""
        longest = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=self._device)
        lengths = torch.tensor([[len(prompt)] for prompt in prompts], device=self._device)
        mask = (torch.arange(longest, device=self._device) >= longest - lengths).long()
        before = self._prefix.tokens if self._prefix else 0
        places = before + (mask.cumsum(1) - 1).clamp(min=0)
        cache = DynamicCache()
        logits = self._forward(ids, mask, places, cache)
        return _Block(cache, mask, before + lengths), logits

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor, places: torch.Tensor, cache: DynamicCache
    ) -> torch.Tensor:
        with shared_prefix.using(self._prefix):
            output = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        logits: torch.Tensor = output.logits[:, -1]
        return logits


def _parts(prompts: Sequence[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """Neighbours together, as many as make few enough tokens with their padding."""
    parts: list[list[tuple[int, ...]]] = [[]]
    longest = 0
    for prompt in prompts:
        longest = max(longest, len(prompt))
        if parts[-1] and longest * (len(parts[-1]) + 1) > _TOKENS_AT_ONCE:
            parts.append([])
            longest = len(prompt)
        parts[-1].append(prompt)
    return parts


def _stacked(blocks: Sequence[_Block]) -> _Block:
    """The rows of all blocks, their last columns aligned. Takes over the first block's cache."""
    width = max(block.mask.shape[1] for block in blocks)
    missing = [width - block.mask.shape[1] for block in blocks]
    first = blocks[0].cache
    for layers in zip(*(block.cache.layers for block in blocks), strict=True):
        kept: Any = layers[0]
        for name in ("keys", "values"):
            setattr(
                kept,
                name,
                torch.cat([pad(getattr(x, name), (0, 0, n, 0)) for x, n in zip(layers, missing, strict=True)]),
            )
    mask = torch.cat([pad(block.mask, (n, 0)) for block, n in zip(blocks, missing, strict=True)])
    return _Block(first, mask, torch.cat([block.places for block in blocks]))


def _select(block: _Block, rows: torch.Tensor) -> None:
    """These rows of a block, without the columns that none of them uses."""
    mask = block.mask[rows]
    unused = int(mask.any(0).int().argmax())
    block.mask, block.places = mask[:, unused:], block.places[rows]
    layer: Any
    for layer in block.cache.layers:
        layer.keys, layer.values = layer.keys[rows, :, unused:], layer.values[rows, :, unused:]
