"""Upright crops: level eyes, no scaling, borders repeated, and the roll's sign."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facecaption_ml.faces import Face, FaceDetector, align_and_crop, aligned_points, roll_degrees
from facecaption_ml.faces.alignment import has_eye_line

RED, BLUE = (255, 0, 0), (0, 0, 255)


def turned(points: np.ndarray, degrees: float, centre: np.ndarray) -> np.ndarray:
    """Points turned clockwise as seen on a screen (y downwards)."""
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return (points - centre) @ turn.T + centre


def face_at(centre: tuple[float, float], size: tuple[float, float], roll: float) -> Face:
    """An upright face of ``size`` (width, height) leaning by ``roll``; its box is the upright one."""
    width, height = size
    middle = np.array(centre)
    upright = middle + np.array([[-0.2, -0.1], [0.2, -0.1], [0, 0.1], [-0.15, 0.25], [0.15, 0.25]]) * (width, height)
    box = (centre[0] - width / 2, centre[1] - height / 2, centre[0] + width / 2, centre[1] + height / 2)
    return Face(box, turned(upright, roll, middle).astype(np.float32), 0.99)


faces = st.builds(
    face_at,
    st.tuples(st.floats(-50, 350), st.floats(-50, 350)),
    st.tuples(st.floats(30, 200), st.floats(30, 200)),
    st.floats(-180, 180),
)


@given(face=faces, margin=st.floats(0, 1))
def test_eyes_are_level_in_the_crop(face: Face, margin: float) -> None:
    left, right = aligned_points(face, face.landmarks[:2], margin)
    assert abs(math.degrees(math.atan2(right[1] - left[1], right[0] - left[0]))) < 0.5
    # Native resolution: the eyes are as far apart as in the picture.
    assert np.hypot(*(right - left)) == pytest.approx(np.hypot(*(face.landmarks[1] - face.landmarks[0])), rel=1e-4)


@given(face=faces, degrees=st.floats(-179, 179))
def test_turning_the_picture_turns_the_roll(face: Face, degrees: float) -> None:
    centre = np.array([(face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2])
    leaning = Face(face.box, turned(face.landmarks, degrees, centre).astype(np.float32), face.score)
    change = (roll_degrees(leaning) - roll_degrees(face) - degrees) % 360
    assert min(change, 360 - change) < 0.01


def test_positive_roll_has_the_right_eye_lower() -> None:
    face = face_at((100, 100), (80, 80), 20)
    assert face.landmarks[1][1] > face.landmarks[0][1]
    assert roll_degrees(face) == pytest.approx(20, abs=1e-3)


@given(size=st.tuples(st.floats(20, 150), st.floats(20, 150)), margin=st.floats(0, 1), roll=st.floats(-44, 44))
def test_crop_is_the_box_with_its_margin(size: tuple[float, float], margin: float, roll: float) -> None:
    image = np.zeros((200, 200, 3), dtype=np.uint8)
    crop, taken_out = align_and_crop(image, face_at((100, 100), size, roll), margin)
    exact = np.array([size[1], size[0]]) * (1 + 2 * margin)
    assert np.all(np.abs(crop.shape[:2] - exact) <= 0.5 + 1e-4)  # boxes are float32: half a pixel may round either way
    assert taken_out == pytest.approx(roll, abs=0.01)


def test_a_level_face_is_cut_pixel_for_pixel() -> None:
    image = np.random.default_rng(1).integers(0, 256, (120, 150, 3), dtype=np.uint8)
    crop, roll = align_and_crop(image, face_at((70, 60), (40, 60), 0), margin=0.25)
    assert abs(roll) < 1e-4
    assert np.array_equal(crop, image[15:105, 40:100])


@pytest.mark.parametrize("roll", [-170, -120, -90, -60, -30, 15, 45, 80, 100, 135, 180])
def test_what_is_drawn_on_the_eyes_comes_out_level(roll: float) -> None:
    """Through the pixels: coloured discs on the eyes, found again in the crop."""
    face = face_at((150, 140), (120, 120), roll)
    image = np.full((300, 300, 3), 128, dtype=np.uint8)
    for (x, y), colour in zip(face.landmarks[:2], (RED, BLUE), strict=True):
        # Landmarks count pixel edges, OpenCV counts pixel centres; four bits of fraction.
        position = round((float(x) - 0.5) * 16), round((float(y) - 0.5) * 16)
        cv2.circle(image, position, 6 * 16, colour, -1, cv2.LINE_AA, shift=4)
    crop, _ = align_and_crop(image, face, 0.3)
    red, blue = (np.argwhere((crop.astype(int) == colour).all(axis=2)).mean(axis=0) for colour in (RED, BLUE))
    expected = aligned_points(face, face.landmarks[:2], 0.3)
    assert abs(math.degrees(math.atan2(blue[0] - red[0], blue[1] - red[1]))) < 1
    np.testing.assert_allclose([red[::-1], blue[::-1]], expected - 0.5, atol=0.5)


def test_a_face_on_its_side_swaps_the_boxs_sides() -> None:
    image = np.zeros((300, 300, 3), dtype=np.uint8)
    lying = Face((50, 100, 210, 200), face_at((130, 150), (100, 160), 90).landmarks, 0.99)
    crop, roll = align_and_crop(image, lying, margin=0)
    assert roll == pytest.approx(90, abs=1e-3)
    assert crop.shape == (160, 100, 3)


def test_pixels_outside_repeat_the_border() -> None:
    image = np.zeros((100, 100, 3), dtype=np.uint8)
    image[:, :50], image[:, 50:] = RED, BLUE
    crop, _ = align_and_crop(image, face_at((100, 50), (80, 80), 0), margin=0)
    assert crop.shape == (80, 80, 3)
    assert (crop == BLUE).all()
    crop, _ = align_and_crop(image, face_at((-300, 50), (80, 80), 30), margin=0)
    assert (crop == RED).all()


def test_only_the_needed_window_is_touched() -> None:
    """A crop of a picture is that of the window around it, however large the picture."""
    generator = np.random.default_rng(4)
    image = generator.integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    face = face_at((700, 500), (60, 80), 25)
    crop, _ = align_and_crop(image, face)
    part = image[400:600, 600:800]
    moved = Face((570 - 500, 360 - 300, 630 - 500, 440 - 300), face.landmarks - np.float32([600, 400]), face.score)
    expected, _ = align_and_crop(part, moved)
    assert np.abs(crop.astype(int) - expected).max() <= 1


def test_eyes_in_one_place_give_no_line() -> None:
    face = face_at((100, 100), (100, 100), 0)
    assert has_eye_line(face)
    landmarks = face.landmarks.copy()
    landmarks[1] = landmarks[0] + 2
    assert not has_eye_line(Face(face.box, landmarks, 0.99))
    landmarks[1] = np.nan
    assert not has_eye_line(Face(face.box, landmarks, 0.99))


@pytest.mark.parametrize("degrees", [-25.0, 15.0, 30.0])
def test_on_a_turned_photograph(degrees: float, photo_pixels: dict[str, np.ndarray], detector: FaceDetector) -> None:
    """Turning the photograph clockwise adds to the roll, and the crop still has level eyes."""
    photo = photo_pixels["obama.jpg"]
    (face,) = detector.detect([photo])[0]
    centre = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
    turn = cv2.getRotationMatrix2D(centre, -degrees, 1.0)  # OpenCV's angles are anticlockwise
    leaning = cv2.warpAffine(photo, turn, photo.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    found = detector.detect([leaning])[0][0]
    assert roll_degrees(found) - roll_degrees(face) == pytest.approx(
        degrees, abs=6
    )  # the landmarks are only that stable
    crop, _ = align_and_crop(leaning, found)
    (upright,) = [f for f in detector.detect([crop])[0] if f.score > 0.9]
    assert abs(roll_degrees(upright)) < 6
