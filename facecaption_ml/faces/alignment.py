"""Upright crops: the picture turned about the face box's centre until the eyes are level, cut at native resolution."""

from __future__ import annotations

import math

import cv2
import numpy as np

from facecaption_ml.faces.detector import Face

# Eyes closer than this share of the box's longer side (a face seen from the side) define no line worth levelling.
MIN_EYE_DISTANCE = 0.05


def roll_degrees(face: Face) -> float:
    """How far the face leans, from -180 to 180: positive is clockwise, the image-right eye lower.

    A face that lies on its side or stands on its head has a roll near ±90 or ±180, because RetinaFace's first eye is the
    one on the left of the *upright* face.
    """
    (x0, y0), (x1, y1) = face.landmarks[0], face.landmarks[1]
    return math.degrees(math.atan2(float(y1) - float(y0), float(x1) - float(x0)))


def has_eye_line(face: Face) -> bool:
    """Whether the landmarks are numbers and the eyes far enough apart to tell how the face leans."""
    if not np.isfinite(face.landmarks).all():
        return False
    distance = float(np.hypot(*(face.landmarks[1] - face.landmarks[0])))
    return distance >= MIN_EYE_DISTANCE * max(face.width, face.height)


def align_and_crop(image: np.ndarray, face: Face, margin: float = 0.3) -> tuple[np.ndarray, float]:
    """The upright face as RGB uint8 [h, w, 3], and the roll in degrees that was taken out.

    ``image``: RGB uint8 [H, W, 3], the picture that ``face`` was found in. The picture is turned about the centre of the
    face box; the crop is the box with ``margin`` of its width and height added on each of the four sides, in pixels of the
    source (the turn does not scale). Where a face lies more than 45° on its side, the box's width is the upright
    face's height, and the two are swapped. Pixels outside the picture repeat its border.
    """
    roll = roll_degrees(face)
    return _turned_window(image, _centre(face), roll, _crop_size(face, roll, margin)), roll


def aligned_points(face: Face, points: np.ndarray, margin: float = 0.3) -> np.ndarray:
    """Where ``points`` of the source picture ([N, 2], px) lie in the crop that align_and_crop makes of ``face``."""
    roll = roll_degrees(face)
    to_source = _crop_to_source(_centre(face), roll, _crop_size(face, roll, margin))
    # Points count pixel edges from 0, the transform pixel centres.
    return cv2.transform(points[None].astype(np.float64) - 0.5, cv2.invertAffineTransform(to_source))[0] + 0.5


def _crop_size(face: Face, roll: float, margin: float) -> tuple[int, int]:
    """Width and height of the crop in px."""
    sides = (face.height, face.width) if 45 < abs(roll) < 135 else (face.width, face.height)
    width, height = (max(1, round(side * (1 + 2 * margin))) for side in sides)
    return width, height


def _centre(face: Face) -> tuple[float, float]:
    return (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2


def _crop_to_source(centre: tuple[float, float], roll: float, size: tuple[int, int]) -> np.ndarray:
    """Affine [2, 3] from pixels of a crop of ``size`` (width, height) to pixels of the source.

    Both count pixel centres from 0, boxes count pixel edges; the half pixels between the two cancel in the middle of the crop.
    """
    cos, sin = math.cos(math.radians(roll)), math.sin(math.radians(roll))
    middle_x, middle_y = (size[0] - 1) / 2, (size[1] - 1) / 2
    x, y = centre[0] - 0.5, centre[1] - 0.5
    return np.array([[cos, -sin, x - cos * middle_x + sin * middle_y], [sin, cos, y - sin * middle_x - cos * middle_y]])


def _turned_window(image: np.ndarray, centre: tuple[float, float], roll: float, size: tuple[int, int]) -> np.ndarray:
    """The window of ``size`` about ``centre``, turned; only the part of the picture that it needs is touched."""
    to_source = _crop_to_source(centre, roll, size)
    corners = np.array([[0, 0], [size[0] - 1, 0], [0, size[1] - 1], [size[0] - 1, size[1] - 1]], dtype=np.float64)
    reached = cv2.transform(corners[None], to_source)[0]
    height, width = image.shape[:2]
    # Two pixels more on each side for the cubic kernel; a window wholly outside still gets the nearest border pixels.
    low = np.clip(np.floor(reached.min(axis=0)).astype(int) - 2, 0, [width - 1, height - 1])
    high = np.clip(np.ceil(reached.max(axis=0)).astype(int) + 3, low + 1, [width, height])
    window = image[low[1] : high[1], low[0] : high[0]]
    to_source[:, 2] -= low
    return cv2.warpAffine(
        np.ascontiguousarray(window),
        to_source,
        size,
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
