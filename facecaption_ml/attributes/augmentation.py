"""Random views of training crops, so that the network meets what detection, hosts and cameras do to faces."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(pixels: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Views of float [B, 3, H, W] pictures in 0–255: mirrored, turned, scaled, shifted, recoloured, softened, partly hidden.

    ``strength`` scales every range and share, the mirroring excepted. Draws come from ``generator`` alone. Nothing here
    changes an attribute: CelebA's 40 know neither left nor right.
    """
    x = _recolour(_move(pixels, generator, strength), generator, strength)
    return _hide(_soften(x, generator, strength), generator, strength)


def mix(pixels: Tensor, labels: Tensor, strength: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al., ICLR 2018): each picture blended with another of the batch, and its labels with it."""
    if strength <= 0:
        return pixels, labels
    first = torch._standard_gamma(torch.full((1,), strength), generator=generator)
    second = torch._standard_gamma(torch.full((1,), strength), generator=generator)
    share = float(first / (first + second).clamp_min(1e-8))
    other = torch.randperm(len(pixels), generator=generator)
    return torch.lerp(pixels[other], pixels, share), torch.lerp(labels[other], labels, share)


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator) * (high - low) + low


def _move(x: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    count, _, height, width = x.shape
    mirror = torch.randint(0, 2, (count,), generator=generator) * 2.0 - 1
    angle = _uniform((count,), -0.14, 0.14, generator) * strength
    scale = 1 + _uniform((count,), -0.14, 0.14, generator) * strength
    stretch = 1 + _uniform((count,), -0.05, 0.05, generator) * strength
    theta = torch.zeros(count, 2, 3)
    # affine_grid works in coordinates of −1…1 on both sides: a turn must know the picture's aspect.
    theta[:, 0, 0] = torch.cos(angle) * scale * stretch * mirror
    theta[:, 0, 1] = -torch.sin(angle) * scale * (height / width)
    theta[:, 1, 0] = torch.sin(angle) * scale * (width / height) * mirror
    theta[:, 1, 1] = torch.cos(angle) * scale / stretch
    theta[:, :, 2] = _uniform((count, 2), -0.12, 0.12, generator) * strength
    grid = F.affine_grid(theta, [count, 3, height, width], align_corners=False)
    return F.grid_sample(x, grid.to(x.device), padding_mode="border", align_corners=False)


def _recolour(x: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    count = len(x)
    contrast = 1 + strength * _uniform((count, 1, 1, 1), -0.25, 0.25, generator).to(x.device)
    light = strength * _uniform((count, 1, 1, 1), -18, 18, generator).to(x.device)
    tint = strength * _uniform((count, 3, 1, 1), -8, 8, generator).to(x.device)
    mean = x.mean((1, 2, 3), keepdim=True)
    return ((x - mean) * contrast + mean + light + tint).clamp(0, 255)


def _soften(x: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """Some pictures lose a little resolution; Blurry is one of the attributes, so only a little."""
    chosen = torch.rand(len(x), generator=generator) < 0.15 * strength
    if chosen.any():
        height, width = x.shape[2:]
        small = F.interpolate(x[chosen], scale_factor=0.7, mode="bilinear", antialias=True)
        x = x.clone()
        x[chosen] = F.interpolate(small, (height, width), mode="bilinear")
    return x


def _hide(x: Tensor, generator: torch.Generator, strength: float) -> Tensor:
    """A rectangle of a fifth of the pictures becomes their mean colour."""
    height, width = x.shape[2:]
    for i in (torch.rand(len(x), generator=generator) < 0.2 * strength).nonzero().flatten().tolist():
        share = _uniform((2,), 0.1, 0.35, generator)
        tall, wide = math.ceil(float(share[0]) * height), math.ceil(float(share[1]) * width)
        top = int(torch.randint(0, height - tall + 1, (1,), generator=generator))
        left = int(torch.randint(0, width - wide + 1, (1,), generator=generator))
        x[i, :, top : top + tall, left : left + wide] = x[i].mean((1, 2), keepdim=True)
    return x
