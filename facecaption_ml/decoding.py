"""Encoded pictures to RGB arrays and back, with every limit that hostile files call for.

JPEG, PNG, WebP and GIF (its first frame) are accepted, whatever the file's name says. The size is read from the header
and held against the pixel cap before anything is allocated.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Final, Literal, TypeVar

import numpy as np
from PIL import Image

from facecaption_ml.errors import FaceCaptionError

MAX_PIXELS: Final = 100_000_000

T = TypeVar("T")
Reason = Literal["too_many_pixels", "not_an_image", "undecodable"]

ACCEPTED_FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF")
_ORIENTATION_TAG: Final = 0x0112  # EXIF 2.3, table 4
# How a picture stored under each EXIF orientation has to be turned to stand upright.
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES: Final = frozenset({5, 6, 7, 8})
# A progressive JPEG decodes the whole picture once per scan; encoders write about ten scans, hostile files thousands.
_MAX_JPEG_SCANS: Final = 100


class UndecodableImage(FaceCaptionError, ValueError):  # noqa: N818
    """Bytes from which no picture can be had. ``reason`` says why: too_many_pixels, not_an_image or undecodable."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The picture in ``data``, upright, as RGB uint8 [H, W, 3].

    EXIF orientation is applied; transparency is laid on white; CMYK, palette and grey become RGB; 16 bits are scaled to
    8. Raises UndecodableImage for anything else than a whole picture of at most ``max_pixels`` pixels.
    """
    image = _open(data, max_pixels)
    rgb = _guarded(lambda: _to_rgb(image))
    turn = _UPRIGHT.get(_orientation(image))
    return np.array(rgb if turn is None else rgb.transpose(turn))


def verify_image(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height in pixels after EXIF orientation, once the whole of ``data`` has proved decodable.

    A JPEG is decoded in grey at an eighth of its size: every coefficient is still read, so a cut or damaged file
    fails, but the inverse transforms, most of the cost, are left out. Raises UndecodableImage as decode_image does.
    """
    image = _open(data, max_pixels)
    width, height = image.size
    if image.format in ("JPEG", "MPO"):
        image.draft("L", (max(1, width // 8), max(1, height // 8)))
    _guarded(image.load)
    return (height, width) if _orientation(image) in _SWAPS_SIDES else (width, height)


def image_size(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height in pixels as stored (EXIF orientation not applied), from the header. Raises UndecodableImage."""
    return _open(data, max_pixels).size


def encode_jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    """A JPEG of an RGB uint8 [H, W, 3] array. Raises ValueError for another array or a side over 65,535 px."""
    _require_rgb(image)
    if max(image.shape[:2]) > 65_535:
        raise ValueError(f"image: JPEG holds at most 65535 pixels a side, not {image.shape[1]}x{image.shape[0]}")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality: {quality} is not between 1 and 100")
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def as_rgb(image: np.ndarray | bytes) -> np.ndarray:
    """RGB uint8 [H, W, 3] from such an array (returned as it is) or from encoded bytes.

    Raises UndecodableImage for bytes that hold no picture and ValueError for an array of another shape or type.
    """
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_image(bytes(image))
    _require_rgb(image)
    return image


def _require_rgb(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray):
        raise ValueError(f"image: expected an RGB uint8 array [H, W, 3] or encoded bytes, not {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image: expected RGB uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """The picture with only its header read; its size is within ``max_pixels``."""
    if not has_image_signature(data):
        raise UndecodableImage("not_an_image", "not a JPEG, PNG, WebP or GIF file")
    canvas = _webp_canvas(data)
    if canvas is not None:  # Pillow allocates a WebP's canvas while opening it
        _require_pixels(*canvas, max_pixels)
    if data[:2] == b"\xff\xd8" and data.count(b"\xff\xda") > _MAX_JPEG_SCANS:
        raise UndecodableImage("undecodable", f"JPEG with more than {_MAX_JPEG_SCANS} scans")
    image = _guarded(lambda: Image.open(io.BytesIO(data), formats=ACCEPTED_FORMATS))
    _require_pixels(image.width, image.height, max_pixels)
    return image


def has_image_signature(data: bytes) -> bool:
    """Whether ``data`` begins like one of the accepted formats; 12 bytes are enough to tell."""
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return is_webp or data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a"))


def _require_pixels(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise UndecodableImage("undecodable", f"the header says {width}x{height} pixels")
    if width * height > max_pixels:
        raise UndecodableImage("too_many_pixels", f"{width}x{height} pixels are more than the cap of {max_pixels}")


def _webp_canvas(data: bytes) -> tuple[int, int] | None:
    """Width and height from a WebP header (WebP Container Specification; RFC 9649), None for other or broken files."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return None
    chunk = data[12:16]
    if chunk == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if chunk == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return None


def _guarded(step: Callable[[], T]) -> T:
    """What ``step`` returns; whatever Pillow raises on a broken file comes out as UndecodableImage."""
    try:
        return step()
    except UndecodableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UndecodableImage("too_many_pixels", str(error)) from None
    except Exception as error:  # Pillow's readers let struct.error, IndexError, SyntaxError and others through
        raise UndecodableImage("undecodable", f"{type(error).__name__}: {error}".splitlines()[0]) from error


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation of a loaded picture (a PNG may carry it behind the pixels); 1 is upright."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged EXIF in a picture that decodes: it is taken as upright
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode.startswith("I"):
        return _sixteen_bits_to_rgb(image)
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        white = Image.new("RGBA", colours.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, colours).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _sixteen_bits_to_rgb(image: Image.Image) -> Image.Image:
    """Grey of 0 … 65535 as RGB; Pillow's own conversion would clip at 255."""
    values = np.asarray(image).astype(np.uint32).clip(0, 65_535)
    grey = ((values * 255 + 32_767) // 65_535).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")
