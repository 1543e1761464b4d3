"""Portraits: the same for the same seed anywhere, different for another, and every attribute visible."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml.sample import draw_portrait, labelled_portraits, sample_labels, sketch_episode
from facecaption_ml.taxonomy import ATTRIBUTES, CATEGORIES, FEMALE, settle_conflicts

SEEDS = st.integers(0, 2**62)
WOMAN = frozenset({"Young", "No_Beard", "Brown_Hair", "Straight_Hair", "Attractive"})
MAN = WOMAN | {"Male"}
# What must be there, or away, for an attribute to be shown fairly: on a man, on a clean-shaven face, under no hat.
BASES = {
    "Goatee": MAN - {"No_Beard"}, "5_o_Clock_Shadow": MAN - {"No_Beard"}, "Mustache": MAN, "Sideburns": MAN,
    "Wearing_Necktie": MAN, "Bald": MAN - {"Brown_Hair", "Straight_Hair"}, "Male": WOMAN, "No_Beard": MAN - {"No_Beard"},
    "Black_Hair": WOMAN - {"Brown_Hair"}, "Blond_Hair": WOMAN - {"Brown_Hair"}, "Gray_Hair": WOMAN - {"Brown_Hair"},
    "Brown_Hair": WOMAN - {"Brown_Hair"}, "Wavy_Hair": WOMAN - {"Straight_Hair"}, "Straight_Hair": WOMAN - {"Straight_Hair"},
}  # fmt: skip
# The part of the face box, x0 y0 x1 y1 in shares of its sides, in which an attribute must show.
LOWER, MIDDLE, UPPER = (0.0, 0.6, 1.0, 1.15), (0.0, 0.4, 1.0, 0.8), (0.0, -0.3, 1.0, 0.25)
BELOW, EYES, MOUTH, NOSE = (-0.2, 1.0, 1.2, 1.3), (0.05, 0.2, 0.95, 0.6), (0.2, 0.65, 0.8, 0.95), (0.3, 0.4, 0.7, 0.75)
SIDES, WHOLE = (-0.2, -0.2, 1.2, 1.2), (-0.1, -0.1, 1.1, 1.1)
REGIONS = {
    "5_o_Clock_Shadow": LOWER, "Arched_Eyebrows": EYES, "Attractive": WHOLE, "Bags_Under_Eyes": EYES, "Bald": UPPER,
    "Bangs": UPPER, "Big_Lips": MOUTH, "Big_Nose": NOSE, "Black_Hair": UPPER, "Blond_Hair": UPPER, "Blurry": WHOLE,
    "Brown_Hair": UPPER, "Bushy_Eyebrows": EYES, "Chubby": LOWER, "Double_Chin": LOWER, "Eyeglasses": EYES, "Goatee": LOWER,
    "Gray_Hair": UPPER, "Heavy_Makeup": EYES, "High_Cheekbones": MIDDLE, "Male": WHOLE, "Mouth_Slightly_Open": MOUTH,
    "Mustache": MOUTH, "Narrow_Eyes": EYES, "No_Beard": LOWER, "Oval_Face": LOWER, "Pale_Skin": WHOLE, "Pointy_Nose": NOSE,
    "Receding_Hairline": UPPER, "Rosy_Cheeks": MIDDLE, "Sideburns": (-0.1, 0.2, 1.1, 0.8), "Smiling": MOUTH,
    "Straight_Hair": SIDES, "Wavy_Hair": SIDES, "Wearing_Earrings": (-0.2, 0.5, 1.2, 1.0), "Wearing_Hat": UPPER,
    "Wearing_Lipstick": MOUTH, "Wearing_Necklace": BELOW, "Wearing_Necktie": BELOW, "Young": WHOLE,
}  # fmt: skip


def digest(image: np.ndarray) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


@given(SEEDS)
@examples(300)
def test_sampled_labels_never_contradict_each_other(seed: int) -> None:
    labels = sample_labels(seed)
    gender = [] if "Male" in labels else [FEMALE]
    kept, dropped = settle_conflicts([*labels, *gender])
    assert not dropped
    assert set(kept) - {FEMALE} == labels
    assert sample_labels(seed) == labels


def test_sampled_labels_are_a_believable_crowd() -> None:
    crowd = [sample_labels(seed) for seed in range(3000)]
    rate = {name: np.mean([name in labels for labels in crowd]) for name in ATTRIBUTES}
    assert all(rate[name] >= 0.025 for name in ATTRIBUTES), min(rate, key=rate.__getitem__)
    assert 0.38 < rate["Male"] < 0.46
    assert 0.7 < rate["Young"] < 0.85
    assert 0.7 < rate["No_Beard"] < 0.9
    assert np.mean([len(labels) >= 8 for labels in crowd]) > 0.6
    smiling = [labels for labels in crowd if "Smiling" in labels]
    assert np.mean(["High_Cheekbones" in labels for labels in smiling]) > rate["High_Cheekbones"] + 0.15
    assert not any({"Goatee", "Mustache", "Wearing_Necktie"} & labels for labels in crowd if "Male" not in labels)
    assert all(any(name in labels for labels in crowd) for names in CATEGORIES.values() for name in names)


def test_a_portrait_is_the_same_in_another_process() -> None:
    seeds = (1, 2, 3)
    here = [digest(draw_portrait(sample_labels(s), s, 128).image) for s in seeds]
    code = (
        "import hashlib; from facecaption_ml.sample import draw_portrait, sample_labels\n"
        f"for s in {seeds}: print(hashlib.sha256(draw_portrait(sample_labels(s), s, 128).image.tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert there.stdout.split() == here


@pytest.mark.models
def test_no_two_of_200_portraits_look_alike() -> None:
    labels = sample_labels(5)  # the same for all: only the seeds differ
    small = []
    for seed in range(200):
        image = draw_portrait(labels, seed, 64).image
        small.append(cv2.resize(image, (24, 24), interpolation=cv2.INTER_AREA).astype(np.float32).ravel())
    flat = np.stack(small)
    distance = np.sqrt(((flat[:, None] - flat[None]) ** 2).mean(-1))
    np.fill_diagonal(distance, np.inf)
    assert distance.min() > 8.0  # grey levels, root mean square


@pytest.mark.models
@pytest.mark.parametrize("name", ATTRIBUTES)
def test_every_attribute_shows_in_its_place(name: str) -> None:
    base = frozenset(BASES.get(name, WOMAN)) - {name}
    differences = []
    for seed in range(3):
        without, held = draw_portrait(base, seed, 160), draw_portrait(base | {name}, seed, 160)
        x0, y0, x1, y1 = without.box
        left, top, right, bottom = REGIONS[name]
        rows = slice(max(int(y0 + top * (y1 - y0)), 0), int(y0 + bottom * (y1 - y0)))
        columns = slice(max(int(x0 + left * (x1 - x0)), 0), int(x0 + right * (x1 - x0)))
        change = np.abs(held.image[rows, columns].astype(int) - without.image[rows, columns].astype(int)).max(axis=2)
        differences.append((change > 24).mean())
    assert np.median(differences) > 0.01, differences


@given(SEEDS, st.integers(64, 300))
@examples(25)
def test_box_and_landmarks_belong_together(seed: int, size: int) -> None:
    portrait = draw_portrait(sample_labels(seed), seed, size)
    x0, y0, x1, y1 = portrait.box
    assert portrait.image.shape == (size, size, 3)
    assert portrait.image.dtype == np.uint8
    assert portrait.landmarks.shape == (5, 2)
    assert portrait.landmarks.dtype == np.float32
    assert 0 <= x0 < x1 <= size
    assert 0 <= y0 < y1 <= size
    assert ((portrait.landmarks > (x0, y0)) & (portrait.landmarks < (x1, y1))).all()
    left_eye, right_eye, nose, left_mouth, right_mouth = portrait.landmarks
    assert left_eye[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="Beautiful"):
        draw_portrait({"Beautiful"}, 0, 128)
    with pytest.raises(ValueError, match="size is 20"):
        draw_portrait(set(), 0, 20)
    with pytest.raises(ValueError, match="steps is 0"):
        sketch_episode(draw_portrait(set(), 0, 64), 0, 64)


@pytest.mark.models
def test_labelled_portraits_do_not_depend_on_the_number_of_workers() -> None:
    images, labels = labelled_portraits(40, seed=3)
    parallel, same_labels = labelled_portraits(40, seed=3, workers=2)
    assert images.shape == (40, 112, 112, 3)
    assert images.dtype == np.uint8
    assert labels.shape == (40, 40)
    assert labels.dtype == np.bool_
    assert (images == parallel).all()
    assert (labels == same_labels).all()
    shorter, _ = labelled_portraits(10, seed=3)
    assert (shorter == images[:10]).all()
    assert not (labelled_portraits(10, seed=4)[0] == shorter).all()


def test_a_sketch_grows_stroke_by_stroke() -> None:
    portrait = draw_portrait(sample_labels(8), 8, 200)
    episode = sketch_episode(portrait, 12, 160)
    ink = [int((255 - sheet.astype(int)).sum()) for sheet in episode]
    assert len(episode) == 12
    assert all(sheet.shape == (160, 160) and sheet.dtype == np.uint8 for sheet in episode)
    assert all((later <= earlier).all() for earlier, later in itertools.pairwise(episode))
    assert ink == sorted(set(ink)), "every step adds something"
    assert 0 < ink[0] < 0.3 * ink[-1]
    assert portrait.strokes[0].part == "face"
    assert {"eyes", "nose", "mouth", "hair"} <= {stroke.part for stroke in portrait.strokes}
    whole = sketch_episode(portrait, 1, 160)[0]
    assert np.abs(whole.astype(int) - episode[-1]).mean() < 3, "steps do not change the finished sketch"
