"""Scenes: their sizes, their faces, and that the pipeline's own detector finds them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from facecaption_ml.sample import draw_scene, labelled_portraits
from facecaption_ml.sample.scenes import plan_scene, scene_faces


@pytest.mark.slow
def test_sizes_and_faces_over_many_scenes() -> None:
    plans = [plan_scene(seed) for seed in range(600)]
    counts = np.bincount([len(plan.places) for plan in plans], minlength=4) / len(plans)
    assert 0.08 < counts[0] < 0.17
    assert counts[1] > 0.55
    assert counts[2] > 0.08
    assert counts[3] > 0.02
    faces = [(plan, face) for plan in plans for face in scene_faces(plan)]
    for plan, face in faces:
        x0, y0, x1, y1 = face.box
        assert 400 <= plan.width <= 900
        assert 400 <= plan.height <= 900
        assert x0 >= 0
        assert y0 >= 0
        assert x1 <= plan.width
        assert y1 <= plan.height
    small = np.mean([min(f.box[2] - f.box[0], f.box[3] - f.box[1]) < 128 for _, f in faces])
    assert 0.05 < small < 0.16


def test_a_scene_is_what_its_plan_says() -> None:
    for seed in range(6):
        scene, plan = draw_scene(seed), plan_scene(seed)
        assert scene.image.shape == (plan.height, plan.width, 3)
        assert scene.image.dtype == np.uint8
        planned = scene_faces(plan)
        assert [face.box for face in scene.faces] == [face.box for face in planned]
        assert [face.labels for face in scene.faces] == [face.labels for face in planned]
        assert (draw_scene(seed).image == scene.image).all()


def test_faces_of_one_scene_do_not_cover_each_other() -> None:
    for seed in range(300):
        boxes = sorted(face.box for face in scene_faces(plan_scene(seed)))
        assert all(left[2] < right[0] for left, right in itertools.pairwise(boxes))


def test_people_of_scenes_and_of_labelled_portraits_are_not_the_same() -> None:
    assert all(place.seed % 2 == 0 for seed in range(200) for place in plan_scene(seed).places)
    with pytest.raises(ValueError, match="count is -1"):
        labelled_portraits(-1)


@pytest.mark.models
def test_the_detector_accepts_the_drawn_faces() -> None:
    """RetinaFace with its real weights finds at least 90 % of the big, sharp faces at score > 0.98, where they are."""
    faces = pytest.importorskip("facecaption_ml.faces")
    detector = faces.FaceDetector.load()
    overlaps, scores = [], []
    scenes = [draw_scene(seed) for seed in range(9000, 9020)]
    for scene, found in zip(scenes, detector.detect([scene.image for scene in scenes]), strict=True):
        for face in scene.faces:
            x0, y0, x1, y1 = face.box
            if "Blurry" in face.labels or min(x1 - x0, y1 - y0) <= 128:
                continue
            best = max(found, key=lambda f, box=face.box: overlap(f.box, box), default=None)
            shared = overlap(best.box, face.box) if best is not None else 0.0
            overlaps.append(shared)
            scores.append(best.score if shared > 0.5 else 0.0)
            if shared > 0.5:
                apart = np.abs(best.landmarks - face.landmarks) / (x1 - x0)
                assert np.median(apart) < 0.06
    assert len(scores) >= 12
    assert np.mean(np.array(scores) > 0.98) >= 0.9
    assert np.mean(overlaps) > 0.75


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Intersection over union of two boxes."""
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h)
