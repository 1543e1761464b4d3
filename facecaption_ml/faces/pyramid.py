"""At which sizes a picture is looked at, in which tiles, and how the faces found in them become those of the picture.

RetinaFace finds faces of some 50 px to the whole of a picture of 640 px. Reduced to 640 px, a picture of 6000 px shows a face
of 165 px as 18 px. So a picture larger than that is looked at again at the size where the smallest face asked for still
shows, in overlapping tiles, so that memory depends on the tile and not on the picture, and at sizes between, so that
every face is whole in a tile of one level and large enough on it (an image pyramid; for RetinaFace see Deng et al.,
CVPR 2020, §4.2, and for tiles Akyon et al., ICIP 2022).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from facecaption_ml.faces.anchors import Candidates, surviving

BASE_SIDE: Final = 640  # px; facexlib's working size, and the network's training size (Deng et al., CVPR 2020, §4.1)
# px that the smallest face asked for has on the finest level. Of 96 drawn faces all scored above 0.98 at 54 px, 93 at 48 px and
# 89 at 40 px. A face of 128 px has as many in a picture of 1,500 px reduced to the base side.
SMALLEST_SHOWN: Final = 128 * BASE_SIDE / 1500
_LEVEL_RATIO: Final = 4.0  # at most, from a level to the next finer one
_TILE_SIDE: Final = 1536  # px
# px. A face too small for a level has at most SMALLEST_SHOWN × _LEVEL_RATIO = 218 px across on the next, 300 px along.
_TILE_OVERLAP: Final = 320
_CUT_MARGIN: Final = 4.0  # px; a box this close to a border between tiles is of a face that the tile cuts
# px; IoU with the drawn faces' own boxes is 0.9 at 64 to 300 px, 0.8 at 400 and 0.75 at 512 px.
_LARGEST_EXACT: Final = 300
_PART_INSIDE: Final = 0.5  # share of its box
_HANDICAP: Final = 0.02  # in score, of a face that another level shows better


@dataclass(frozen=True)
class View:
    """A tile of a picture reduced to the size of a level; most pictures have one level of one tile."""

    pixels: np.ndarray  # RGB uint8 [h, w, 3]
    source_size: tuple[int, int]  # height, width of the picture
    level_size: tuple[int, int]  # height, width of the picture on this level
    left: int = 0
    top: int = 0

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def is_whole(self) -> bool:
        """Whether the view shows the whole picture."""
        return self.size == self.level_size

    def in_source(self, found: Candidates) -> Candidates:
        """The candidates in pixels of the picture; each side has its own scale, as a level's are rounded to whole pixels."""
        (height, width), (h, w) = self.source_size, self.level_size
        scale = np.array([width / w, height / h], dtype=np.float32)
        offset = np.array([self.left, self.top], dtype=np.float32)
        boxes = (found.boxes + np.tile(offset, 2)) * np.tile(scale, 2)
        return Candidates(boxes, (found.landmarks + offset) * scale, found.scores)

    def uncut(self, found: Candidates) -> Candidates:
        """Without the candidates that reach a border between tiles: another tile or a coarser level shows them whole."""
        height, width = self.size
        low_x, low_y = (_CUT_MARGIN if start > 0 else -math.inf for start in (self.left, self.top))
        high_x = width - _CUT_MARGIN if self.left + width < self.level_size[1] else math.inf
        high_y = height - _CUT_MARGIN if self.top + height < self.level_size[0] else math.inf
        x0, y0, x1, y1 = found.boxes.T
        return _chosen(found, (x0 >= low_x) & (y0 >= low_y) & (x1 <= high_x) & (y1 <= high_y))


def level_sides(longest: int, working_size: int, min_side: int, enlarge: bool) -> list[int]:
    """The longest side of a picture on each level, coarsest first.

    ``longest``: px, the picture's own. ``working_size``: the one level's side, 0: the base side and what finer levels a face
    of ``min_side`` px needs. Pictures smaller than their level keep their size unless ``enlarge``.
    """
    coarsest = working_size or BASE_SIDE
    if longest <= coarsest:
        return [coarsest if enlarge else longest]
    finest = coarsest if working_size else round(longest * min(1.0, SMALLEST_SHOWN / min_side))
    if finest <= coarsest:
        return [coarsest]
    steps = math.ceil(math.log(finest / coarsest, _LEVEL_RATIO))
    return [*(round(coarsest * (finest / coarsest) ** (i / steps)) for i in range(steps)), finest]


