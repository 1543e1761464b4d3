"""What an optimiser and an exact resume need of a model and a process."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for AdamW: matrices, which decay, and biases, norms and the temperature, which do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim > 1]
    others = [parameter for parameter in trained if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def random_state(generator: torch.Generator) -> dict[str, torch.Tensor]:
    """The random numbers of this process: dropout's on the CPU and its GPU, and the generator's."""
    state = {"cpu": torch.get_rng_state(), "generator": generator.get_state()}
    if generator.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(generator.device)
    return state


def restore_random_state(state: Mapping[str, torch.Tensor], generator: torch.Generator) -> None:
    """Go on with the random numbers of ``random_state``."""
    torch.set_rng_state(state["cpu"])
    generator.set_state(state["generator"])
    if "cuda" in state and generator.device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], generator.device)


def memory_gib(device: torch.device) -> float:
    """The peak so far, GiB: of the GPU's memory that was allocated, or of this process's memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
