"""BRISQUE: how far a picture's local contrasts are from those of undistorted photographs; lower is better.

Mittal, Moorthy, Bovik, "No-Reference Image Quality Assessment in the Spatial Domain", IEEE TIP 21 (12), 2012. The 36
features follow the authors' C++ release of 2011 as OpenCV's quality module computes them, the score is that release's
support vector regression on the LIVE database, read from the PyPI package ``brisque`` (its files only: the package's own
code fails under NumPy 2.4, and its requirements are not needed).

A picture is scored in its own resolution unless ``shorter_side`` is set. Neither the FaceCaption-15M paper nor BRISQUE's
fixes a size, and the score depends on it: halving a photograph hides its noise and its blur, and moved the score of eight
photographs by 1 to 19 points. So data sets compare as they are published, not as they would look at one size.

Against OpenCV 5.0 with the same regression, 96 photographs and degraded copies differ by 0.004 points in the median. Only
in the flat blocks of coarse JPEGs the two part, by up to 10 points: OpenCV's float32 variance rounds below zero there and
leaves NaN pixels, while here flat pixels are exactly zero, on every machine.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from facecaption_ml.decoding import as_rgb
from facecaption_ml.errors import FaceCaptionError

Array = npt.NDArray[np.float64]

FEATURES: Final = 36
MIN_SIDE: Final = 32
"""Smaller pictures have too few pixels for the fits at half size: their score is NaN."""
_SCALES: Final = 2
_KERNEL: Final = (7, 7)
_SIGMA: Final = 7 / 6  # pixels
_C: Final = 1 / 255  # keeps flat regions from dividing by zero, on a grey scale of 0 … 1
_FLAT: Final = 1e-6  # smaller coefficients are rounding
_NEIGHBOURS: Final = ((0, 1), (1, 0), (1, 1), (-1, 1))  # rows, columns: right, below and the two diagonals
_PACKAGE: Final = "brisque"
_VERSION: Final = "0.2.0"
# SHA-256 of the files of brisque 0.2.0; image-quality 1.2.7 has the same two.
_FILES: Final = {
    "brisque/models/svm.txt": "19526fb799c4c7992ccc109fcfecddb25976ba024b194cd3ee275d27e8909c8d",
    "brisque/models/normalize.pickle": "a91753fe7088efe0b40e4d091315201fdb067966fc6785cf465e1eab060acda9",
}


class BrisqueModelError(FaceCaptionError):
    """The regression's files are not those of the pinned package; the message says what to install."""


@dataclass(frozen=True)
class Brisque:
    """The regression of the LIVE release. ``low`` and ``high`` [36] scale features to −1 … 1.

    ``shorter_side``: pictures with a longer shorter side are shrunk to it by area averaging before they are scored; none
    is enlarged; None scores every picture as it is.
    """

    support: Array = field(repr=False)  # [support vectors, 36], scaled
    weights: Array = field(repr=False)  # [support vectors]
    gamma: float
    offset: float
    low: Array = field(repr=False)
    high: Array = field(repr=False)
    shorter_side: int | None = None

    metrics = ("brisque",)

    @classmethod
    def load(cls, shorter_side: int | None = None) -> Brisque:
        """The bundled regression. Raises BrisqueModelError where its package is missing or has other files."""
        if shorter_side is not None and shorter_side < MIN_SIDE:
            raise ValueError(f"shorter_side: {shorter_side} pixels are less than {MIN_SIDE}")
        svm, ranges = (_packaged(name) for name in _FILES)
        header, _, vectors = svm.decode("ascii").partition("\nSV\n")
        settings = dict(line.split(" ", 1) for line in header.splitlines())
        rows = [line.split() for line in vectors.splitlines()]
        support = np.array([[float(pair.partition(":")[2]) for pair in row[1:]] for row in rows])
        bounds = _Plain(io.BytesIO(ranges)).load()
        return cls(
            support,
            np.array([float(row[0]) for row in rows]),
            float(settings["gamma"]),
            -float(settings["rho"]),
            np.array(bounds["min_"]),
            np.array(bounds["max_"]),
            shorter_side,
        )

    def score(self, images: Sequence[np.ndarray | bytes]) -> npt.NDArray[np.float32]:
        """float32 [N, 1], about 0 (best) to 100, not clipped; NaN for a picture under MIN_SIDE or without any contrast.

        ``images`` are RGB uint8 [H, W, 3] or encoded bytes. Raises UndecodableImage for bytes that hold no picture.
        """
        features = np.array([self.features(image) for image in images]).reshape(-1, FEATURES)
        return self.regress(features).astype(np.float32)[:, None]

    def features(self, image: np.ndarray | bytes) -> Array:
        """float64 [36] of one picture at the size that is scored, NaN where they are not defined."""
        import cv2

        rgb = as_rgb(image)
        if min(rgb.shape[:2]) < MIN_SIDE:
            return np.full(FEATURES, np.nan)
        if self.shorter_side is not None and min(rgb.shape[:2]) > self.shorter_side:
            shrink = self.shorter_side / min(rgb.shape[:2])
            width, height = (max(self.shorter_side, round(side * shrink)) for side in rgb.shape[1::-1])
            rgb = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
        return brisque_features(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))

    def regress(self, features: Array) -> Array:
        """Scores [N] of features [N, 36]."""
        scaled = -1 + 2 * (features - self.low) / (self.high - self.low)
        return np.array(
            [
                self.offset + math.fsum(self.weights * np.exp(-self.gamma * np.square(self.support - row).sum(1)))
                for row in scaled
            ]
        )


