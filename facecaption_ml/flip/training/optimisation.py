"""The optimiser's parameter groups and learning rate (paper §5.1), and the random numbers of a process that resumes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for AdamW: matrices, which decay, and biases, norms and the temperature, which do not."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim > 1]
    others = [parameter for parameter in trained if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


_WARM_UP_PART: Final = 10  # a warm-up as long as the training would peak at its end and never fall


def warm_up_within(wanted: int, steps: int) -> int:
    """``wanted`` warm-up steps, or a tenth of all ``steps``, rounded up, where that is less."""
    return min(wanted, math.ceil(steps / _WARM_UP_PART))


def learning_rate(step: int, steps: int, first: float, peak: float, last: float, warm_up: int) -> float:
    """The rate of optimiser step ``step`` (from 0) of ``steps``: a straight line from ``first`` to ``peak`` over ``warm_up``
    steps, then a cosine down to ``last`` at the last step."""
    warm_up = min(warm_up, max(steps - 1, 0))
    if step < warm_up:
        return first + (peak - first) * step / warm_up
    share = (step - warm_up) / max(steps - 1 - warm_up, 1)
    return last + (peak - last) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


def random_state(generator: torch.Generator) -> dict[str, torch.Tensor]:
    """The random numbers of this process: dropout's on the CPU and its GPU, and the generator's."""
    state = {"cpu": torch.get_rng_state(), "generator": generator.get_state()}
    if generator.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(generator.device)
    return state


def restore_random_state(state: Mapping[str, torch.Tensor], generator: torch.Generator) -> None:
    """Resume the random numbers of ``random_state``."""
    torch.set_rng_state(state["cpu"])
    generator.set_state(state["generator"])
    if "cuda" in state and generator.device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], generator.device)
