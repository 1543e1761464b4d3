"""Pictures of every kind to upright RGB, and files that are no pictures."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from examples import examples
from facecaption_ml.decoding import (
    UndecodableImage,
    as_rgb,
    decode_image,
    encode_jpeg,
    has_image_signature,
    image_size,
    verify_image,
)

LEFT_RED = np.zeros((24, 40, 3), dtype=np.uint8)  # red left half, blue right half, green lower right corner
LEFT_RED[:, :20, 0] = 255
LEFT_RED[:, 20:, 2] = 255
LEFT_RED[16:, 32:] = (0, 255, 0)
FORMATS = ["JPEG", "PNG", "WEBP", "GIF"]


def encoded(image: Image.Image, format_name: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def far(found: np.ndarray, expected: np.ndarray) -> float:
    """Mean absolute difference in grey levels."""
    assert found.shape == expected.shape
    assert found.dtype == np.uint8
    return float(np.abs(found.astype(int) - expected.astype(int)).mean())


@pytest.mark.parametrize("format_name", FORMATS)
def test_formats(format_name: str) -> None:
    data = encoded(Image.fromarray(LEFT_RED), format_name)
    assert far(decode_image(data), LEFT_RED) < 8
    assert verify_image(data) == image_size(data) == (40, 24)
    assert has_image_signature(data[:12])


@pytest.mark.parametrize("format_name", ["BMP", "TIFF", "PPM", "ICO"])
def test_other_formats_are_not_tried(format_name: str) -> None:
    with pytest.raises(UndecodableImage) as caught:
        decode_image(encoded(Image.fromarray(LEFT_RED), format_name))
    assert caught.value.reason == "not_an_image"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation(orientation: int, format_name: str) -> None:
    # What EXIF 2.3 says of rows and columns, as array operations from the upright picture to the stored one.
    stored = {
        1: LEFT_RED,
        2: LEFT_RED[:, ::-1],
        3: LEFT_RED[::-1, ::-1],
        4: LEFT_RED[::-1],
        5: LEFT_RED.swapaxes(0, 1),
        6: np.rot90(LEFT_RED, 1),
        7: LEFT_RED[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(LEFT_RED, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), format_name, exif=exif)
    assert far(decode_image(data), LEFT_RED) < 12
    assert verify_image(data) == (40, 24)


def test_nonsense_exif_is_ignored() -> None:
    data = encoded(Image.fromarray(LEFT_RED), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 40)
    assert far(decode_image(data), LEFT_RED) < 8
    exif = Image.Exif()
    exif[0x0112] = 99
    assert verify_image(encoded(Image.fromarray(LEFT_RED), "JPEG", exif=exif)) == (40, 24)


def test_alpha_is_laid_on_white() -> None:
    alpha = np.full((24, 40), 255, dtype=np.uint8)
    alpha[:, :10] = 0
    alpha[:, 10:20] = 128
    found = decode_image(encoded(Image.fromarray(np.dstack([LEFT_RED, alpha]))))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[0, 15].tolist() == pytest.approx([255, 127, 127], abs=1)
    assert found[0, 25].tolist() == [0, 0, 255]


def test_palette_with_transparency() -> None:
    palette = Image.fromarray(LEFT_RED).quantize(8)
    index = palette.getpixel((0, 0))
    for format_name in ("PNG", "GIF"):
        found = decode_image(encoded(palette, format_name, transparency=index))
        assert found[0, 0].tolist() == [255, 255, 255]
        assert found[0, 25].tolist() == [0, 0, 255]
    assert far(decode_image(encoded(palette)), LEFT_RED) < 1


@pytest.mark.parametrize("mode", ["L", "1", "LA", "P", "RGBA"])
def test_modes(mode: str) -> None:
    image = Image.fromarray(LEFT_RED).convert(mode)
    expected = np.asarray(image.convert("RGB"))
    assert far(decode_image(encoded(image)), expected) < 1


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.linspace(0, 65_535, 256 * 4, dtype=np.uint16).reshape(4, 256)
    found = decode_image(encoded(Image.fromarray(values)))
    assert np.abs(found.astype(float) - values[..., None] / 257).max() <= 0.5
    assert found.min() == 0
    assert found.max() == 255


def test_cmyk_jpeg() -> None:
    cmyk = Image.fromarray(LEFT_RED).convert("CMYK")
    data = encoded(cmyk, "JPEG", quality=95)
    assert b"Adobe" in data  # Pillow stores CMYK inverted, as Adobe does
    assert far(decode_image(data), LEFT_RED) < 12


def test_first_frame_of_an_animation() -> None:
    frames = [Image.fromarray(np.full((9, 7, 3), value, dtype=np.uint8)) for value in (10, 200)]
    for format_name in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], format_name, save_all=True, append_images=frames[1:], lossless=True)
        assert far(decode_image(data), np.asarray(frames[0])) < 2


@pytest.mark.parametrize("format_name", FORMATS)
@examples(20)
@given(data=st.data())
def test_a_cut_file_is_undecodable(format_name: str, data: st.DataObject) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), format_name)
    cut = whole[: data.draw(st.integers(0, len(whole) - len(whole) // 10))]
    for check in (decode_image, verify_image):
        with pytest.raises(UndecodableImage) as caught:
            check(cut)
        assert caught.value.reason in ("undecodable", "not_an_image")


@examples(200)
@given(
    format_name=st.sampled_from(FORMATS),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=20),
)
def test_damaged_files_raise_nothing_else(format_name: str, changes: list[tuple[float, int]]) -> None:
    damaged = bytearray(encoded(Image.fromarray(LEFT_RED), format_name))
    for place, value in changes:
        damaged[int(place * (len(damaged) - 1))] = value
    for check in (decode_image, verify_image, image_size):
        failure = None
        try:
            check(bytes(damaged), 1_000_000)
        except UndecodableImage as error:
            failure = error
        if failure is not None:
            assert failure.reason in ("undecodable", "not_an_image", "too_many_pixels")
            assert "\n" not in str(failure)


@examples(100)
@given(st.binary(max_size=200))
def test_arbitrary_bytes(data: bytes) -> None:
    with pytest.raises(UndecodableImage):
        decode_image(data)


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def with_size(data: bytes, format_name: str, width: int, height: int) -> bytes:
    """The file with another size in its header."""
    if format_name == "PNG":
        return png_header(width, height) + data[33:]
    if format_name == "GIF":
        return data[:6] + struct.pack("<HH", width, height) + data[10:]
    if format_name == "WEBP":
        canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
        extended = b"VP8X" + struct.pack("<I", 10) + bytes(4) + canvas
        return b"RIFF" + struct.pack("<I", len(data) + 10) + b"WEBP" + extended + data[12:]
    start = data.index(b"\xff\xc0") + 5
    return data[:start] + struct.pack(">HH", height, width) + data[start + 4 :]


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize(("width", "height"), [(12_000, 12_000), (16_000, 16_000)])
def test_pixel_cap(format_name: str, width: int, height: int) -> None:
    bomb = with_size(encoded(Image.fromarray(LEFT_RED), format_name), format_name, width, height)
    for check in (decode_image, verify_image, image_size):
        with pytest.raises(UndecodableImage) as caught:
            check(bomb, 1_000_000)
        assert caught.value.reason == "too_many_pixels"


UNDER_A_MEMORY_LIMIT = """
import re, resource, sys
from pathlib import Path
from facecaption_ml.decoding import UndecodableImage, decode_image, verify_image
bombs = [Path(name).read_bytes() for name in sys.argv[1:]]
held = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1))
resource.setrlimit(resource.RLIMIT_AS, (held + 100_000_000,) * 2)
for bomb in bombs:
    for check in (decode_image, verify_image):
        try:
            check(bomb)
        except UndecodableImage as error:
            print(error.reason)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and RLIMIT_AS")
