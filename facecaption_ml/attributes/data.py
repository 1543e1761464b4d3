"""Labelled face crops for training: in memory, or decoded from files as they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from facecaption_ml.decoding import decode_image
from facecaption_ml.errors import FaceCaptionError

SPLITS: Final = ("train", "validation", "test")
Window = tuple[float, float, float, float]
_FINGERPRINT_PICTURES: Final = 256


class AttributeDataError(FaceCaptionError):
    """A labelled set cannot be used; the message names the file, line or split."""


class Images(Protocol):
    """Pictures by index."""

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """uint8 [B, H, W, 3] RGB, each picture resized to ``size`` = (H, W)."""


@dataclass(frozen=True)
class ArrayImages:
    """Pictures in one uint8 array [N, H, W, 3], RGB."""

    pixels: np.ndarray

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, indices: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        chosen = self.pixels[indices]
        if chosen.shape[1:3] == size:
            return chosen
        return np.stack([fit(picture, size) for picture in chosen])


@dataclass(frozen=True)
class FileImages:
    """Picture files, of which a window (x0, y0, x1, y1 as shares of width and height) is cut; it may leave the frame."""

    paths: Sequence[Path]
    window: Window = (0.0, 0.0, 1.0, 1.0)

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, indices: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        with ThreadPoolExecutor(4) as pool:  # decoding leaves the interpreter lock
            return np.stack(list(pool.map(lambda i: self._read(self.paths[int(i)], size), indices)))

    def in_memory(self, size: tuple[int, int]) -> ArrayImages:
        return ArrayImages(self.batch(np.arange(len(self)), size))

    def _read(self, path: Path, size: tuple[int, int]) -> np.ndarray:
        return fit(cut(decode_image(path.read_bytes()), self.window), size)


@dataclass(frozen=True)
class AttributeData:
    """Crops with labels (bool [N, 40], CelebA's order) and the rows of each split (``train``, ``validation``, ``test``)."""

    images: Images
    labels: np.ndarray
    rows: dict[str, np.ndarray]
    name: str

    def __post_init__(self) -> None:
        if self.labels.shape != (len(self.images), 40):
            raise AttributeDataError(f"{self.name}: labels are {self.labels.shape}, should be ({len(self.images)}, 40)")
        for split in SPLITS:
            if not len(self.rows.get(split, ())):
                raise AttributeDataError(f"{self.name}: the {split} split is empty")

    @property
    def fingerprint(self) -> str:
        """A hash of the labels, the splits and a sample of the pictures: other data have another."""
        found = hashlib.sha256(repr((self.name, self.labels.shape)).encode())
        found.update(np.packbits(self.labels).tobytes())
        for split in SPLITS:
            found.update(np.asarray(self.rows[split], np.int64).tobytes())
        sample = np.unique(np.linspace(0, len(self.images) - 1, _FINGERPRINT_PICTURES).astype(int))
        found.update(self.images.batch(sample, (32, 32)).tobytes())
        return found.hexdigest()[:16]

    @classmethod
    def from_arrays(
        cls, pixels: np.ndarray, labels: np.ndarray, name: str, validation: float = 0.1, test: float = 0.1
    ) -> AttributeData:
        """From uint8 [N, H, W, 3] and bool [N, 40]; the last rows become validation and test."""
        count = len(pixels)
        last, held = round(count * (1 - test)), round(count * (1 - test - validation))
        order = np.arange(count)
        rows = {"train": order[:held], "validation": order[held:last], "test": order[last:]}
        return cls(ArrayImages(pixels), np.asarray(labels, bool), rows, name)


def fit(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A picture resized to (H, W): averaged when it shrinks, interpolated when it grows."""
    import cv2

    height, width = picture.shape[:2]
    if (height, width) == size:
        return picture
    shrinks = height > size[0] or width > size[1]
    return cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def cut(picture: np.ndarray, window: Window) -> np.ndarray:
    """The window of a picture; pixels outside the frame repeat its border."""
    height, width = picture.shape[:2]
    x0, x1 = round(window[0] * width), round(window[2] * width)
    y0, y1 = round(window[1] * height), round(window[3] * height)
    columns, lines = np.arange(x0, x1).clip(0, width - 1), np.arange(y0, y1).clip(0, height - 1)
    return picture[lines[:, None], columns[None, :]]
