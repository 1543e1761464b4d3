"""Views of face crops: plain for encoding and evaluation, random for training. uint8 arrays all the way.

Training views: a random resized crop as in ALBEF and BLIP (theirs may have half the picture), or, since crops cut off the
hats, ties and bald heads that captions speak of, the whole picture moved by a few pixels; FLIP's authors do not crop. Then a
mirror image half of the time, and two operations of RandAugment (Cubuk et al., 2020) from the list that ALBEF uses, made to
keep hues: captions speak of the colour of hair and skin. No caption of the data set speaks of left or right, so mirroring
changes none.
"""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from facecaption_ml.decoding import decode_image, image_size

Pixels = npt.NDArray[np.uint8]

_SHIFT: Final = 0.04  # of a side, in the place of crops
_ASPECT: Final = (3 / 4, 4 / 3)
_OPERATIONS: Final = 2
_JPEG: Final = b"\xff\xd8\xff"
_JPEG_END: Final = b"\xff\xd9"
# IMREAD_REDUCED_COLOR_n, but RGB
_REDUCED: Final = {
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8 | cv2.IMREAD_COLOR_RGB,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4 | cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2 | cv2.IMREAD_COLOR_RGB,
}
_AREA_FROM: Final = 1.5  # shrinking by less, bilinear sampling leaves no pixel out and takes a third of the time


def decode_for(data: bytes, side: int) -> Pixels:
    """RGB uint8 [H, W, 3], at a half, quarter or eighth of a JPEG's size where both sides stay at least ``side`` pixels.

    libjpeg computes only the coefficients that a reduced picture needs. Raises UndecodableImage for whatever decode_image
    raises it for, cut files among them.
    """
    if not data.startswith(_JPEG) or not data.rstrip(b"\0").endswith(_JPEG_END):
        return decode_image(data)  # other formats; and cut JPEGs, which OpenCV would fill with grey
    shorter = min(image_size(data))
    flag = next((flag for factor, flag in _REDUCED.items() if shorter >= factor * side), cv2.IMREAD_COLOR_RGB)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:
        image = None
    return decode_image(data) if image is None else np.asarray(image, np.uint8)


def decoded_side(side: int, crop_area: float = 1.0) -> int:
    """What to decode for a training view at ``side``: the smallest square that is cut out is not enlarged."""
    return math.ceil(side / math.sqrt(crop_area))


def plain_view(image: Pixels, side: int) -> Pixels:
    """The whole picture at ``side`` × ``side``."""
    return _resize(image, side)


def training_view(
    image: Pixels, side: int, rng: np.random.Generator, randaugment: float = 1.0, crop_area: float = 1.0
) -> Pixels:
    """A random view at ``side`` × ``side``.

    ``randaugment`` 0 … 1 is the share of views that get RandAugment's operations. ``crop_area``: the least share of the
    picture that a random crop shows; with 1, none is cropped, and each is moved by up to 4 % of its side.
    """
    view = _resize(_random_crop(image, rng, crop_area), side) if crop_area < 1 else _moved(_resize(image, side), rng)
    if rng.random() < 0.5:
        view = np.asarray(cv2.flip(view, 1), np.uint8)
    if rng.random() < randaugment:
        for operation in rng.integers(len(_LIST), size=_OPERATIONS).tolist():
            view = _LIST[operation](view, rng.uniform(0.2, 1.0), 1 if rng.random() < 0.5 else -1)
    return np.ascontiguousarray(view)


def _resize(image: Pixels, side: int) -> Pixels:
    height, width = image.shape[:2]
    if (height, width) == (side, side):
        return image
    method = cv2.INTER_AREA if max(height, width) > _AREA_FROM * side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (side, side), interpolation=method), np.uint8)


def _moved(view: Pixels, rng: np.random.Generator) -> Pixels:
    """By whole pixels, some each way; the edges are drawn out."""
    most = round(_SHIFT * view.shape[0])
    right, down = rng.integers(-most, most + 1, size=2).tolist()
    if not (right or down):
        return view
    matrix = np.array([[1, 0, right], [0, 1, down]], np.float32)
    moved = cv2.warpAffine(view, matrix, view.shape[1::-1], flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)