def views(image: np.ndarray, sides: Sequence[int], *, tiled: bool) -> Iterator[View]:
    """The views of ``image`` (RGB uint8 [H, W, 3]) for the levels of level_sides, cut into tiles where they are large."""
    height, width = image.shape[:2]
    for side in sides:
        reduced = _resized(image, side)
        h, w = reduced.shape[:2]
        for top, bottom in _spans(h) if tiled else [(0, h)]:
            for left, right in _spans(w) if tiled else [(0, w)]:
                yield View(reduced[top:bottom, left:right], (height, width), (h, w), left, top)


def merged(found: Sequence[tuple[View, Candidates]], max_iou: float) -> Candidates:
    """The faces of one picture in its own pixels, from the candidates of its views after each view's own suppression.

    Of a face found in several views the best is kept. One that is small or large on its level, where boxes are less exact,
    gives way to the same face on the next level, unless that is clearly less sure. Order: score descending, then x, then y.
    """
    if len(found) == 1:
        return found[0][0].in_source(found[0][1])
    coarsest, *_, finest = sorted(max(view.level_size) for view, _ in found)
    parts, ranks, zooms = [], [], []
    for view, candidates in found:
        whole, level = view.uncut(candidates), max(view.level_size)
        sides = _shorter_sides(whole)
        small, large = (sides < SMALLEST_SHOWN) & (level < finest), (sides > _LARGEST_EXACT) & (level > coarsest)
        parts.append(view.in_source(whole))
        ranks.append(whole.scores - np.where(small | large, _HANDICAP, 0.0).astype(np.float32))
        zooms.append(np.full(len(sides), level / max(view.source_size)))
    everything = Candidates(*(np.concatenate(arrays) for arrays in zip(*map(_arrays, parts), strict=True)))
    keep = surviving(everything.boxes, np.concatenate(ranks), max_iou)
    best, zoom = _chosen(everything, keep), np.concatenate(zooms)[keep]
    best = _chosen(best, ~_parts_of_larger(best, zoom))
    return _chosen(best, np.lexsort((best.boxes[:, 1], best.boxes[:, 0], -best.scores)))


def _parts_of_larger(faces: Candidates, zoom: np.ndarray) -> np.ndarray:
    """Which of ``faces`` are a nose or a cheek that looks like a face: inside a face that is too large for their level.

    ``zoom``: float [N], px of its level for a px of the picture. Bool [N].
    """
    areas = np.prod(faces.boxes[:, 2:] - faces.boxes[:, :2], axis=1)
    parts = np.zeros(len(areas), dtype=bool)
    for k, side in enumerate(_shorter_sides(faces)):
        low, high = (
            np.maximum(faces.boxes[:, :2], faces.boxes[k, :2]),
            np.minimum(faces.boxes[:, 2:], faces.boxes[k, 2:]),
        )
        inside = np.prod(np.clip(high - low, 0, None), axis=1) > _PART_INSIDE * areas
        too_large = side * zoom > _LARGEST_EXACT
        parts |= inside & too_large & (areas < areas[k]) & (faces.scores < faces.scores[k] + _HANDICAP)
    return parts


def _shorter_sides(faces: Candidates) -> np.ndarray:
    return np.minimum(*(faces.boxes[:, 2:] - faces.boxes[:, :2]).T)


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    height, width = image.shape[:2]
    scale = side / max(height, width)
    if scale == 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _spans(length: int) -> list[tuple[int, int]]:
    """``length`` px in equal spans of at most a tile's side that overlap."""
    if length <= _TILE_SIDE:
        return [(0, length)]
    count = math.ceil((length - _TILE_OVERLAP) / (_TILE_SIDE - _TILE_OVERLAP))
    side = math.ceil((length + (count - 1) * _TILE_OVERLAP) / count)
    starts = (round(i * (length - side) / (count - 1)) for i in range(count))
    return [(start, start + side) for start in starts]


def _chosen(candidates: Candidates, index: np.ndarray) -> Candidates:
    return Candidates(*(array[index] for array in _arrays(candidates)))


def _arrays(candidates: Candidates) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return candidates.boxes, candidates.landmarks, candidates.scores
