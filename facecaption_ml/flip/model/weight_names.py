"""The names of a model's tensors in files, which do not change with the version of ``transformers``.

In files they are those that ``save_pretrained`` gives a ViT and a BERT and the hub's checkpoints have; in memory they are
whatever the installed version calls its modules. Either spelling is read, so files from before this rule load as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from torch import Tensor, nn

_LAYER: Final = r"(^|\.)image\.layers\.(\d+)\."
_STABLE: Final = tuple(
    (re.compile(_LAYER + pattern), rf"\1image.encoder.layer.\2.{name}")
    for pattern, name in (
        (r"attention\.q_proj\.", "attention.attention.query."),
        (r"attention\.k_proj\.", "attention.attention.key."),
        (r"attention\.v_proj\.", "attention.attention.value."),
        (r"attention\.o_proj\.", "attention.output.dense."),
        (r"mlp\.fc1\.", "intermediate.dense."),
        (r"mlp\.fc2\.", "output.dense."),
        (r"", ""),
    )
)
_NORM: Final = "image.embeddings.dropout.0."  # a CLIP tower's norm behind its embeddings, see model.py


def stable_name(name: str) -> str:
    """The name in files of a tensor, by either of its names."""
    for pattern, stable in _STABLE:
        changed, times = pattern.subn(stable, name)
        if times:
            return changed
    return name.replace(_NORM, "image.embeddings.norm.")


def stable_state(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a FLIP model, or of one with parts taken out, under the names in files."""
    return {stable_name(name): value for name, value in module.state_dict().items()}


def load_stable(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put ``weights``, by either of their names, into the module.

    Raises ValueError naming a tensor that is missing, not part of the module or of another shape.
    """
    given = {stable_name(name): value for name, value in weights.items()}
    state = module.state_dict()
    own = {stable_name(name): name for name in state}
    for name in sorted(given.keys() ^ own.keys()):
        raise ValueError(f"{name} is {'not part of the model' if name in given else 'missing'}")
    for name, value in given.items():
        expected = tuple(state[own[name]].shape)
        if tuple(value.shape) != expected:
            raise ValueError(f"{name} has the shape {tuple(value.shape)}, the model's is {expected}")
    module.load_state_dict({own[name]: value for name, value in given.items()})
