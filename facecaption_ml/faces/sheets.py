"""Pictures for people: a sheet of face crops, and a picture with what the detector found drawn into it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from facecaption_ml.faces.detector import Face

_BACKGROUND: Final = (255, 255, 255)
_EMPTY_CELL: Final = (238, 238, 238)
_TEXT: Final = (40, 40, 40)
_GAP: Final = 6  # px
_WHOLE: Final = 100  # lines: more than any caption has
_BOX: Final = (0, 200, 83)
_BLUE, _RED, _YELLOW = (41, 121, 255), (255, 23, 68), (255, 214, 0)
_LANDMARKS: Final = (_BLUE, _RED, _YELLOW, _BLUE, _RED)  # image-left blue, right red


def contact_sheet(
    images: Sequence[np.ndarray],
    captions: Sequence[str] | None = None,
    columns: int = 6,
    cell: int = 160,
    caption_lines: int | None = 2,
) -> np.ndarray:
    """``images`` (RGB uint8, any sizes) in rows of ``columns``, each fitted into ``cell``×``cell`` px, as RGB uint8 [H, W, 3].

    ``captions``, one per image, stand below in ``caption_lines`` at most (None: whole), smaller where there are many; up to two
    lines have their room in any case, more where a caption needs it. Without images the sheet is one empty cell. Raises
    ValueError where captions and images differ in number, or columns or cell are too small.
    """
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"captions: {len(captions)} for {len(images)} images")
    if columns < 1 or cell < 16:
        raise ValueError(f"columns: {columns} must be at least 1, cell: {cell} at least 16 px")
    most = _WHOLE if caption_lines is None else caption_lines
    font = _font(max(10, cell // (12 if most <= 2 else 17)))
    line_height = math.ceil(font.getbbox("Äg")[3]) + 2
    texts = [_wrapped(text, font, cell, most) for text in captions or ()]
    room = max([min(2, most), *map(len, texts)])
    text_height = 0 if captions is None else line_height * room + 2
    across = max(1, min(columns, len(images)))
    down = max(1, -(-len(images) // columns))
    size = (_GAP + across * (cell + _GAP), _GAP + down * (cell + text_height + _GAP))
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    if not images:
        draw.rectangle((_GAP, _GAP, _GAP + cell - 1, _GAP + cell - 1), fill=_EMPTY_CELL)
    for i, image in enumerate(images):
        left = _GAP + i % columns * (cell + _GAP)
        top = _GAP + i // columns * (cell + text_height + _GAP)
        draw.rectangle((left, top, left + cell - 1, top + cell - 1), fill=_EMPTY_CELL)
        thumbnail = _fitted(image, cell)
        sheet.paste(thumbnail, (left + (cell - thumbnail.width) // 2, top + (cell - thumbnail.height) // 2))
        for line, text in enumerate(texts[i] if texts else ()):
            draw.text((left, top + cell + 2 + line * line_height), text, fill=_TEXT, font=font)
    return np.asarray(sheet).copy()


def draw_faces(image: np.ndarray, faces: Sequence[Face]) -> np.ndarray:
    """A copy of ``image`` (RGB uint8 [H, W, 3]) with the box, the five landmarks and the score of each face."""
    canvas = np.ascontiguousarray(image).copy()
    thickness = max(1, round(max(image.shape[:2]) / 400))
    for face in faces:
        x0, y0, x1, y1 = (round(v) for v in face.box)
        cv2.rectangle(canvas, (x0, y0), (x1, y1), _BOX, thickness, cv2.LINE_AA)
        for (x, y), colour in zip(face.landmarks, _LANDMARKS, strict=True):
            radius = max(thickness, round(face.width / 40))
            cv2.circle(canvas, (round(float(x)), round(float(y))), radius, colour, -1, cv2.LINE_AA)
    labelled = Image.fromarray(canvas)
    draw = ImageDraw.Draw(labelled)
    for face in faces:
        _draw_score(draw, face, thickness, labelled.size)
    return np.asarray(labelled).copy()


def _draw_score(draw: ImageDraw.ImageDraw, face: Face, thickness: int, size: tuple[int, int]) -> None:
    """The score on a plate at the box's upper left corner, inside the picture; its size follows the box's."""
    font = _font(float(np.clip(face.width / 6, 9, 12 * thickness + 4)))
    text = f"{face.score:.2f}" if face.width < 60 else f"{face.score:.4f}"
    left, top, right, bottom = font.getbbox(text)
    width, height = right - left + 4, bottom - top + 4
    x = float(np.clip(face.box[0], 0, max(0, size[0] - width)))
    y = float(np.clip(face.box[1] - height, 0, max(0, size[1] - height)))
    draw.rectangle((x, y, x + width, y + height), fill=_BOX)
    draw.text((x + 2 - left, y + 2 - top), text, fill=(0, 0, 0), font=font)


@lru_cache
def _font(size: float) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has more scripts and signs than Pillow's own font."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _fitted(image: np.ndarray, cell: int) -> Image.Image:
    """The picture with its longer side brought to ``cell``, its proportions kept."""
    height, width = image.shape[:2]
    scale = cell / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return Image.fromarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int, most: int) -> list[str]:
    """``text`` in at most ``most`` lines of ``width`` px, cut with an ellipsis where it is longer."""
    lines: list[str] = []
    rest = text.split()
    while rest and len(lines) < most:
        fitting = 1
        while fitting < len(rest) and font.getlength(" ".join(rest[: fitting + 1])) <= width:
            fitting += 1
        line, rest = " ".join(rest[:fitting]), rest[fitting:]
        last = len(lines) == most - 1
        lines.append(_cut(f"{line} …" if rest and last else line, font, width))
    return lines


def _cut(line: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(line) <= width:
        return line
    line = line.rstrip(" …")
    while line and font.getlength(f"{line}…") > width:
        line = line[:-1]
    return f"{line}…"
