"""Convolutions with their batch norm and activation folded in, and how a padded picture is kept from seeing its padding.

Folding is exact up to rounding: y = γ (w∗x − μ) / √(σ² + ε) + β is one convolution with w' = γ w / √(σ² + ε) and
b' = β − γ μ / √(σ² + ε) (Jacob et al., CVPR 2018, eq. 14).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

log = logging.getLogger(__name__)


class Extent:
    """How much of each padded picture of a batch is picture.

    A network sees zeros beyond the border of a picture, but a padded picture's biases fill its padding after the first
    layer. Setting the row and column next to the picture to zero before every 3×3 convolution restores the border, so
    that each picture gives what it gives alone, whatever it is padded to. (With stride 1 or 2 and sides that are
    multiples of the network's stride, no output inside the picture looks further than one pixel beyond it.)
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], padded: tuple[int, int]) -> None:
        """``sizes`` are (height, width) of the pictures in a batch padded to ``padded``."""
        self.sizes = list(sizes)
        self.padded = padded
        self.is_uniform = len(set(self.sizes)) == 1
        self.has_padding = any(size != padded for size in self.sizes)

    def at(self, features: Tensor) -> list[tuple[int, int]]:
        """(height, width) of each picture in ``features`` [B, C, H, W], whose stride follows from its height."""
        return self.cells(self.padded[0] // features.shape[2])

    def cells(self, stride: int) -> list[tuple[int, int]]:
        """(rows, columns) of each picture on a map of ``stride``."""
        return [(-(-height // stride), -(-width // stride)) for height, width in self.sizes]

    def restore_border(self, features: Tensor) -> None:
        """Zero the row below and the column right of each picture, in place."""
        sizes = self.at(features)
        if self.is_uniform:
            rows, columns = sizes[0]
            if rows < features.shape[2]:
                features[:, :, rows].zero_()
            if columns < features.shape[3]:
                features[:, :, :, columns].zero_()
            return
        below = [(i, rows) for i, (rows, _) in enumerate(sizes) if rows < features.shape[2]]
        beside = [(i, columns) for i, (_, columns) in enumerate(sizes) if columns < features.shape[3]]
        if below:
            features[[i for i, _ in below], :, [rows for _, rows in below]] = 0
        if beside:
            features[[i for i, _ in beside], :, :, [columns for _, columns in beside]] = 0


class FusedConv(nn.Module):
    """A convolution with bias and, where ``slope`` is given, a leaky ReLU of that slope (0: a plain ReLU)."""

    def __init__(
        self, weight: Tensor, bias: Tensor, *, stride: int = 1, groups: int = 1, slope: float | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", bias.detach().clone())
        self.weight: Tensor
        self.bias: Tensor
        self.stride = [stride, stride]
        self.padding = [weight.shape[2] // 2, weight.shape[3] // 2]  # as in every convolution of these networks
        self.groups = groups
        self.slope = slope
        self._packed: Tensor | None = None

    @classmethod
    def folded(cls, conv: nn.Module, norm: nn.Module, slope: float | None) -> FusedConv:
        """``conv`` followed by the batch norm ``norm`` in inference."""
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        weight, bias = fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        return cls(weight, bias, stride=conv.stride[0], groups=conv.groups, slope=slope)

    @classmethod
    def side_by_side(cls, first: FusedConv, second: FusedConv, slope: float | None) -> FusedConv:
        """Two convolutions of the same input as one; the outputs of ``second`` follow those of ``first``."""
        return cls(torch.cat([first.weight, second.weight]), torch.cat([first.bias, second.bias]), slope=slope)

    def pack(self, example: Tensor) -> None:
        """Lay the weights out as oneDNN wants them for inputs such as ``example``; without oneDNN nothing happens."""
        if example.device.type == "cpu" and _has_packed_convolution():
            self._packed = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight, self.padding, self.stride, [1, 1], self.groups, list(example.shape)
            )

    @property
    def is_packed(self) -> bool:
        return self._packed is not None

    def forward(self, x: Tensor, extent: Extent | None = None) -> Tensor:
        if extent is not None and self.weight.shape[-1] > 1:
            extent.restore_border(x)
        if self._packed is None:
            y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, 1, self.groups)
            return y if self.slope is None else F.leaky_relu_(y, self.slope)
        attribute = "none" if self.slope is None else "leaky_relu"
        scalars = [] if self.slope is None else [self.slope]
        return torch.ops.mkldnn._convolution_pointwise(
            x, self._packed, self.bias, self.padding, self.stride, [1, 1], self.groups, attribute, scalars, ""
        )


@cache
def _has_packed_convolution() -> bool:
    """Whether PyTorch's private oneDNN operators are there and do what they are used for here."""
    try:
        x, weight, bias = torch.linspace(-1, 1, 1024).view(1, 16, 8, 8), torch.ones(16, 16, 3, 3), torch.ones(16)
        packed = torch.ops.mkldnn._reorder_convolution_weight(weight, [1, 1], [1, 1], [1, 1], 1, list(x.shape))
        y = torch.ops.mkldnn._convolution_pointwise(x, packed, bias, [1, 1], [1, 1], [1, 1], 1, "leaky_relu", [0.1], "")
    except (AttributeError, RuntimeError, TypeError) as error:
        log.debug("no packed convolutions, the plain ones are used: %s", error)
        return False
    return torch.allclose(y, F.leaky_relu(F.conv2d(x, weight, bias, padding=1), 0.1), atol=1e-3)
