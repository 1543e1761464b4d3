"""What the tests of the faces package share: two threads, the photographs, both sets of weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from facecaption_ml.decoding import decode_image
from facecaption_ml.faces import FaceDetector

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For plain forward passes, whose layers would wait for two threads at every step on a busy machine."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def photo_files(photos: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(photos.iterdir())}


@pytest.fixture(scope="session")
def photo_pixels(photo_files: dict[str, bytes]) -> dict[str, np.ndarray]:
    return {name: decode_image(data) for name, data in photo_files.items()}


@pytest.fixture(scope="session")
def user_weights() -> Path:
    path = DATA / "retinaface_mobilenet0.25.pth"
    if not path.is_file():
        pytest.skip(f"no weights at {path}")
    return path


@pytest.fixture(scope="session")
def detector() -> FaceDetector:
    return FaceDetector.load()


@pytest.fixture(scope="session")
def blobs() -> list[np.ndarray]:
    """Pictures without faces, of several sizes, that still raise many low scores: blurred noise with a few ovals."""
    generator = np.random.default_rng(7)
    pictures = []
    for height, width in ((200, 300), (320, 320), (97, 411), (640, 200), (33, 35)):
        noise = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        picture = cv2.GaussianBlur(noise, (0, 0), 5)
        for _ in range(6):
            centre = (int(generator.integers(width)), int(generator.integers(height)))
            axes = (int(generator.integers(5, 40)), int(generator.integers(8, 60)))
            colour = tuple(int(c) for c in generator.integers(80, 256, 3))
            cv2.ellipse(picture, centre, axes, 0, 0, 360, colour, -1)
            cv2.circle(picture, (centre[0] - axes[0] // 3, centre[1] - 4), max(1, axes[0] // 8), (20, 20, 20), -1)
            cv2.circle(picture, (centre[0] + axes[0] // 3, centre[1] - 4), max(1, axes[0] // 8), (20, 20, 20), -1)
        pictures.append(cv2.GaussianBlur(picture, (0, 0), 1))
    return pictures
