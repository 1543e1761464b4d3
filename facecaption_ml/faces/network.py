"""facexlib's RetinaFace, loaded with given weights and rebuilt as fewer, fused convolutions with the same mathematics.

RetinaFace: Deng et al., CVPR 2020. The two networks are those of facexlib 0.3.0 (facexlib/detection/retinaface.py).
What is merged, besides batch norms: the two convolutions of an SSH block that read its input, the two that read
``conv5X5_1``, and the three heads of a level.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from facecaption_ml.faces.fusion import Extent, FusedConv
from facecaption_ml.faces.options import NetworkName
from facecaption_ml.faces.screening import Screen, Window, extent_within, window_to_compute
from facecaption_ml.faces.weights import Weights, fit_state

if TYPE_CHECKING:
    from facexlib.detection.retinaface import RetinaFace

STRIDES: Final = (8, 16, 32)
ANCHORS_PER_CELL: Final = 2
VALUES_PER_ANCHOR: Final = 16  # two class logits, four offsets of the box, ten of the landmarks


@dataclass(frozen=True)
class LevelValues:
    """Raw values of a level, [B, 32, h, w]: 16 channels for each of a cell's two anchors.

    They are the logits of background and face, then the offsets of the box and of the landmarks. ``top`` and ``left``:
    the cell of the level at which the map starts.
    """

    values: Tensor
    stride: int
    top: int = 0
    left: int = 0


def facexlib_network(weights: Weights, network: NetworkName) -> RetinaFace:
    """facexlib's own model on the CPU, in evaluation mode. Raises WeightsError where the weights do not fit."""
    from facexlib.detection.retinaface import RetinaFace

    # Its random initialisation, soon overwritten, must not move the process's generator; torchvision warns about facexlib.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = RetinaFace(network_name=network, device="cpu")
    fit_state(weights, model, network)
    return model.eval()


class FusedRetinaFace(nn.Module):
    """RetinaFace for inference: float RGB minus the mean colour in, maps of raw values out."""

    def __init__(self, model: RetinaFace) -> None:
        super().__init__()
        slope = _slope(model.fpn.output1)
        self.stages = nn.ModuleList(_mobilenet(model.body) if "stage1" in model.body else _resnet(model.body))
        fpn = model.fpn
        self.laterals = nn.ModuleList(_folded(block, slope) for block in (fpn.output1, fpn.output2, fpn.output3))
        self.merges = nn.ModuleList(_folded(block, slope) for block in (fpn.merge1, fpn.merge2))
        self.contexts = nn.ModuleList(_Context(block) for block in (model.ssh1, model.ssh2, model.ssh3))
        heads = zip(model.ClassHead, model.BboxHead, model.LandmarkHead, strict=True)
        self.heads = nn.ModuleList(_joint_head(*level) for level in heads)
        self.screen: Screen | None = None
        # The screen's margin was measured on this network only.
        self.may_be_screened = model.backbone == "mobilenet0.25"

    def forward(self, x: Tensor, extent: Extent | None = None) -> list[LevelValues]:
        """The values of every anchor at strides 8, 16 and 32.

        ``x``: float [B, 3, H, W], RGB 0–255 minus the mean (123, 117, 104), H and W multiples of 32 where ``extent``
        is given, zero outside the pictures. After screen_finest_level the first level may be cut down to the part that
        can hold a face, or be left out.
        """
        levels = []
        for stage in self.stages:
            x = stage(x, extent)
            levels.append(x)
        fine, middle, coarse = (lateral(level) for lateral, level in zip(self.laterals, levels[-3:], strict=True))
        middle = self.merges[1](middle.add_(_enlarged(coarse, middle)), extent)
        fine.add_(_enlarged(middle, fine))
        finest = self._finest(fine, extent)
        contexts = [context(level, extent) for context, level in zip(self.contexts[1:], (middle, coarse), strict=True)]
        others = [
            LevelValues(head(c), stride) for head, c, stride in zip(self.heads[1:], contexts, STRIDES[1:], strict=True)
        ]
        return [*finest, *others]

    def _finest(self, fine: Tensor, extent: Extent | None) -> list[LevelValues]:
        whole = Window(0, fine.shape[2], 0, fine.shape[3])
        core: Window | None = whole
        if self.screen is not None and (extent is None or extent.is_uniform):
            core = self.screen(fine, extent)
        if core is None:
            return []
        window = window_to_compute(core, fine.shape[2], fine.shape[3])
        inside = extent_within(extent, fine, window) if window != whole else extent
        part = window.cut(fine) if window != whole else fine
        values = self.heads[0](self.contexts[0](self.merges[0](part, inside), inside))
        top, left = core.top - window.top, core.left - window.left
        values = values[:, :, top : top + core.bottom - core.top, left : left + core.right - core.left]
        return [LevelValues(values, STRIDES[0], core.top, core.left)]

    def screen_finest_level(self, min_score: float) -> None:
        """From now on compute the finest level in float32 only where ``min_score`` may be exceeded (see screening)."""
        head = self.heads[0]
        assert isinstance(head, FusedConv)
        self.screen = Screen(self.merges[0], self.contexts[0], head, min_score)

    def pack(self, height: int, width: int) -> None:
        """Prepack every convolution's weights for pictures of about this size. Does nothing off the CPU."""
        handles = [
            module.register_forward_pre_hook(lambda module, args: module.pack(args[0]))
            for module in self.modules()
            if isinstance(module, FusedConv)
        ]
        first = next(self.laterals.buffers())
        zeros = torch.zeros(1, 3, height, width, device=first.device, dtype=first.dtype)
        screen = self.screen
        with torch.inference_mode():
            for self.screen in {None, screen}:  # nothing passes the screen in an empty picture
                self(zeros.contiguous(memory_format=torch.channels_last))
        self.screen = screen
        for handle in handles:
            handle.remove()