def test_pixel_cap_comes_before_allocation(tmp_path: Path) -> None:
    """12,000 x 12,000 pixels are 432 MB as RGB; the process may take 100 MB more than it has."""
    for name in FORMATS:
        bomb = with_size(encoded(Image.fromarray(LEFT_RED), name), name, 12_000, 12_000)
        (tmp_path / name).write_bytes(bomb)
    command = [sys.executable, "-c", UNDER_A_MEMORY_LIMIT, *(str(tmp_path / name) for name in FORMATS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["too_many_pixels"] * 8, done.stderr[-500:]


def test_exactly_the_cap_is_accepted() -> None:
    data = encoded(Image.fromarray(LEFT_RED))
    assert decode_image(data, 40 * 24).shape == (24, 40, 3)
    with pytest.raises(UndecodableImage):
        decode_image(data, 40 * 24 - 1)


def test_jpeg_of_thousands_of_scans_is_refused() -> None:
    data = encoded(Image.fromarray(LEFT_RED), "JPEG", progressive=True)
    assert verify_image(data) == (40, 24)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(UndecodableImage, match="scans"):
        verify_image(data[:-2] + last_scan * 3000 + data[-2:])


def test_encode_and_as_rgb() -> None:
    data = encode_jpeg(LEFT_RED)
    assert far(as_rgb(data), LEFT_RED) < 8
    assert as_rgb(LEFT_RED) is LEFT_RED
    assert len(encode_jpeg(LEFT_RED, quality=30)) < len(data)
    assert decode_image(encode_jpeg(LEFT_RED[:, ::2])).shape == (24, 20, 3)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3), (1, 4, 4, 3)])
def test_other_arrays_are_named(shape: tuple[int, ...]) -> None:
    for function in (as_rgb, encode_jpeg):
        with pytest.raises(ValueError, match=r"RGB uint8 \[H, W, 3\]"):
            function(np.zeros(shape, dtype=np.uint8))
    with pytest.raises(ValueError, match="float32"):
        as_rgb(np.zeros((4, 4, 3), dtype=np.float32))
