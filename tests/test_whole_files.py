"""Which files are whole pictures: without an end marker, with something behind them, and of absurd sizes."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from examples import examples
from facecaption_ml.decoding import UndecodableImage, decode_image, verify_image
from facecaption_ml.sample.attribute_sampling import sample_labels
from facecaption_ml.sample.portraits import draw_portrait

FORMS = [
    {"quality": 90},
    {"quality": 30, "subsampling": 2},
    {"quality": 100, "subsampling": 0},
    {"quality": 85, "progressive": True},
    {"quality": 60, "progressive": True, "restart_marker_blocks": 5},
]


def encoded(image: Image.Image, format_name: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def portrait() -> Image.Image:
    return Image.fromarray(draw_portrait(sample_labels(5), 5, 150).image).crop((0, 0, 147, 101))


def seen(data: bytes) -> tuple[int, int] | str:
    """The size, if check and decoder agree that it is a picture; the reason, if they agree that it is none."""
    results: list[tuple[int, int] | str] = []
    for function in (verify_image, lambda d: decode_image(d).shape[1::-1]):
        try:
            results.append(function(data))
        except UndecodableImage as error:
            results.append(error.reason)
    assert results[0] == results[1]
    return results[0]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_lacks_its_end_marker_alone_is_whole(portrait: Image.Image, form: dict, mode: str) -> None:
    planes = [*portrait.split(), portrait.convert("L")]  # none of them empty
    whole = encoded(Image.merge("CMYK", planes) if mode == "CMYK" else portrait.convert(mode), **form)
    picture = decode_image(whole)
    for ending in (b"", b"\xff", bytes(2), bytes(700)):
        data = whole[:-2] + ending
        assert verify_image(data) == (147, 101)
        assert np.array_equal(decode_image(data), picture)


@pytest.mark.parametrize("form", FORMS)
@examples(10)
@given(data=st.data())
def test_a_jpeg_that_lacks_data_is_not(portrait: Image.Image, form: dict, data: st.DataObject) -> None:
    whole = encoded(portrait, **form)
    cut = whole[: -2 - data.draw(st.integers(8, len(whole) - 2))]
    ending = data.draw(st.sampled_from([b"", b"\xff"]))
    assert seen(cut + ending) in ("undecodable", "not_an_image")
    if form.get("progressive"):  # of others Pillow takes zeros for data
        assert seen(cut + bytes(5_000)) in ("undecodable", "not_an_image")


@pytest.mark.parametrize("last_scan_is", ["cut off", "half there"])
def test_a_progressive_jpeg_without_its_last_scan_is_not_whole(portrait: Image.Image, last_scan_is: str) -> None:
    whole = encoded(portrait, quality=90, progressive=True)
    last = whole.rindex(b"\xff\xda")
    assert seen(whole[:last] if last_scan_is == "cut off" else whole[: (last + len(whole)) // 2]) == "undecodable"


def test_what_follows_a_picture_does_not_count(portrait: Image.Image) -> None:
    """A film as phones append it, another picture, previews: whatever it is, however many scan markers it has."""
    for form in FORMS:
        whole = encoded(portrait, **form)
        for more in (
            b"\0\0\0\x18ftypmp42" + b"\xff\xda\x00\x08" * 5_000,
            whole * 20,
            b"\xff\xd9" * 300,
            b"\xff\xd8\xff\xda" * 300,
        ):
            assert seen(whole + more) == (147, 101)
            assert np.array_equal(decode_image(whole + more), decode_image(whole))


def test_scan_markers_in_metadata_do_not_count(portrait: Image.Image) -> None:
    whole = encoded(portrait, comment=b"\xff\xda" * 400)
    assert seen(whole) == (147, 101)


@pytest.mark.parametrize("end", [b"\xff\xd9", b""])
def test_scans_of_the_picture_itself_count(portrait: Image.Image, end: bytes) -> None:
    whole = encoded(portrait, progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    assert seen(whole[:-2] + last * 300 + end) == "undecodable"


def test_a_long_run_of_filling_bytes_is_followed_in_no_time(portrait: Image.Image) -> None:
    whole = encoded(portrait)
    assert seen(whole[:-2] + b"\xff" * 500_000) == (147, 101)
    assert seen(whole[:2] + b"\xff" * 500_000 + whole[2:] + b"\xff\xda" * 200) == (147, 101)


@pytest.mark.parametrize("format_name", ["WEBP", "PNG", "GIF"])
def test_a_few_bytes_are_no_large_picture(format_name: str) -> None:
    """100 megapixels in a few bytes are refused before they are allocated."""
    size = (9_999, 9_999)
    if format_name == "WEBP":
        bomb = encoded(Image.new("RGB", (64, 64)), "WEBP", lossless=True)
        bits = int.from_bytes(bomb[21:25], "little") & ~0xFFFFFFF | (size[0] - 1) | (size[1] - 1) << 14
        bomb = bomb[:21] + bits.to_bytes(4, "little") + bomb[25:]
    elif format_name == "PNG":
        small = encoded(Image.new("RGB", (64, 64)), "PNG")
        header = b"IHDR" + size[0].to_bytes(4, "big") + size[1].to_bytes(4, "big") + small[24:29]
        bomb = small[:12] + header + zlib.crc32(header).to_bytes(4, "big") + small[33:]
    else:
        small = encoded(Image.new("P", (64, 64)), "GIF")
        bomb = small[:6] + size[0].to_bytes(2, "little") + size[1].to_bytes(2, "little") + small[10:]
    tracemalloc.start()
    assert seen(bomb) == "undecodable"
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    with pytest.raises(UndecodableImage, match=r"9999x9999 pixels in \d+ bytes"):
        verify_image(bomb)


def test_flat_pictures_of_ordinary_sizes_pass() -> None:
    flat = Image.new("RGB", (3_000, 2_000), "grey")
    assert verify_image(encoded(flat, "WEBP", lossless=True)) == verify_image(encoded(flat, "PNG")) == (3_000, 2_000)


@pytest.mark.parametrize(("width", "height"), [(20_000, 15_000), (60_000, 60_000)])
@pytest.mark.parametrize("cap", [100_000_000, 250_000_000])
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "GIF"])
def test_the_cap_that_was_set_is_named_whatever_the_size(format_name: str, width: int, height: int, cap: int) -> None:
    data = encoded(Image.new("RGB", (40, 24)), format_name)
    start = {"PNG": 16, "GIF": 6, "JPEG": data.index(b"\xff\xc0") + 5 if format_name == "JPEG" else 0}[format_name]
    sides = {
        "PNG": struct.pack(">II", width, height),
        "GIF": struct.pack("<HH", width, height),
        "JPEG": struct.pack(">HH", height, width),
    }
    data = data[:start] + sides[format_name] + data[start + len(sides[format_name]) :]
    if format_name == "PNG":
        data = data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]
    with pytest.raises(UndecodableImage, match=f"{width}x{height} pixels are more than the cap of {cap}") as caught:
        verify_image(data, cap)
    assert caught.value.reason == "too_many_pixels"
