"""A FLIP of a few thousand parameters, float32 and without dropout, and batches for it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from facecaption_ml.flip.model.model import FlipModel
from facecaption_ml.flip.model.presets import ImageTower, Preset, TextTower

VOCABULARY = 40
PAD, ENC, CLS, FIRST_WORD = 0, 5, 2, 6
MICRO = Preset(
    name="micro",
    image=ImageTower(size=16, patch=8, width=16, layers=2, heads=2, mlp_width=32, dropout=0.0),
    text=TextTower(vocabulary=VOCABULARY, max_tokens=12, width=16, layers=2, heads=2, mlp_width=32, dropout=0.0),
    projection=8,
    temperature=0.07,
)


@dataclass(frozen=True)
class Pairs:
    """Pictures uint8 [N, 3, S, S], ids int64 [N, L], mask bool [N, L], caption ids int64 [N]."""

    pixels: Tensor
    ids: Tensor
    mask: Tensor
    caption_ids: Tensor

    def __getitem__(self, rows: slice | Tensor) -> Pairs:
        return Pairs(self.pixels[rows], self.ids[rows], self.mask[rows], self.caption_ids[rows])

    def arguments(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.pixels, self.ids, self.mask, self.caption_ids


def micro_model(seed: int = 0, spread: float = 0.3, **towers: Any) -> FlipModel:
    """The micro preset with weights of a spread at which every input shows in the output; ``towers`` changes both towers."""
    image, text = (dataclasses.replace(shape, **towers) for shape in (MICRO.image, MICRO.text))
    model = FlipModel(dataclasses.replace(MICRO, image=image, text=text), VOCABULARY)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "log_temperature":
                centre = float("norm" in name.lower() and name.endswith("weight"))
                parameter.copy_(centre + spread * torch.randn(parameter.shape, generator=generator))
    return model


def random_pairs(count: int, tokens: int = 8, seed: int = 0, captions: int | None = None) -> Pairs:
    """Random pictures, captions of 4 … ``tokens`` tokens of which the first is [CLS], ``captions`` different caption ids."""
    generator = torch.Generator().manual_seed(seed)
    size = MICRO.image.size
    pixels = torch.randint(256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    ids = torch.randint(FIRST_WORD, VOCABULARY, (count, tokens), generator=generator)
    ids[:, 0] = CLS
    lengths = torch.randint(4, tokens + 1, (count,), generator=generator)
    mask = torch.arange(tokens) < lengths[:, None]
    return Pairs(pixels, ids.where(mask, PAD), mask, torch.arange(count) % (captions or count))


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """The gradients of the trained parameters by name; a copy."""
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
