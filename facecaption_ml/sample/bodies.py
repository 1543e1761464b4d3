"""A drawn scene as a file: JPEG mostly, and the other forms that pictures of the web come in."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

VARIANT_SHARES: Final[Mapping[str, float]] = {
    "png": 0.02,
    "webp": 0.02,
    "gif": 0.007,
    "grey": 0.01,
    "cmyk": 0.007,
    "palette": 0.007,
    "alpha": 0.007,
    "turned": 0.015,  # stored on its side, with an EXIF orientation that says so
    "progressive": 0.02,
}
"""Forms of a file and their shares; the rest is "jpeg"."""

_BODY_STREAM: Final = 0xB0D7
_EXIF_ORIENTATION: Final = 0x0112
_BOMB_SIDE: Final = 30_000


def encode_scene(image: npt.NDArray[np.uint8], variant: str, seed: int) -> tuple[bytes, str]:
    """An RGB picture [H, W, 3] as file bytes and content type; JPEG quality follows from ``seed``.

    Raises ValueError for a variant that is neither "jpeg" nor in :data:`VARIANT_SHARES`.
    """
    quality = int(np.random.default_rng((_BODY_STREAM, seed)).integers(78, 96))
    picture = Image.fromarray(image)
    match variant:
        case "jpeg":
            return _saved(picture, "JPEG", quality=quality)
        case "progressive":
            return _saved(picture, "JPEG", quality=quality, progressive=True)
        case "grey":
            return _saved(picture.convert("L"), "JPEG", quality=quality)
        case "cmyk":
            return _saved(picture.convert("CMYK"), "JPEG", quality=quality)
        case "turned":
            exif = Image.Exif()
            exif[_EXIF_ORIENTATION] = 6  # to be turned clockwise by a quarter
            return _saved(picture.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=quality, exif=exif)
        case "png":
            return _saved(picture, "PNG", compress_level=1)
        case "palette":
            return _saved(picture.quantize(128), "PNG", compress_level=1)
        case "alpha":
            return _saved(_with_alpha(picture), "PNG", compress_level=1)
        case "webp":
            return _saved(picture, "WEBP", quality=quality, method=0)
        case "gif":
            return _saved(picture.quantize(128), "GIF")
    raise ValueError(f"unknown form of a file {variant!r}; known: jpeg, {', '.join(VARIANT_SHARES)}")


def _saved(picture: Image.Image, form: str, **options: object) -> tuple[bytes, str]:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue(), f"image/{form.lower()}"


def _with_alpha(picture: Image.Image) -> Image.Image:
    """Transparent round the corners only, so that no face is lost."""
    mask = np.full((picture.height, picture.width), 255, np.uint8)
    mask[:12], mask[-12:], mask[:, :12], mask[:, -12:] = 0, 0, 0, 0
    turned = picture.convert("RGBA")
    turned.putalpha(Image.fromarray(mask))
    return turned


@lru_cache(maxsize=1)
def oversized_png() -> bytes:
    """A valid PNG of 30,000 × 30,000 black pixels in about 100 kB: it would take 2.7 GB once decoded."""
    row = b"\0" * (1 + _BOMB_SIDE // 8)
    packer = zlib.compressobj(1)
    parts = [packer.compress(row * 100) for _ in range(_BOMB_SIDE // 100)]
    data = b"".join(parts) + packer.flush()
    header = struct.pack(">IIBBBBB", _BOMB_SIDE, _BOMB_SIDE, 1, 0, 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", data), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
