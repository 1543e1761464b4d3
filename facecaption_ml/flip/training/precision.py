"""Which number type a device computes in."""

from __future__ import annotations

import contextlib
from typing import Final

import torch

SETTING: Final = "FACECAPTION_FLIP_PRECISION"
CHOICES: Final = ("auto", "bf16", "fp16", "fp32")


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type for ``precision`` (auto, bf16, fp16, fp32) on ``device``.

    ``auto`` is bfloat16 on GPUs and processors with such instructions, else float32. Raises ValueError for another word, and
    for fp16 on a CPU, whose gradients would need a loss scale that PyTorch has for GPUs.
    """
    if precision not in CHOICES:
        raise ValueError(f"{SETTING} is {precision!r}: choose among {', '.join(CHOICES)}")
    if precision == "fp16" and device.type == "cpu":
        raise ValueError(f"{SETTING}=fp16 needs a GPU; use bf16, fp32 or auto")
    if precision == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]


def autocast(dtype: torch.dtype, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Autocast to ``dtype``; for float32, nothing."""
    if dtype is torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
