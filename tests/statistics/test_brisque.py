"""BRISQUE against two other implementations, and on pictures made worse."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml.decoding import decode_image, encode_jpeg
from facecaption_ml.sample.attribute_sampling import sample_labels
from facecaption_ml.sample.portraits import draw_portrait
from facecaption_ml.statistics.brisque import Brisque, BrisqueModelError, fit_asymmetric

Rgb = np.ndarray


def portrait(seed: int, size: int = 256) -> Rgb:
    return draw_portrait(sample_labels(seed), seed, size).image


def blurred(picture: Rgb, sigma: float) -> Rgb:
    import cv2

    return cv2.GaussianBlur(picture, (0, 0), sigma)


def noisy(picture: Rgb, sd: float) -> Rgb:
    noise = np.random.default_rng(0).normal(0, sd, picture.shape)
    return np.clip(picture + noise, 0, 255).round().astype(np.uint8)


def compressed(picture: Rgb, quality: int) -> Rgb:
    return decode_image(encode_jpeg(picture, quality))


def pink_picture(seed: int, size: int = 192) -> Rgb:
    """Colour noise whose amplitude falls with the frequency, as in photographs."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.rfftfreq(size), indexing="ij"))
    spectrum = np.fft.rfft2(rng.normal(size=(3, size, size))) / np.maximum(frequency, 1 / size)
    planes = np.fft.irfft2(spectrum, s=(size, size))
    planes /= planes.std()
    return np.clip(128 + 45 * planes, 0, 255).round().astype(np.uint8).transpose(1, 2, 0)


def reference_pictures() -> dict[str, Rgb]:
    """The pictures of brisque_references.json."""
    pictures = {f"portrait {seed}": portrait(seed) for seed in range(4)}
    pictures |= {f"pink {seed}": pink_picture(seed) for seed in range(2)}
    pictures["portrait of odd size"] = portrait(5, 301)[:, :233].copy()
    degraded: dict[str, Rgb] = {}
    for name in ("portrait 0", "portrait 1", "pink 0"):
        picture = pictures[name]
        degraded |= {f"{name} blurred by {s}": blurred(picture, s) for s in (1, 3)}
        degraded |= {f"{name} with noise of {s}": noisy(picture, s) for s in (8, 30)}
        degraded |= {f"{name} as JPEG of quality {q}": compressed(picture, q) for q in (50, 10)}
    return pictures | degraded


@pytest.fixture(scope="module")
def brisque() -> Brisque:
    return Brisque.load()


@pytest.fixture(scope="module")
def references() -> dict[str, dict[str, Any]]:
    return json.loads((Path(__file__).parent / "brisque_references.json").read_text("utf-8"))["pictures"]


@pytest.fixture(scope="module")
def measured(brisque: Brisque) -> dict[str, tuple[float, np.ndarray]]:
    """Score and features of every reference picture."""
    return {
        name: (float(brisque.score([picture])[0, 0]), brisque.features(picture))
        for name, picture in reference_pictures().items()
    }


def rank_correlation(a: list[float], b: list[float]) -> float:
    return float(np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1])


def test_brisque_agrees_with_opencv(measured: dict[str, Any], references: dict[str, Any]) -> None:
    assert measured.keys() == references.keys()
    for name, (score, features) in measured.items():
        # In a coarse JPEG's flat blocks OpenCV's float32 variance rounds below zero: NaN pixels, which it counts.
        quality = int(name.rpartition("quality ")[2]) if "JPEG" in name else 100
        feature, score_gap = {10: (0.03, 9.0), 50: (3e-3, 1.2)}.get(quality, (1.1e-3, 0.02))
        np.testing.assert_allclose(features, references[name]["opencv_features"], rtol=0, atol=feature, err_msg=name)
        assert min(max(score, 0), 100) == pytest.approx(references[name]["opencv"], abs=score_gap), name
    ours = [score for score, _ in measured.values()]
    assert rank_correlation(ours, [references[name]["opencv"] for name in measured]) > 0.98