def brisque_features(grey: np.ndarray) -> Array:
    """The 36 features of a grey uint8 picture [H, W]: 18 at its own size, 18 at half of it; NaN where a fit is not defined."""
    import cv2

    whole = grey.astype(np.float64) / 255
    features: list[float] = []
    for scale in range(_SCALES):
        size = (grey.shape[1] >> scale, grey.shape[0] >> scale)
        contrast = normalised_contrast(cv2.resize(whole, size, interpolation=cv2.INTER_CUBIC) if scale else whole)
        shape, left, right = fit_asymmetric(contrast, contrast.size)
        features += [shape, (left + right) / 2]
        for down, across in _NEIGHBOURS:
            features += _pair_features(_products(contrast, down, across), contrast.size)
    return np.array(features)


def normalised_contrast(picture: np.ndarray) -> Array:
    """Mean-subtracted, contrast-normalised coefficients of a grey picture of 0 … 1 (equation 1 of the paper)."""
    import cv2

    mean = cv2.GaussianBlur(picture, _KERNEL, _SIGMA, borderType=cv2.BORDER_REPLICATE)
    square = cv2.GaussianBlur(picture * picture, _KERNEL, _SIGMA, borderType=cv2.BORDER_REPLICATE)
    # Rounding leaves up to 1e-16 of either sign where the picture is flat.
    deviation = np.sqrt(np.maximum(square - mean * mean, 0))
    contrast = (picture - mean) / (deviation + _C)
    # Rounding alone must not decide on which side of zero a flat pixel counts.
    contrast[np.abs(contrast) < _FLAT] = 0
    return contrast


def fit_asymmetric(values: Array, count: int) -> tuple[float, float, float]:
    """Shape, left variance and right variance of an asymmetric generalised Gaussian, by moments (section III of the paper).

    ``count`` is the number of values that the mean is taken over: those left out are zeros. NaN where one side is empty.
    """
    above = np.maximum(values, 0)
    positive, negative = int(np.count_nonzero(above)), int(np.count_nonzero(values < 0))
    if not positive or not negative:
        return (math.nan,) * 3
    right_sum = float(np.square(above).sum())
    below = values - above
    left_sum = float(np.square(below).sum())
    left, right = left_sum / negative, right_sum / positive
    lopsided = math.sqrt(left / right)
    ratio = (float(above.sum() - below.sum()) / count) ** 2 / ((left_sum + right_sum) / count)
    ratio *= (lopsided**3 + 1) * (lopsided + 1) / (lopsided**2 + 1) ** 2
    shapes, ratios = _moment_ratios()
    place = int(np.clip(np.searchsorted(ratios, ratio), 1, len(ratios) - 1))
    nearest = place - (ratio - ratios[place - 1] <= ratios[place] - ratio)
    return float(shapes[nearest]), left, right


def _products(contrast: Array, down: int, across: int) -> Array:
    """Each coefficient times its neighbour; those without one are left out."""
    if down < 0:
        return contrast[-down:, :-across] * contrast[:down, across:]
    height, width = contrast.shape
    return contrast[: height - down, : width - across] * contrast[down:, across:]


def _pair_features(products: Array, count: int) -> list[float]:
    shape, left, right = fit_asymmetric(products, count)
    if math.isnan(shape):
        return [math.nan] * 4
    # the fitted distribution's mean
    mean = (math.sqrt(right) - math.sqrt(left)) * math.exp(
        math.lgamma(2 / shape) - 0.5 * (math.lgamma(1 / shape) + math.lgamma(3 / shape))
    )
    return [shape, mean, left, right]


@lru_cache(maxsize=1)
def _moment_ratios() -> tuple[Array, Array]:
    """Shapes of 0.2 … 10 in steps of 0.001 and Γ(2/a)² / (Γ(1/a) Γ(3/a)) of each, which grows with the shape."""
    shapes = np.arange(200, 10_000) / 1000
    ratios = [math.exp(2 * math.lgamma(2 / a) - math.lgamma(1 / a) - math.lgamma(3 / a)) for a in shapes]
    return shapes, np.array(ratios)


class _Plain(pickle.Unpickler):
    """Reads dicts, lists and numbers, nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise BrisqueModelError(f"{_PACKAGE}: normalize.pickle holds {module}.{name}; expected numbers only")


def _packaged(name: str) -> bytes:
    """A file of the installed package, whose own code is never imported."""
    remedy = f"install {_PACKAGE}=={_VERSION} (without its dependencies)"
    try:
        data = importlib.metadata.distribution(_PACKAGE).locate_file(name).read_bytes()  # type: ignore[attr-defined]
    except (importlib.metadata.PackageNotFoundError, OSError):
        raise BrisqueModelError(f"BRISQUE's model {name} is not installed: {remedy}") from None
    if hashlib.sha256(data).hexdigest() != _FILES[name]:
        raise BrisqueModelError(f"{name} is not the file of {_PACKAGE} {_VERSION}: {remedy}")
    return data
