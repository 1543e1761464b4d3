"""Faces in pictures of any size: facexlib's RetinaFace, fused, batched and run by several threads."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from facecaption_ml.decoding import as_rgb
from facecaption_ml.devices import has_bfloat16
from facecaption_ml.faces.anchors import Candidates, decode, suppress_overlaps
from facecaption_ml.faces.fusion import Extent
from facecaption_ml.faces.network import FusedRetinaFace, facexlib_network
from facecaption_ml.faces.options import DetectionRules, DetectorOptions, NetworkName, Precision
from facecaption_ml.faces.pyramid import BASE_SIDE, View, level_sides, merged, views
from facecaption_ml.faces.weights import load_weights
from facecaption_ml.faces.workers import core_count, single_core_pool

MEAN_RGB: Final = (123.0, 117.0, 104.0)  # facexlib 0.3.0, RetinaFace.mean_tensor, there in BGR order
# Pictures are padded to multiples of this, so that oneDNN meets few shapes (each new one costs it as much as a picture).
PADDING_MULTIPLE: Final = 64
_CPU_BATCH: Final = 2
_CUDA_BATCH: Final = 32


@dataclass(frozen=True, eq=False)
class Face:
    """A detected face; coordinates are pixels of the source picture and may lie outside it.

    box: x0, y0, x1, y1. landmarks: float32 [5, 2], image-left eye, image-right eye, nose, image-left and -right mouth
    corner (of an upright face). score: 0–1.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float

    @property
    def width(self) -> float:
        return self.box[2] - self.box[0]

    @property
    def height(self) -> float:
        return self.box[3] - self.box[1]


