"""A part that residual networks of predictors and of FLIP's stem share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Excitation(nn.Module):
    """Scales the channels of maps [B, C, H, W] by what the whole picture shows (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Linear(channels, channels // 8)
        self.up = nn.Linear(channels // 8, channels)

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3))))))
        return x * scale[:, :, None, None]