def _random_crop(image: Pixels, rng: np.random.Generator, least_area: float) -> Pixels:
    """A part of at least that share of the area and an aspect near 1; where none fits in ten tries, the whole picture."""
    height, width = image.shape[:2]
    for _ in range(10):
        area = height * width * rng.uniform(least_area, 1.0)
        aspect = math.exp(rng.uniform(math.log(_ASPECT[0]), math.log(_ASPECT[1])))
        wide, tall = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < tall <= height:
            left, top = int(rng.integers(width - wide + 1)), int(rng.integers(height - tall + 1))
            return image[top : top + tall, left : left + wide]
    return image


def _identity(view: Pixels, strength: float, sign: int) -> Pixels:
    return view


def _brightness(view: Pixels, strength: float, sign: int) -> Pixels:
    return np.asarray(cv2.convertScaleAbs(view, alpha=1 + 0.4 * sign * strength), np.uint8)


def _autocontrast(view: Pixels, strength: float, sign: int) -> Pixels:
    """One stretch for all channels, so that hues stay."""
    low, high = int(view.min()), int(view.max())
    if high - low < 8:
        return view
    return np.asarray(cv2.LUT(view, _ramp(low, high)), np.uint8)


def _ramp(low: int, high: int) -> Pixels:
    values = (np.arange(256, dtype=np.float32) - low) * (255.0 / (high - low))
    return np.rint(values).clip(0, 255).astype(np.uint8)


def _equalize(view: Pixels, strength: float, sign: int) -> Pixels:
    """Of the luminance, blended with the picture, so that hues stay; at most half, for black hair would turn grey."""
    luma = cv2.cvtColor(view, cv2.COLOR_RGB2YCrCb)
    luma[:, :, 0] = cv2.equalizeHist(luma[:, :, 0])
    equal = cv2.cvtColor(luma, cv2.COLOR_YCrCb2RGB)
    return np.asarray(cv2.addWeighted(view, 1 - strength / 2, equal, strength / 2, 0), np.uint8)


def _sharpness(view: Pixels, strength: float, sign: int) -> Pixels:
    soft = cv2.GaussianBlur(view, (3, 3), 0)
    return np.asarray(cv2.addWeighted(view, 1 + sign * strength, soft, -sign * strength, 0), np.uint8)


def _shear_x(view: Pixels, strength: float, sign: int) -> Pixels:
    return _warp(view, [[1, 0.25 * sign * strength], [0, 1]])


def _shear_y(view: Pixels, strength: float, sign: int) -> Pixels:
    return _warp(view, [[1, 0], [0.25 * sign * strength, 1]])


def _translate_x(view: Pixels, strength: float, sign: int) -> Pixels:
    return _shift(view, 0, round(0.1 * sign * strength * view.shape[1]))


def _translate_y(view: Pixels, strength: float, sign: int) -> Pixels:
    return _shift(view, round(0.1 * sign * strength * view.shape[0]), 0)


def _shift(view: Pixels, down: int, right: int) -> Pixels:
    """By whole pixels; what comes from outside the picture is its mean colour."""
    height, width = view.shape[:2]
    kept = view[max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
    edges = (max(down, 0), max(-down, 0), max(right, 0), max(-right, 0))
    return np.asarray(cv2.copyMakeBorder(kept, *edges, cv2.BORDER_CONSTANT, value=_mean_colour(view)), np.uint8)


def _rotate(view: Pixels, strength: float, sign: int) -> Pixels:
    angle = math.radians(25.0 * sign * strength)
    return _warp(view, [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _warp(view: Pixels, matrix: list[list[float]]) -> Pixels:
    """About the centre; what comes from outside the picture is its mean colour."""
    side = view.shape[0]
    centre = np.full(2, (side - 1) / 2)
    linear = np.array(matrix, np.float64)
    full = np.column_stack([linear, centre - linear @ centre])
    warped = cv2.warpAffine(view, full, (side, side), flags=cv2.INTER_LINEAR, borderValue=_mean_colour(view))
    return np.asarray(warped, np.uint8)


def _mean_colour(view: Pixels) -> tuple[float, ...]:
    return tuple(cv2.mean(view)[:3])


_LIST: Final = (
    _identity, _autocontrast, _equalize, _brightness, _sharpness,
    _shear_x, _shear_y, _translate_x, _translate_y, _rotate,
)  # fmt: skip
