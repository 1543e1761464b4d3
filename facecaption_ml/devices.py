"""The one answer to where models run, with how many threads, and in which number type."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

from facecaption_ml.errors import FaceCaptionError

if TYPE_CHECKING:
    import torch

PRECISIONS: Final = ("auto", "bf16", "fp16", "fp32")


def resolve_device(device: str, threads: int | None = None) -> str:
    """``auto`` becomes cuda where there is one, else cpu; anything else stays.

    ``threads``: torch's threads on a CPU, 0 for all cores; None leaves them as they are.
    """
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and threads is not None:
        torch.set_num_threads(threads or os.cpu_count() or 1)
    return device


def has_bfloat16(device: str | torch.device) -> bool:
    """Whether the device has instructions for bfloat16 (AVX-512 BF16 or AMX on a CPU; not emulated on a GPU)."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch has no public name for them
    return any(getattr(torch.cpu, name, lambda: False)() for name in names)


def compute_dtype(precision: str, device: str | torch.device) -> torch.dtype:
    """The type for ``precision`` (auto, bf16, fp16, fp32) on ``device``.

    ``auto`` is bfloat16 where the device has instructions for it, else float32.
    Raises FaceCaptionError for another word, and for fp16 on a CPU, whose gradients would need a loss scale that PyTorch has
    for GPUs.
    """
    import torch

    if precision not in PRECISIONS:
        raise FaceCaptionError(f"precision is {precision!r}: choose among {', '.join(PRECISIONS)}")
    if precision == "fp16" and torch.device(device).type == "cpu":
        raise FaceCaptionError("precision fp16 needs a GPU; use bf16, fp32 or auto")
    if precision == "auto":
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]


def autocast(dtype: torch.dtype, device: str | torch.device) -> contextlib.AbstractContextManager[object]:
    """Autocast to ``dtype``; for float32, nothing."""
    import torch

    return contextlib.nullcontext() if dtype is torch.float32 else torch.autocast(torch.device(device).type, dtype)
