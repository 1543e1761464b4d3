"""The detector against facexlib's own, and over every kind of picture it may meet."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from facecaption_ml.decoding import UndecodableImage, encode_jpeg
from facecaption_ml.faces import Face, FaceDetector, load_weights
from facecaption_ml.faces.network import facexlib_network


def at_working_size(image: np.ndarray, size: int = 640) -> np.ndarray:
    """The picture as the detector's documentation says it is reduced; written apart from it."""
    height, width = image.shape[:2]
    if max(height, width) <= size:
        return image
    scale = size / max(height, width)
    target = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, target, interpolation=cv2.INTER_AREA)


def as_rows(faces: list[Face]) -> np.ndarray:
    """facexlib's row layout: box, score, landmarks."""
    return np.array([[*f.box, f.score, *f.landmarks.ravel()] for f in faces]).reshape(-1, 15)


def facexlib_rows(model: torch.nn.Module, image: np.ndarray, min_score: float) -> np.ndarray:
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    torch.set_num_threads(1)  # its layers would wait for two threads at every step on a busy machine
    with torch.inference_mode():
        rows = model.detect_faces(bgr, conf_threshold=min_score)  # type: ignore[operator]
    torch.set_num_threads(2)
    rows = rows.reshape(-1, 15)
    return rows[np.lexsort((rows[:, 0], -rows[:, 4]))]


def assert_agree(ours: np.ndarray, theirs: np.ndarray, pixels: float = 1.0, score: float = 1e-3) -> None:
    """Every face of one has its face in the other: boxes and landmarks within ``pixels``, scores within ``score``."""
    assert len(ours) == len(theirs)
    if len(ours) == 0:
        return
    distance = np.abs(ours[:, None, :4] - theirs[None, :, :4]).max(axis=2)
    partner = distance.argmin(axis=1)
    assert sorted(partner) == list(range(len(ours)))
    assert distance.min(axis=1).max() <= pixels
    assert np.abs(ours[:, 5:] - theirs[partner, 5:]).max() <= pixels
    assert np.abs(ours[:, 4] - theirs[partner, 4]).max() <= score


@pytest.mark.slow
@pytest.mark.parametrize("source", ["bundled", "user"])
def test_agrees_with_facexlib_on_photographs(
    source: str, photo_pixels: dict[str, np.ndarray], user_weights: Path
) -> None:
    weights = load_weights("bundled" if source == "bundled" else user_weights)
    model = facexlib_network(weights, "mobile0.25")
    detector = FaceDetector.load("bundled" if source == "bundled" else user_weights)
    small = {name: at_working_size(photo) for name, photo in photo_pixels.items()}
    found = detector.detect(list(small.values()))
    assert sum(map(len, found)) > 90  # the crowd alone has more than eighty
    for (name, image), faces in zip(small.items(), found, strict=True):
        assert faces, name
        # Far closer than asked for, so that a loss of precision shows before it matters.
        assert_agree(as_rows(faces), facexlib_rows(model, image, 0.5), pixels=0.01, score=1e-4)


def test_agrees_with_facexlib_on_low_scores_of_any_size(blobs: list[np.ndarray]) -> None:
    model = facexlib_network(load_weights(), "mobile0.25")
    detector = FaceDetector.load(min_score=0.02)
    found = detector.detect(blobs)
    assert sum(map(len, found)) > 10
    for image, faces in zip(blobs, found, strict=True):
        assert_agree(as_rows(faces), facexlib_rows(model, image, 0.02), pixels=0.01, score=1e-4)


def test_coordinates_are_those_of_the_source(detector: FaceDetector, photo_pixels: dict[str, np.ndarray]) -> None:
    photo = photo_pixels["obama.jpg"]
    height, width = photo.shape[:2]
    small = at_working_size(photo)
    (face,), (reduced,) = detector.detect([photo, small])
    scale = np.array([width / small.shape[1], height / small.shape[0]])
    np.testing.assert_allclose(face.box, np.array(reduced.box) * np.tile(scale, 2), atol=1e-3)
    np.testing.assert_allclose(face.landmarks, reduced.landmarks * scale, atol=1e-3)
    (left_eye, right_eye, nose, left_mouth, right_mouth) = face.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert left_eye[1] < nose[1] < left_mouth[1]


