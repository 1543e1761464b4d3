"""Views of face crops: right in shape and colour, fixed by the generator, decoded small only where that loses nothing."""

from __future__ import annotations

import io
from functools import cache

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from examples import examples
from facecaption_ml.decoding import UndecodableImage, decode_image, encode_jpeg
from facecaption_ml.flip.pairs import augmentation
from facecaption_ml.flip.pairs.augmentation import decode_for, decoded_side, plain_view, training_view
from facecaption_ml.sample.labelled import labelled_portraits


@cache
def faces() -> np.ndarray:
    return labelled_portraits(8, seed=11, size=285)[0]


def smooth_picture(height: int, width: int) -> np.ndarray:
    """Colours that change slowly, so that scaled pictures can be compared."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows / height * 5 + columns / width * 3 + phase) for phase in (0.0, 1.0, 2.0)]
    return np.asarray(127 + 100 * np.stack(waves, axis=2), np.uint8)


def hue_degrees(image: np.ndarray) -> float:
    """The mean direction of a picture's hues, those of pale pixels counting less."""
    hsv = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    angles = np.deg2rad(hsv[:, :, 0])
    return float(np.rad2deg(np.angle(np.mean(hsv[:, :, 1] * np.exp(1j * angles)))))


def apart(a: float, b: float) -> float:
    return abs((a - b + 180) % 360 - 180)


# -- decoding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((64, 64), 32, (32, 32)),
        ((63, 64), 32, (63, 64)),  # one side is too small for half
        ((64, 200), 32, (32, 100)),
        ((127, 127), 32, (64, 64)),
        ((128, 160), 32, (32, 40)),
        ((256, 256), 32, (32, 32)),
        ((600, 600), 32, (75, 75)),  # an eighth is the least
        ((30, 30), 32, (30, 30)),
    ],
)
def test_a_jpeg_is_decoded_smaller_only_where_enough_is_left(
    size: tuple[int, int], side: int, expected: tuple[int, int]
) -> None:
    image = smooth_picture(*size)
    found = decode_for(encode_jpeg(image), side)
    assert found.dtype == np.uint8
    assert found.shape == (*expected, 3)
    full = decode_image(encode_jpeg(image))
    off = np.abs(found.astype(int) - cv2.resize(full, expected[::-1], interpolation=cv2.INTER_AREA))
    assert off.max() <= 10  # at the edge of a picture of an odd size
    assert off.mean() < 2.5


def test_a_face_decoded_smaller_looks_the_same() -> None:
    for face in faces():
        data = encode_jpeg(cv2.resize(face, (512, 512), interpolation=cv2.INTER_CUBIC))
        quick, slow = plain_view(decode_for(data, 224), 224), plain_view(decode_image(data), 224)
        assert np.abs(quick.astype(int) - slow).mean() < 2.0


def test_a_training_view_is_never_cut_from_fewer_pixels_than_it_gets() -> None:
    assert decoded_side(224) == 224  # moved by a few pixels, not enlarged
    side = decoded_side(224, 0.5)
    assert side**2 / 2 >= 224**2
    data = encode_jpeg(smooth_picture(600, 600))
    assert decode_for(data, side).shape == (600, 600, 3)  # half of it would do for a plain view only
    assert decode_for(data, 224).shape == (300, 300, 3)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("side", [50, 200])
