"""A cheap first look at the finest level, so that it is computed in full precision only where there may be faces.

The finest level (anchors of 16 and 32 px) takes a third of the network's time, and most pictures have no face that small.
On processors with bfloat16 instructions the level is first computed in bfloat16, three times as fast, and only where its
logits come within a margin of the threshold is it computed in float32. What is reported always comes from float32.

The margin: over the photographs the project is tested on, the two precisions differed by at most 0.07 logits at any
anchor, for both sets of weights tried; the margin is 1, so that a face could only be missed by an error 14 times as large.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from facecaption_ml.faces.fusion import Extent, FusedConv

LOGIT_MARGIN = 1.0
_REACH = 4  # cells: four 3×3 convolutions lie between the level's input and its values
_WINDOW_MULTIPLE = 16  # cells; oneDNN prepares itself for every new shape, so windows come in few


@dataclass(frozen=True)
class Window:
    """Rows and columns [top, bottom), [left, right) of a feature map."""

    top: int
    bottom: int
    left: int
    right: int

    def cut(self, features: Tensor) -> Tensor:
        part = features[:, :, self.top : self.bottom, self.left : self.right]
        return part.contiguous(memory_format=torch.channels_last)


class Screen(nn.Module):
    """Tells where in the finest level a score may exceed ``min_score``."""

    def __init__(self, merge: nn.Module, context: nn.Module, head: FusedConv, min_score: float) -> None:
        super().__init__()
        weight, bias = (t.unflatten(0, (2, -1)) for t in (head.weight, head.bias))  # by anchor
        # Face minus background is all that counts here.
        difference = FusedConv(weight[:, 1] - weight[:, 0], bias[:, 1] - bias[:, 0])
        self.layers = nn.ModuleList(copy.deepcopy(layer) for layer in (merge, context, difference)).bfloat16()
        self.threshold = math.log(min_score / (1 - min_score)) - LOGIT_MARGIN

    def forward(self, features: Tensor, extent: Extent | None = None) -> Window | None:
        """The rows and columns of ``features`` (the level's merged input) outside which no score can pass; None: none can."""
        x = features.bfloat16()
        for layer in self.layers:
            x = layer(x, extent)
        near = x.amax(dim=(0, 1)) > self.threshold
        if extent is not None:
            rows, columns = extent.at(x)[0]
            near = near[:rows, :columns]
        if not near.any():
            return None
        rows_hit, columns_hit = near.any(dim=1).nonzero(), near.any(dim=0).nonzero()
        return Window(int(rows_hit[0]), int(rows_hit[-1]) + 1, int(columns_hit[0]), int(columns_hit[-1]) + 1)


def window_to_compute(core: Window, height: int, width: int) -> Window:
    """The part of a map of ``height``×``width`` cells that has to be computed for ``core`` to come out as from the whole."""
    top, bottom = _widened(core.top, core.bottom, height)
    left, right = _widened(core.left, core.right, width)
    return Window(top, bottom, left, right)


def extent_within(extent: Extent | None, features: Tensor, window: Window) -> Extent | None:
    """The pictures' extent as seen from ``window`` of ``features``, of which one cell counts as one pixel."""
    if extent is None:
        return None
    rows, columns = extent.at(features)[0]
    size = window.bottom - window.top, window.right - window.left
    inside = min(rows - window.top, size[0]), min(columns - window.left, size[1])
    return Extent([inside] * features.shape[0], size)


def _widened(start: int, end: int, length: int) -> tuple[int, int]:
    start, end = max(0, start - _REACH), min(length, end + _REACH)
    size = min(length, -(-(end - start) // _WINDOW_MULTIPLE) * _WINDOW_MULTIPLE)
    start = min(start, length - size)
    return start, start + size
