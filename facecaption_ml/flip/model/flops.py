"""Arithmetic of a training step, and the rate at which a device multiplies matrices: what MFU is made of."""

from __future__ import annotations

import time
from typing import Final

import torch

from facecaption_ml.flip.model.presets import MAP_CHANNELS, ImageTower, Preset

_ROUNDS: Final = 5


def step_flops(preset: Preset, pairs: int, text_tokens: int, processes: int = 1) -> float:
    """Floating-point operations of the matrix products of one training step of ``pairs`` pairs on one process.

    A multiplication with its addition counts two; a backward pass costs twice its forward pass. What activation
    checkpointing computes again is not counted (PaLM, Chowdhery et al., 2022, appendix B: model FLOPs utilisation).
    """
    image, text = preset.image, preset.text
    t, n = image.tokens, text_tokens
    picture = image.layers * _layer(t, image.width, image.mlp_width) + (t - 1) * image.width * _inputs(image)
    caption = text.layers * _layer(n, text.width, text.mlp_width)
    crossing = text.layers * (2 * n * text.width**2 + 2 * n * t * text.width)  # queries, outputs, attention
    keys_values = text.layers * 2 * t * text.width**2 * (1 if processes == 1 else 2)
    learned = picture + caption + 3 * (caption + crossing) + keys_values
    return 2.0 * pairs * (3 * learned + picture + caption)


def _inputs(image: ImageTower) -> int:
    """Numbers of a patch. A stem of form hybrid is not counted: it is not trained."""
    return MAP_CHANNELS if image.form == "hybrid" else 3 * image.patch**2


def _layer(tokens: int, width: int, mlp_width: int) -> int:
    """Multiplications of one transformer layer: four projections, attention, two layers of the MLP."""
    return 4 * tokens * width**2 + 2 * tokens**2 * width + 2 * tokens * width * mlp_width


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a square matrix product in ``dtype`` on this device as it is now: the best of a few rounds."""
    side = 8192 if device.type == "cuda" else 1024
    a = torch.randn(side, side, device=device).to(dtype)
    b = torch.randn(side, side, device=device).to(dtype)
    best = float("inf")
    for _ in range(_ROUNDS + 1):
        _wait(device)
        started = time.perf_counter()
        torch.mm(a, b)
        _wait(device)
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