class _Context(nn.Module):
    """An SSH context module (Najibi et al., ICCV 2017) with its five convolutions run as three.

    ReLU after leaky ReLU is ReLU, so the activations inside the block may run over the channels that only take the ReLU
    at its end as well.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        slope = _slope(block.conv5X5_1)
        self.shares = (block.conv3X3[0].out_channels, block.conv5X5_1[0].out_channels)
        self.outer = FusedConv.side_by_side(_folded(block.conv3X3), _folded(block.conv5X5_1), slope)
        self.inner = FusedConv.side_by_side(_folded(block.conv5X5_2), _folded(block.conv7X7_2), slope)
        self.last = _folded(block.conv7x7_3, 0.0)

    def forward(self, x: Tensor, extent: Extent | None) -> Tensor:
        three, five = self.outer(x, extent).split(self.shares, dim=1)
        five, seven = self.inner(five, extent).chunk(2, dim=1)
        return torch.cat([three, five, self.last(seven, extent)], dim=1).relu_()


class _Stage(nn.Module):
    """Layers one after the other; those that look beyond a pixel are told the pictures' extent."""

    def __init__(self, layers: Iterator[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, extent: Extent | None) -> Tensor:
        for layer in self.layers:
            x = layer(x, extent)
        return x


class _Bottleneck(nn.Module):
    """A residual block of ResNet-50 (He et al., CVPR 2016) with its batch norms folded in."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.reduce = FusedConv.folded(block.conv1, block.bn1, 0.0)
        self.spread = FusedConv.folded(block.conv2, block.bn2, 0.0)
        self.expand = FusedConv.folded(block.conv3, block.bn3, None)
        self.shortcut = None if block.downsample is None else _folded(block.downsample)

    def forward(self, x: Tensor, extent: Extent | None) -> Tensor:
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return self.expand(self.spread(self.reduce(x), extent)).add_(shortcut).relu_()


class _MaxPool(nn.Module):
    """ResNet's pooling. Its input is a ReLU's, so that zeros beyond the picture never win over the picture."""

    def forward(self, x: Tensor, extent: Extent | None) -> Tensor:
        if extent is not None:
            extent.restore_border(x)
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)


def _mobilenet(body: Any) -> Iterator[_Stage]:
    """The three stages of facexlib's MobileNetV1; every block is (convolution, batch norm, leaky ReLU), once or twice."""
    for name in ("stage1", "stage2", "stage3"):
        triples = ((block[i], block[i + 1], block[i + 2]) for block in body[name] for i in range(0, len(block), 3))
        stage = _Stage(FusedConv.folded(conv, norm, act.negative_slope) for conv, norm, act in triples)
        if name == "stage1":
            _take_rgb(stage.layers[0])
        yield stage


def _resnet(body: Any) -> Iterator[_Stage]:
    """Stem with the first layer, then the three layers whose outputs feed the pyramid."""
    stem = FusedConv.folded(body["conv1"], body["bn1"], 0.0)
    _take_rgb(stem)
    yield _Stage(iter([stem, _MaxPool(), *(_Bottleneck(block) for block in body["layer1"])]))
    for name in ("layer2", "layer3", "layer4"):
        yield _Stage(_Bottleneck(block) for block in body[name])


def _take_rgb(first: nn.Module) -> None:
    """facexlib's networks read BGR; swapping the first convolution's inputs saves swapping every picture's channels."""
    assert isinstance(first, FusedConv)
    first.weight = first.weight.flip(1).contiguous(memory_format=torch.channels_last)


def _joint_head(classes: Any, boxes: Any, landmarks: Any) -> FusedConv:
    """The three heads of a level as one 1×1 convolution whose outputs are grouped by anchor."""
    parts = [head.conv1x1 for head in (classes, boxes, landmarks)]
    weight = torch.cat([p.weight.view(ANCHORS_PER_CELL, -1, *p.weight.shape[1:]) for p in parts], dim=1).flatten(0, 1)
    bias = torch.cat([p.bias.view(ANCHORS_PER_CELL, -1) for p in parts], dim=1).flatten()
    return FusedConv(weight, bias)


def _folded(block: Any, slope: float | None = None) -> FusedConv:
    """A sequence that begins with a convolution and its batch norm."""
    return FusedConv.folded(block[0], block[1], slope)


def _slope(block: Any) -> float:
    return float(block[2].negative_slope)


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="nearest")