def test_other_pictures_are_those_of_the_plain_decoder(side: int) -> None:
    image = Image.fromarray(smooth_picture(120, 100))
    turned = Image.Exif()
    turned[0x0112] = 6
    for data in (
        saved(image, "PNG"),
        saved(image.convert("P"), "GIF"),
        saved(image, "WEBP", lossless=True),
        saved(image, "JPEG") + b"after the end",
    ):
        np.testing.assert_array_equal(decode_for(data, side), decode_image(data))
    for data in (
        saved(image, "JPEG", quality=95),
        saved(image, "JPEG", quality=95, progressive=True),
        saved(image, "JPEG", quality=95, exif=turned),
        saved(image.convert("L"), "JPEG", quality=95),
        saved(image, "JPEG", quality=95) + bytes(5),
    ):
        found, full = decode_for(data, side), decode_image(data)
        assert found.shape == (full.shape if side == 200 else (full.shape[0] // 2, full.shape[1] // 2, 3))
        reference = cv2.resize(full, found.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(found.astype(int) - reference).max() <= 8


@pytest.mark.parametrize("side", [32, 285])
def test_what_is_no_whole_picture_is_refused(side: int) -> None:
    whole = encode_jpeg(faces()[0])
    for data in (b"", b"no picture", whole[:3], whole[:200], whole[: len(whole) // 2], whole[:-100]):
        with pytest.raises(UndecodableImage):
            decode_for(data, side)
    png = saved(Image.fromarray(faces()[0]), "PNG")
    with pytest.raises(UndecodableImage):
        decode_for(png[: len(png) // 2], side)


@given(st.binary(max_size=200), st.booleans())
@examples(150)
def test_whatever_the_bytes_only_one_error_comes(noise: bytes, ends_well: bool) -> None:
    data = encode_jpeg(np.zeros((40, 40, 3), np.uint8))[:300] + noise + (b"\xff\xd9" if ends_well else b"")
    try:
        found = decode_for(data, 16)
    except UndecodableImage:
        return
    assert found.dtype == np.uint8
    assert found.ndim == 3


# -- views -------------------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 80),
    st.integers(1, 80),
    st.integers(1, 64),
    st.integers(0, 1000),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0.5, 0.9, 1.0]),
)
@examples(150)
def test_views_have_the_size_asked_for(
    height: int, width: int, side: int, seed: int, share: float, crop_area: float
) -> None:
    image = smooth_picture(height, width)
    kept = image.copy()
    for view in (plain_view(image, side), training_view(image, side, np.random.default_rng(seed), share, crop_area)):
        assert view.shape == (side, side, 3)
        assert view.dtype == np.uint8
        assert view.flags.c_contiguous
    np.testing.assert_array_equal(image, kept)


def test_a_view_is_a_function_of_its_generator() -> None:
    face = faces()[0]
    views = [training_view(face, 96, np.random.default_rng(seed)) for seed in range(20)]
    again = [training_view(face, 96, np.random.default_rng(seed)) for seed in range(20)]
    assert all(np.array_equal(one, other) for one, other in zip(views, again, strict=True))
    assert len({view.tobytes() for view in views}) == 20


def test_a_plain_view_shows_the_whole_picture() -> None:
    image = np.zeros((100, 60, 3), np.uint8)
    image[:50, :30], image[:50, 30:], image[50:, :30] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    view = plain_view(image, 40)
    np.testing.assert_array_equal(view[10, 10], (255, 0, 0))
    np.testing.assert_array_equal(view[10, 30], (0, 255, 0))
    np.testing.assert_array_equal(view[30, 10], (0, 0, 255))
    np.testing.assert_array_equal(view[30, 30], (0, 0, 0))
    small = smooth_picture(40, 40)
    assert plain_view(small, 40) is small


@pytest.mark.parametrize("size", [45, 60, 85, 200])
def test_shrinking_leaves_no_fine_line_out(size: int) -> None:
    image = np.zeros((size, size, 3), np.uint8)
    image[:, ::5] = 255
    assert abs(plain_view(image, 40).mean() - 51) < 8
    assert abs(plain_view(image.transpose(1, 0, 2), 40).mean() - 51) < 8


def test_without_crops_a_view_is_the_whole_picture_moved_by_a_few_pixels_and_perhaps_its_mirror_image() -> None:
    """Of a picture whose colours tell the place: nothing but the outermost pixels can be lost."""
    rows, columns = np.mgrid[0:100, 0:100].astype(np.uint8)
    image = np.stack([columns, rows, np.zeros_like(rows)], axis=2)
    moves, mirrored = [], 0
    for seed in range(300):
        view = training_view(image, 100, np.random.default_rng(seed), 0.0).astype(int)
        if view[50, 10, 0] > view[50, 90, 0]:
            view, mirrored = view[:, ::-1], mirrored + 1
        right, down = 50 - view[50, 50, 0], 50 - view[50, 50, 1]
        inner = np.s_[10:90, 10:90]
        np.testing.assert_array_equal(view[inner][..., 0], columns[inner].astype(int) - right)
        np.testing.assert_array_equal(view[inner][..., 1], rows[inner].astype(int) - down)
        moves += [right, down]
    assert {-4, 0, 4} < set(moves)
    assert max(map(abs, moves)) <= 5  # a mirror image of an even width has no middle
    assert 100 < mirrored < 200


def test_without_randaugment_a_view_is_a_crop_of_at_least_half_and_perhaps_its_mirror_image() -> None:
    """Of a picture whose colours tell the place: red the column, green the row."""
    rows, columns = np.mgrid[0:240, 0:240].astype(np.uint8)
    image = np.stack([columns, rows, np.zeros_like(rows)], axis=2)
    areas, mirrored = [], []
    for seed in range(300):
        view = training_view(image, 60, np.random.default_rng(seed), 0.0, crop_area=0.5).astype(float)
        across, down = view[:, -1, 0].mean() - view[:, 0, 0].mean(), view[-1, :, 1].mean() - view[0, :, 1].mean()
        wide, tall = abs(across) * 60 / 59, down * 60 / 59
        assert 3 / 4 * 0.95 < wide / tall < 4 / 3 * 1.05
        areas.append(wide * tall / 240**2)
        mirrored.append(across < 0)
    assert 0.48 < min(areas) < 0.6
    assert 0.85 < max(areas) < 1.02
    assert 100 < sum(mirrored) < 200


def test_randaugment_is_applied_to_the_share_asked_for() -> None:
    face = faces()[1]
    for share, low, high in ((0.0, 0, 0), (0.3, 30, 85), (1.0, 180, 200)):
        changed = 0
        for seed in range(200):
            crop = training_view(face, 64, np.random.default_rng(seed), 0.0)
            changed += not np.array_equal(training_view(face, 64, np.random.default_rng(seed), share), crop)
        assert low <= changed <= high


HUES = [
    (200, 60, 50),
    (60, 190, 70),
    (50, 80, 200),
    (210, 180, 70),
    (150, 110, 90),
]  # as hair, skin, eyes, clothes have


@pytest.mark.parametrize("operation", augmentation._LIST, ids=lambda operation: operation.__name__)
@pytest.mark.parametrize("sign", [-1, 1])
def test_no_operation_changes_a_hue(operation, sign: int) -> None:
    draw = np.random.default_rng(0)
    for rgb in HUES:
        light = cv2.GaussianBlur(draw.uniform(0.4, 1.1, (64, 64, 1)), (0, 0), 6)
        image = (np.array(rgb) * np.reshape(light, (64, 64, 1)) / light.max()).astype(np.uint8)
        for strength in (0.2, 0.6, 1.0):
            found = operation(image, strength, sign)
            assert found.shape == image.shape
            assert found.dtype == np.uint8
            # brightness may drive one channel to its end
            assert apart(hue_degrees(found), hue_degrees(image)) < (10 if operation.__name__ == "_brightness" else 4)


def test_the_hue_of_a_training_view_is_that_of_the_picture() -> None:
    for rgb in HUES:
        image = np.empty((80, 80, 3), np.uint8)
        image[:] = rgb
        image[::2] = np.array(rgb) * 0.8
        for seed in range(40):
            assert apart(hue_degrees(training_view(image, 48, np.random.default_rng(seed))), hue_degrees(image)) < 6


def test_operations_do_what_their_names_say() -> None:
    face = plain_view(faces()[2], 96)
    dull = (face * 0.4 + 60).astype(np.uint8)
    operations = {operation.__name__: operation for operation in augmentation._LIST}
    assert operations["_brightness"](face, 1.0, 1).mean() > 1.2 * face.mean()
    assert operations["_brightness"](face, 1.0, -1).mean() < 0.7 * face.mean()
    stretched = operations["_autocontrast"](dull, 1.0, 1)
    assert (int(stretched.min()), int(stretched.max())) == (0, 255)
    assert operations["_equalize"](dull, 1.0, 1).std() > 1.2 * dull.std()
    edges = cv2.Laplacian(face, cv2.CV_32F).std()
    assert cv2.Laplacian(operations["_sharpness"](face, 1.0, 1), cv2.CV_32F).std() > 1.2 * edges
    assert cv2.Laplacian(operations["_sharpness"](face, 1.0, -1), cv2.CV_32F).std() < 0.8 * edges
    shift = round(0.1 * 96)
    np.testing.assert_array_equal(operations["_translate_x"](face, 1.0, 1)[:, shift:], face[:, :-shift])
    np.testing.assert_array_equal(operations["_translate_x"](face, 1.0, -1)[:, :-shift], face[:, shift:])
    np.testing.assert_array_equal(operations["_translate_y"](face, 1.0, 1)[shift:], face[:-shift])
    np.testing.assert_array_equal(operations["_translate_y"](face, 1.0, -1)[:-shift], face[shift:])
    mean = face.mean((0, 1))
    assert np.abs(operations["_translate_y"](face, 1.0, 1)[:shift] - mean).max() < 1
    for name in ("_shear_x", "_shear_y", "_rotate"):
        for sign in (-1, 1):
            moved = operations[name](face, 1.0, sign)
            assert np.abs(moved[46:50, 46:50].astype(int) - face[46:50, 46:50]).mean() < 12, "the centre stays"
            assert np.abs(moved.astype(int) - face).mean() > 5
    for one, other in (("_shear_x", (1, 0)), ("_shear_y", (0, 1))):
        # along its axis only: the central row or column does not move
        axis = operations[one](face, 1.0, 1)
        kept = (slice(47, 49), slice(None)) if other == (1, 0) else (slice(None), slice(47, 49))
        assert np.abs(axis[kept].astype(int) - face[kept]).mean() < 6


def test_a_view_of_one_colour_or_one_pixel_is_no_trouble() -> None:
    for image in (np.full((30, 30, 3), 7, np.uint8), np.full((1, 1, 3), 200, np.uint8)):
        for seed in range(50):
            view = training_view(image, 16, np.random.default_rng(seed))
            assert np.ptp(view.reshape(-1, 3), axis=0).max() <= 1
