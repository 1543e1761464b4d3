"""From the network's raw values to boxes and landmarks: RetinaFace's anchors, decoded only where a score passes.

Anchor sizes, strides and variances are those of facexlib 0.3.0 (generate_config). A network's output has an anchor every few
pixels, 16,800 at 640×640, and a handful of them pass; so no anchor is stored, the few are computed from their cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from torch import Tensor

from facecaption_ml.faces.fusion import Extent
from facecaption_ml.faces.network import ANCHORS_PER_CELL, VALUES_PER_ANCHOR, LevelValues

ANCHOR_SIZES: Final = {8: (16, 32), 16: (64, 128), 32: (256, 512)}  # px, of the two anchors of a cell, by stride
CENTRE_VARIANCE: Final = 0.1
SIZE_VARIANCE: Final = 0.2


@dataclass(frozen=True)
class Candidates:
    """Faces of one picture before overlapping ones are removed, best first; coordinates in pixels of the network's input."""

    boxes: np.ndarray  # float32 [N, 4]: x0, y0, x1, y1
    landmarks: np.ndarray  # float32 [N, 5, 2]
    scores: np.ndarray  # float32 [N]


def decode(levels: Sequence[LevelValues], extent: Extent, min_score: float) -> list[Candidates]:
    """The candidates with a score above ``min_score`` of every picture of a batch.

    Order: score descending, then x, then y.
    """
    found = [_decode_level(level, extent, min_score) for level in levels]
    picture = torch.cat([f[0] for f in found]).cpu().numpy()
    values = torch.cat([f[1] for f in found]).cpu().numpy()
    order = np.lexsort((values[:, 2], values[:, 1], -values[:, 0], picture))
    picture, values = picture[order], values[order]
    bounds = np.searchsorted(picture, np.arange(len(extent.sizes) + 1))
    rows = (values[start:end] for start, end in pairwise(bounds))
    return [Candidates(row[:, 1:5], row[:, 5:].reshape(-1, 5, 2), row[:, 0]) for row in rows]


def _decode_level(level: LevelValues, extent: Extent, min_score: float) -> tuple[Tensor, Tensor]:
    """Picture index [N] and float32 [N, 15] (score, box, landmarks) of a level's candidates."""
    anchors = level.values.permute(0, 2, 3, 1).unflatten(3, (ANCHORS_PER_CELL, VALUES_PER_ANCHOR))
    # The softmax over two logits is the logistic function of their difference.
    difference = anchors[..., 1].float() - anchors[..., 0].float()
    passing = difference > math.log(min_score / (1 - min_score))
    for i, (rows, columns) in enumerate(extent.cells(level.stride) if extent.has_padding else ()):
        passing[i, rows - level.top :] = False
        passing[i, :, columns - level.left :] = False
    picture, y, x, k = passing.nonzero(as_tuple=True)
    chosen = anchors[picture, y, x, k].float()
    score = torch.sigmoid(difference[picture, y, x, k])
    size = torch.tensor(ANCHOR_SIZES[level.stride], dtype=torch.float32, device=chosen.device)[k][:, None]
    centre = (torch.stack([x + level.left, y + level.top], dim=1) + 0.5) * level.stride
    middle = centre + chosen[:, 2:4] * CENTRE_VARIANCE * size
    sides = size * torch.exp(chosen[:, 4:6] * SIZE_VARIANCE)
    points = centre[:, None] + chosen[:, 6:].view(-1, 5, 2) * CENTRE_VARIANCE * size[:, None]
    corner = middle - sides / 2
    return picture, torch.cat([score[:, None], corner, corner + sides, points.flatten(1)], dim=1)


def suppress_overlaps(candidates: Candidates, max_iou: float) -> Candidates:
    """Greedy non-maximum suppression: from the best down, those that overlap a kept box by more than ``max_iou`` go."""
    if len(candidates.scores) < 2:
        return candidates
    keep = surviving(candidates.boxes, candidates.scores, max_iou)
    return Candidates(candidates.boxes[keep], candidates.landmarks[keep], candidates.scores[keep])


def surviving(boxes: np.ndarray, scores: np.ndarray, max_iou: float) -> np.ndarray:
    """Indices of the boxes (float32 [N, 4]) that greedy non-maximum suppression keeps, best first."""
    from torchvision.ops import nms

    return nms(torch.from_numpy(boxes).contiguous(), torch.from_numpy(scores).contiguous(), max_iou).numpy()
