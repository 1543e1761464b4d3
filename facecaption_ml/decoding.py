"""Encoded pictures to RGB arrays and back, with every limit that hostile files call for.

JPEG, PNG, WebP and GIF (its first frame) are accepted, whatever the file's name says. The size is read from the header
and held against the pixel cap and the file's length before anything is allocated. What may follow a picture in its file is
not looked at. A JPEG that lacks its end marker and nothing else is whole; one that lacks a part of its data is not.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeVar

import numpy as np
from PIL import Image, ImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.jpeg_structure import read_structure

MAX_PIXELS: Final = 100_000_000
PICTURE_SUFFIXES: Final = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".pjpeg", ".pjp", ".mpo"),
    *(".png", ".apng", ".webp", ".gif"),
)
"""Names under which files of the accepted formats go, in lower case."""

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
_READERS: Final[Mapping[bytes, Callable[[io.BytesIO], ImageFile.ImageFile]]] = {
    b"\xff": JpegImageFile, b"\x89": PngImageFile, b"R": WebPImageFile, b"G": GifImageFile,
}  # fmt: skip
"""By the first byte of a file that has_image_signature."""
# A WebP of 40 bytes may hold 16,000 × 16,000 equal pixels. Of a picture larger than 16 megapixels each byte stands for at most
# 2,000 pixels; photographs have some 10, at WebP's lowest quality 300. So a few bytes cannot cost more than 16 megapixels.
_FREE_PIXELS: Final = 16_000_000
_MOST_PIXELS_PER_BYTE: Final = 2_000
# Bits that may follow a JPEG's data: whatever code has begun, they end it differently.
_CONTINUATIONS: Final = (b"\x00" * 96, b"\x55" * 96, b"\xaa" * 96, b"\xdb\x6d\xb6" * 32)
_END_MARKER: Final = b"\xff\xd9"
_LAST_ROWS: Final = 64  # more than a row of the largest coding units, 32 px


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
    image, rgb = _decoded(data, max_pixels, _to_rgb)
    turn = _UPRIGHT.get(_orientation(image))
    return np.array(rgb if turn is None else rgb.transpose(turn))


def verify_image(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height in pixels after EXIF orientation, once the whole of ``data`` has proved decodable.

    A JPEG is decoded in grey at an eighth of its size: every coefficient is still read, so a cut or damaged file
    fails, but the inverse transforms, most of the cost, are left out. Raises UndecodableImage as decode_image does.
    """
    image, (width, height) = _decoded(data, max_pixels, _checked)
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


def _decoded(data: bytes, max_pixels: int, step: Callable[[ImageFile.ImageFile], T]) -> tuple[ImageFile.ImageFile, T]:
    """The opened picture and what ``step``, which decodes it, makes of it; a JPEG's missing end marker is added."""
    image = _open(data, max_pixels)
    try:
        return image, _guarded(lambda: step(image), max_pixels)
    except UndecodableImage:
        ended = _with_end_marker(data, max_pixels) if isinstance(image, JpegImageFile) else None
        if ended is None:
            raise
    image = _open(ended, max_pixels)
    return image, _guarded(lambda: step(image), max_pixels)


