"""A network whose logits are the mean of others': those that err differently err less together (Hansen and Salamon, 1990)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facecaption_ml.attributes.network import AttributeNetwork, Preset

MEMBERS: Final = "members"
"""In a checkpoint's config: the networks of an ensemble."""


@dataclass(frozen=True)
class Member:
    """A network of an ensemble: its preset, and its share of the mean."""

    preset: Preset
    share: float


class Ensemble(nn.Module):
    """The weighted mean of networks' logits. Each sees the pictures, made for the first, at its own size."""

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(AttributeNetwork(member.preset) for member in members)
        self._members = tuple(members)

    def views(self, pixels: Tensor) -> Tensor:
        """float64 [B, 40]: logits of pictures, float [B, 3, H, W] in 0–255."""
        total = torch.zeros(len(pixels), 1, dtype=torch.float64, device=pixels.device)
        for member, network in zip(self._members, self.networks, strict=True):
            total = total + member.share * network.views(resized(pixels, member.preset.input))  # type: ignore[operator]
        return total


def resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """float [B, 3, H, W] at another size, averaged where it shrinks."""
    if tuple(pixels.shape[2:]) == size:
        return pixels
    return F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)


def network_of(config: Mapping[str, Any]) -> AttributeNetwork | Ensemble:
    """The network, without weights, that a checkpoint's config describes. Raises KeyError and TypeError where it does not."""
    if MEMBERS not in config:
        return AttributeNetwork(Preset.from_dict(config["preset"]))
    return Ensemble([Member(Preset.from_dict(m["preset"]), float(m["share"])) for m in config[MEMBERS]])
