"""What an image tower of form ``hybrid`` looks at in the place of pixels: the feature map of a residual network.

A ViT that begins with pixels needs far more than some thousand faces; one over the map of a convolutional network does not
(the hybrid of Dosovitskiy et al., ICLR 2021, §3.1). The network is the trunk of the attribute predictor's preset ``tiny`` with
its norms folded into the convolutions, which has learned 40 labels of faces. It is not trained further, so that a training may
compute its maps once.
"""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facecaption_ml.excitation import Excitation
from facecaption_ml.flip.model.presets import MAP_CHANNELS

_WIDTHS: Final = (24, 64, 128, MAP_CHANNELS)
_DEPTHS: Final = (1, 1, 2, 2)
_INPUT: Final = (96, 72)  # the pipeline's crops, which are squares in FLIP, undistorted
_MEAN: Final = (124.0, 107.0, 97.0)  # of a pixel, as the predictor was trained
_DEVIATION: Final = (68.0, 63.0, 62.0)


class ResidualStem(nn.Module):
    """Pictures in −1 … 1, float [B, 3, S, S], to maps float [B, 256, 6, 5] (``MAP_CHANNELS``, ``MAP_GRID``), nowhere negative.

    Its parameters have the names of the predictor's trunk.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, _WIDTHS[0], 3, 2, 1), nn.Identity(), nn.ReLU()]
        channels = _WIDTHS[0]
        for stage, (width, depth) in enumerate(zip(_WIDTHS, _DEPTHS, strict=True)):
            for block in range(depth):
                layers.append(_Block(channels, width, halves=block == 0 and stage > 0))
                channels = width
        self.trunk = nn.Sequential(*layers)
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(_DEVIATION)[:, None, None], persistent=False)

    def forward(self, pictures: Tensor) -> Tensor:
        pixels = 127.5 * (pictures + 1)
        if tuple(pixels.shape[2:]) != _INPUT:
            pixels = F.interpolate(pixels, _INPUT, mode="bilinear", antialias=True, align_corners=False)
        scaled = (pixels - self.mean) / self.deviation
        return self.trunk(scaled.contiguous(memory_format=torch.channels_last))


class _Block(nn.Module):
    """Two 3×3 convolutions and a shortcut."""

    def __init__(self, channels_in: int, channels: int, halves: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, 2 if halves else 1, 1)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.excite = Excitation(channels)
        self.shortcut: nn.Module = nn.Identity()
        if halves:
            self.shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(channels_in, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.conv1(x))
        return torch.relu(self.excite(self.conv2(y)) + self.shortcut(x))