def _checked(image: ImageFile.ImageFile) -> tuple[int, int]:
    """Width and height as stored, after all of the picture has been read as cheaply as its format allows."""
    size = image.size
    if isinstance(image, JpegImageFile):
        image.draft("L", (max(1, size[0] // 8), max(1, size[1] // 8)))
    image.load()
    return size


def _open(data: bytes, max_pixels: int) -> ImageFile.ImageFile:
    """The picture with only its header read; its size is within ``max_pixels``.

    The formats' own classes are called, because Image.open would hold the size against a limit of Pillow's first.
    """
    if not has_image_signature(data):
        raise UndecodableImage("not_an_image", "not a JPEG, PNG, WebP or GIF file")
    canvas = _webp_canvas(data)
    if canvas is not None:  # Pillow allocates a WebP's canvas while opening it
        _require_pixels(*canvas, max_pixels, len(data))
    is_jpeg = data[:2] == b"\xff\xd8"
    # Counting the two bytes is cheap, following the markers is not quite; most files have few of either.
    many = is_jpeg and data.count(b"\xff\xda") > _MAX_JPEG_SCANS
    if many and read_structure(data, _MAX_JPEG_SCANS).scans > _MAX_JPEG_SCANS:
        raise UndecodableImage("undecodable", f"JPEG with more than {_MAX_JPEG_SCANS} scans")
    reader = _READERS[data[:1]]
    image = _guarded(lambda: reader(io.BytesIO(data)), max_pixels)
    _require_pixels(image.width, image.height, max_pixels, len(data))
    return image


def _with_end_marker(data: bytes, max_pixels: int) -> bytes | None:
    """The JPEG ``data`` with an end marker, if that is all it lacks, but for zeros behind it; None otherwise.

    Decoders cannot tell: they fill in what is missing. But a decoder that has all it needs does not care how the data go on,
    and one that lacks even a bit does. So the data are whole if the picture is the same however they go on,
    and nothing else follows them if that is not so without their last bytes.
    """
    body = data.rstrip(b"\xff")  # half a marker
    structure = read_structure(body, _MAX_JPEG_SCANS)
    if structure.has_end or structure.scans > _MAX_JPEG_SCANS or not structure.all_is_sent:
        return None
    unpadded = data.rstrip(b"\x00")
    for whole in dict.fromkeys((body, unpadded + b"\x00" if unpadded.endswith(b"\xff") else unpadded)):
        # First at an eighth of the size, which rules out nearly every cut file at little cost.
        alike = all(_goes_on_alike(whole, max_pixels, eighth) for eighth in (True, False))
        if alike and not _goes_on_alike(whole[:-4].rstrip(b"\xff"), max_pixels, False):
            return whole + _END_MARKER
    return None


def _goes_on_alike(body: bytes, max_pixels: int, eighth: bool) -> bool:
    """Whether a JPEG's last rows are the same whatever follows ``body``, within a restart interval or as the next one."""
    restarts = re.findall(rb"\xff([\xd0-\xd7])", body[body.rfind(b"\xff\xda") :])
    restart = bytes([0xFF, 0xD0 + (restarts[-1][0] + 1) % 8 if restarts else 0xD0])
    first: bytes | None = None
    for between in (b"", restart):
        for bits in _CONTINUATIONS:
            rows = _last_rows(body + between + bits + _END_MARKER, max_pixels, eighth)
            if rows is None or (first is not None and rows != first):
                return False
            first = rows
    return True


def _last_rows(data: bytes, max_pixels: int, eighth: bool) -> bytes | None:
    try:
        image = _open(data, max_pixels)
        if eighth:
            image.draft("YCbCr", (max(1, image.width // 8), max(1, image.height // 8)))
        _guarded(image.load, max_pixels)
    except UndecodableImage:
        return None
    return image.crop((0, max(0, image.height - _LAST_ROWS), image.width, image.height)).tobytes()


def has_image_signature(data: bytes) -> bool:
    """Whether ``data`` begins like one of the accepted formats; 12 bytes are enough to tell."""
    is_webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return is_webp or data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a"))


def _require_pixels(width: int, height: int, max_pixels: int, length: int) -> None:
    if width < 1 or height < 1:
        raise UndecodableImage("undecodable", f"the header says {width}x{height} pixels")
    if width * height > max_pixels:
        raise UndecodableImage("too_many_pixels", f"{width}x{height} pixels are more than the cap of {max_pixels}")
    if width * height > max(_FREE_PIXELS, length * _MOST_PIXELS_PER_BYTE):
        raise UndecodableImage("undecodable", f"{width}x{height} pixels in {length} bytes are no photograph")


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


def _guarded(step: Callable[[], T], max_pixels: int) -> T:
    """What ``step`` returns; whatever Pillow raises on a broken file comes out as UndecodableImage."""
    try:
        return step()
    except UndecodableImage:
        raise
    except Image.DecompressionBombError:  # of a GIF's frame or a WebP's canvas, of which Pillow keeps its own count
        most = min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))
        raise UndecodableImage("too_many_pixels", f"more pixels than the cap of {most}") from None
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