class FaceDetector:
    """RetinaFace over pictures of any size and mix of sizes.

    The result for a picture does not depend on the pictures beside it: padding is invisible to the network
    (see fusion.Extent). Large pictures are looked at on several levels and in tiles (see pyramid), so that a face of
    ``rules.min_side`` px is found whatever the picture's size, and memory stays bounded. On a CPU, each of PyTorch's threads
    takes pictures of its own instead of sharing every layer.
    """

    def __init__(
        self,
        network: FusedRetinaFace,
        weights_version: str,
        device: str = "cpu",
        options: DetectorOptions | None = None,
        rules: DetectionRules | None = None,
    ) -> None:
        self.options, self.rules = options or DetectorOptions(), rules or DetectionRules()
        self.weights_version = weights_version
        self.device = torch.device(device)
        self._dtype: torch.dtype = getattr(torch, self.rules.precision)
        self._network = network.to(self.device, self._dtype).eval()
        self._batch_size = self.options.batch_size or (_CUDA_BATCH if self.device.type == "cuda" else _CPU_BATCH)
        self._pool: tuple[int, ThreadPoolExecutor] | None = None
        self._pool_lock = threading.Lock()
        in_float32_on_cpu = self.device.type == "cpu" and self._dtype is torch.float32
        if in_float32_on_cpu and network.may_be_screened and has_bfloat16("cpu"):
            self._network.screen_finest_level(self.rules.min_score)
        # In a worker, so that the weights are laid out for the one thread that will use them.
        side = self.options.working_size or BASE_SIDE
        self._workers().submit(self._network.pack, side, side).result()

    @classmethod
    def load(
        cls,
        weights: str | Path = "bundled",
        device: str = "cpu",
        *,
        network: NetworkName = "mobile0.25",
        weights_folder: str | Path | None = None,
        working_size: int = 0,
        min_side: int = 128,
        enlarge: bool = False,
        batch_size: int = 0,
        min_score: float = 0.5,
        nms_iou: float = 0.4,
        precision: Precision = "float32",
    ) -> FaceDetector:
        """A detector with ``weights``: ``"bundled"``, ``"download"`` (see load_weights) or the path of a ``.pth`` file.

        The other arguments are those of DetectorOptions and DetectionRules, whose ValidationError (a ValueError) names one that
        is out of range. Raises WeightsError for weights that are not there or do not fit.
        """
        options = DetectorOptions(
            weights=str(weights), network=network, working_size=working_size, batch_size=batch_size
        )
        rules = DetectionRules(
            min_side=min_side, enlarge=enlarge, min_score=min_score, nms_iou=nms_iou, precision=precision
        )
        return cls.from_options(options, device, weights_folder, rules)

    @classmethod
    def from_options(
        cls,
        options: DetectorOptions,
        device: str = "cpu",
        weights_folder: str | Path | None = None,
        rules: DetectionRules | None = None,
    ) -> FaceDetector:
        """As ``load``. ``weights_folder``: where ``download`` keeps its file."""
        weights = load_weights(options.weights, options.network, weights_folder)
        fused = FusedRetinaFace(facexlib_network(weights, options.network))
        return cls(fused, weights.version, device, options, rules)

    def detect(self, images: Sequence[np.ndarray | bytes]) -> list[list[Face]]:
        """The faces of each picture, best first (ties from left to right).

        ``images``: RGB uint8 [H, W, 3] arrays or encoded pictures. Raises UndecodableImage for bytes that hold no
        picture and ValueError for an array of another shape or type.
        """
        # No batch so large that a worker has none. Even one picture goes to a worker: where other programs keep the cores
        # busy, threads that share a picture's layers were seen to take a hundred times as long.
        size = max(1, min(self._batch_size, -(-len(images) // self._worker_count())))
        runs = [images[i : i + size] for i in range(0, len(images), size)]
        return [faces for run in self._workers().map(self._detect_run, runs) for faces in run]

    def _worker_count(self) -> int:
        """Threads that take pictures; on a GPU two, so that one prepares a batch while the other's is computed."""
        return 2 if self.device.type == "cuda" else core_count()

    def _workers(self) -> ThreadPoolExecutor:
        count = self._worker_count()
        with self._pool_lock:
            if self._pool is None or self._pool[0] != count:
                self._pool = (count, single_core_pool(count))
            return self._pool[1]

    @torch.inference_mode()
    def _detect_run(self, images: Sequence[np.ndarray | bytes]) -> list[list[Face]]:
        seen = [(i, view) for i, image in enumerate(images) for view in self._views(as_rgb(image))]
        found: list[list[tuple[View, Candidates]]] = [[] for _ in images]
        for chunk in self._batches([view for _, view in seen]):
            for k, candidates in zip(chunk, self._detect_batch([seen[k][1] for k in chunk]), strict=True):
                i, view = seen[k]
                found[i].append((view, candidates))
        return [_faces(merged(views_of_one, self.rules.nms_iou)) for views_of_one in found]

    def _views(self, image: np.ndarray) -> Iterator[View]:
        chosen, rules = self.options.working_size, self.rules
        sides = level_sides(max(image.shape[:2]), chosen, rules.min_side, rules.enlarge)
        return views(image, sides, tiled=not chosen)

    def _batches(self, seen: Sequence[View]) -> Iterator[list[int]]:
        """Indices of views that share a padded size, no more of them at once than a batch of base-sized pictures has pixels."""
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for k, view in enumerate(seen):
            alike[_padded(view)].append(k)
        most = self._batch_size * _up(self.options.working_size or BASE_SIDE) ** 2
        for (height, width), indices in alike.items():
            step = max(1, most // (height * width))
            yield from (indices[k : k + step] for k in range(0, len(indices), step))

    def _detect_batch(self, seen: Sequence[View]) -> list[Candidates]:
        """What is found in views that share a padded size, in pixels of each view."""
        extent = Extent([view.size for view in seen], _padded(seen[0]))
        pixels = torch.from_numpy(_network_input(seen)).to(self.device, self._dtype).permute(0, 3, 1, 2)
        levels = self._network(pixels, extent if extent.has_padding else None)
        candidates = decode(levels, extent, self.rules.min_score)
        return [suppress_overlaps(found, self.rules.nms_iou) for found in candidates]


def _up(side: int) -> int:
    return -(-side // PADDING_MULTIPLE) * PADDING_MULTIPLE


def _padded(view: View) -> tuple[int, int]:
    return _up(view.size[0]), _up(view.size[1])


def _network_input(seen: Sequence[View]) -> np.ndarray:
    """Float32 [B, H, W, 3]: RGB minus the mean colour, and zero where a view is padded."""
    height, width = _padded(seen[0])
    batch = np.empty((len(seen), height, width * 3), dtype=np.float32)
    for row, view in zip(batch, seen, strict=True):
        h, w = view.size
        row[h:] = 0
        row[:h, w * 3 :] = 0
        # Row by row of whole pixels: numpy is slow over an innermost axis of three.
        flat = np.ascontiguousarray(view.pixels).reshape(h, w * 3)
        np.subtract(flat, np.tile(np.array(MEAN_RGB, dtype=np.float32), w), out=row[:h, : w * 3])
    return batch.reshape(len(seen), height, width, 3)


def _faces(found: Candidates) -> list[Face]:
    return [
        Face((float(x0), float(y0), float(x1), float(y1)), points, float(score))
        for (x0, y0, x1, y1), points, score in zip(found.boxes, found.landmarks, found.scores, strict=True)
    ]