def test_brisque_ranks_pictures_as_the_brisque_package_does(
    measured: dict[str, Any], references: dict[str, Any]
) -> None:
    """Its filters see black around the picture and its halves are smoothed, so scores differ by some points."""
    ours = [score for score, _ in measured.values()]
    theirs = [references[name]["brisque"] for name in measured]
    assert rank_correlation(ours, theirs) > 0.95
    assert statistics.median(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 5


@pytest.mark.parametrize("photo", ["obama.jpg", "two_people.jpg", "partial_face.jpg"])
def test_a_worse_photograph_scores_worse(brisque: Brisque, photos: Path, photo: str) -> None:
    picture = decode_image((photos / photo).read_bytes())[:700, :700]
    series = [
        [picture, blurred(picture, 1), blurred(picture, 3)],
        [picture, noisy(picture, 15), noisy(picture, 40)],
        [picture, compressed(picture, 30), compressed(picture, 8)],
    ]
    for worse in series:
        scores = brisque.score(worse)[:, 0]
        assert (np.diff(scores) > 3).all(), scores


@pytest.mark.parametrize("seed", range(3))
def test_a_worse_portrait_scores_worse(brisque: Brisque, seed: int) -> None:
    picture = portrait(seed)
    clean, blur, noise, blocks = brisque.score(
        [picture, blurred(picture, 2), noisy(picture, 30), compressed(picture, 8)]
    )[:, 0]
    assert clean < min(blur, noise, blocks) - 3, (clean, blur, noise, blocks)


def test_brisque_scores_each_picture_by_itself(brisque: Brisque) -> None:
    pictures = [portrait(0), pink_picture(1), portrait(5, 301)]
    together = brisque.score(pictures)
    assert together.shape == (3, 1)
    assert together.dtype == np.float32
    assert (np.concatenate([brisque.score([picture]) for picture in pictures[::-1]])[::-1] == together).all()
    buffer = encode_jpeg(pictures[0])
    assert brisque.score([buffer]) == brisque.score([decode_image(buffer)])
    assert brisque.score([]).shape == (0, 1)


def test_pictures_without_statistics_have_no_score(brisque: Brisque) -> None:
    flat = np.full((64, 64, 3), 200, np.uint8)
    assert np.isnan(brisque.score([flat, portrait(0, 48)[:20], flat[:1, :1]])).all()
    assert np.isfinite(brisque.score([noisy(flat, 1)])).all()


def test_the_scored_size_can_be_fixed(brisque: Brisque) -> None:
    fixed = Brisque.load(shorter_side=128)
    small, large = portrait(1, 128), portrait(1, 512)
    assert fixed.score([small]) == brisque.score([small])
    means = large[:, :384].reshape(128, 4, 96, 4, 3).mean((1, 3))
    fixed_narrow = Brisque.load(shorter_side=96).score([large[:, :384]])
    assert fixed_narrow == pytest.approx(brisque.score([means.round().astype(np.uint8)]), abs=0.5)
    assert fixed_narrow != pytest.approx(brisque.score([large[:, :384]]), abs=2)
    with pytest.raises(ValueError, match="shorter_side: 20 pixels"):
        Brisque.load(shorter_side=20)


@examples(20)
@given(shape=st.floats(0.7, 4), left=st.floats(0.5, 2), right=st.floats(0.5, 2))
def test_the_fit_finds_the_parameters_of_a_sample(shape: float, left: float, right: float) -> None:
    rng = np.random.default_rng(7)
    scale = math.sqrt(math.gamma(1 / shape) / math.gamma(3 / shape))
    size = 200_000
    magnitude = rng.gamma(1 / shape, size=size) ** (1 / shape) * scale
    below = rng.random(size) < left / (left + right)
    found = fit_asymmetric(np.where(below, -left * magnitude, right * magnitude), size)
    assert found[0] == pytest.approx(shape, rel=0.1)
    assert found[1:] == pytest.approx((left**2, right**2), rel=0.08)


def test_another_model_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import importlib.metadata

    class Other:
        def locate_file(self, name: str) -> Path:
            return tmp_path / name

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Other())
    with pytest.raises(BrisqueModelError, match=r"svm\.txt is not installed: install brisque==0\.2\.0"):
        Brisque.load()
    (tmp_path / "brisque/models").mkdir(parents=True)
    (tmp_path / "brisque/models/svm.txt").write_text("svm_type nu_svr\n")
    with pytest.raises(BrisqueModelError, match=r"svm\.txt is not the file of brisque 0\.2\.0"):
        Brisque.load()