@pytest.mark.slow
def test_same_result_whatever_is_beside_it_and_however_many_threads(
    detector: FaceDetector, photo_pixels: dict[str, np.ndarray], blobs: list[np.ndarray]
) -> None:
    pictures = [*photo_pixels.values(), *blobs]
    expected = [as_rows(faces) for faces in detector.detect(pictures)]
    backwards = [as_rows(faces) for faces in detector.detect(pictures[::-1])][::-1]
    torch.set_num_threads(1)
    alone = [as_rows(detector.detect([picture])[0]) for picture in pictures]
    torch.set_num_threads(2)
    larger_batches = [as_rows(faces) for faces in FaceDetector.load(batch_size=5).detect(pictures)]
    for a, b, c, d in zip(expected, backwards, alone, larger_batches, strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, c)
        assert_agree(d, a, pixels=1e-2, score=1e-4)


def test_higher_threshold_is_a_prefix(detector: FaceDetector, photo_pixels: dict[str, np.ndarray]) -> None:
    strict = FaceDetector.load(min_score=0.9)
    few = as_rows(strict.detect([photo_pixels["crowd.jpg"]])[0])
    many = as_rows(detector.detect([photo_pixels["crowd.jpg"]])[0])
    assert 0 < len(few) < len(many)
    np.testing.assert_allclose(few, many[: len(few)], atol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (20, 2000), (2000, 20), (3, 3), (641, 639)])
def test_odd_sizes(size: tuple[int, int], detector: FaceDetector) -> None:
    assert detector.detect([np.full((*size, 3), 128, dtype=np.uint8)]) == [[]]


def test_nothing_in_nothing_out(detector: FaceDetector) -> None:
    assert detector.detect([]) == []
    assert detector.detect([np.zeros((100, 100, 3), dtype=np.uint8)] * 3) == [[], [], []]


def test_reads_grey_bytes(detector: FaceDetector, photo_pixels: dict[str, np.ndarray]) -> None:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(photo_pixels["obama.jpg"]).convert("L").save(buffer, "PNG")
    (faces,) = detector.detect([buffer.getvalue()])
    assert len(faces) == 1
    assert faces[0].score > 0.98


def test_bytes_and_arrays_give_the_same(
    detector: FaceDetector, photo_files: dict[str, bytes], photo_pixels: dict
) -> None:
    from_bytes, from_arrays = detector.detect(list(photo_files.values())), detector.detect(list(photo_pixels.values()))
    for a, b in zip(from_bytes, from_arrays, strict=True):
        assert np.array_equal(as_rows(a), as_rows(b))


def test_unreadable_input_is_an_error(detector: FaceDetector) -> None:
    good = encode_jpeg(np.zeros((64, 64, 3), dtype=np.uint8))
    with pytest.raises(UndecodableImage):
        detector.detect([good, good[: len(good) // 2]])
    with pytest.raises(ValueError, match="RGB uint8"):
        detector.detect([np.zeros((64, 64), dtype=np.uint8)])


def test_enlarging_is_a_choice(photo_pixels: dict[str, np.ndarray]) -> None:
    tiny = cv2.resize(photo_pixels["obama.jpg"], (29, 36), interpolation=cv2.INTER_AREA)
    (plain,), (enlarged,) = FaceDetector.load().detect([tiny]), FaceDetector.load(enlarge=True).detect([tiny])
    assert len(plain) == 0
    assert len(enlarged) == 1
    x0, y0, x1, y1 = enlarged[0].box
    assert 0 < x0 < x1 < 29
    assert 0 < y0 < y1 < 36


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("working_size", 16),
        ("batch_size", -1),
        ("min_score", 0.0),
        ("min_score", 1.0),
        ("nms_iou", 0.0),
        ("precision", "int8"),
        ("network", "vgg"),
    ],
)
def test_bad_options_are_named(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"\n{option}\n"):
        FaceDetector.load(**{option: value})  # type: ignore[arg-type]


def test_leaves_the_process_as_it_was(photo_pixels: dict[str, np.ndarray]) -> None:
    """Neither the number of threads nor the random generator moves."""
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    FaceDetector.load().detect(list(photo_pixels.values()))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == 2
