"""The sketch benchmark: m@A and m@B worked by hand, drawings that resemble their photo more and more, faults."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from facecaption_ml.benchmarks.datasets.data import Episode, EpisodeData
from facecaption_ml.benchmarks.encoders.features import FeatureError
from facecaption_ml.benchmarks.options import SKETCHES, ProbeProtocol
from facecaption_ml.benchmarks.tasks.figures import episode_strip
from facecaption_ml.benchmarks.tasks.probes import PairProbe
from facecaption_ml.benchmarks.tasks.protocol import Measured
from facecaption_ml.benchmarks.tasks.sketches import (
    BOTH,
    SKETCH,
    TEXT,
    SplitEpisodes,
    course,
    measure_sketches,
    sketch_ranks,
    train_sketch_probe,
)
from facecaption_ml.ranking import percentile_of_ranks, reciprocal_of_ranks
from facecaption_ml.storage.store import Store
from tone_world import ToneModel, cache_of, drawings, values

QUICK = SKETCHES.model_copy(update={"epochs": 2, "batch_size": 32, "runs": 1})
MODES = (SKETCH, TEXT, BOTH)


def measure(data: EpisodeData, store: Store, protocol: ProbeProtocol = QUICK) -> Measured:
    return measure_sketches(data, cache_of(store), protocol)


# -- numbers worked by hand -------------------------------------------------------------------------------------------


def at_angles(degrees: Sequence[float]) -> np.ndarray:
    """Unit vectors float16 [N, 2]."""
    turned = np.deg2rad(degrees)
    return np.stack([np.cos(turned), np.sin(turned)], axis=1).astype(np.float16)


def plain_probe() -> PairProbe:
    """Both layers leave two numbers as they are."""
    probe = PairProbe(2, 2, seed=0)
    with torch.no_grad():
        for layer in (probe.image, probe.text):
            layer.weight.copy_(torch.eye(256, 2))
            layer.bias.zero_()
    return probe


HAND = SplitEpisodes(
    sketches=at_angles([60, 20, 6, 1, 0, 44]),
    photos=at_angles([0, 10, 25, 45, 70]),
    texts=at_angles([0, 10, 25, 47, 70]),
    photo=np.array([0, 0, 0, 0, 3, 3]),
    episode=np.array([0, 0, 0, 0, 1, 1]),
    share=np.array([0.25, 0.5, 0.75, 1.0, 0.5, 1.0]),
    sketch_rows=np.arange(6),
    photo_rows=np.arange(5),
    excluded={},
)
"""Photos at five angles. Four sketches of the one at 0°: from 60° it is the farthest of five (60, 50, 35, 15, 10 away), from
20° the third (20, 10, 5, 25, 50), from 6° the second (6, 4, …), from 1° the first. Two of the one at 45°: from 0° it is the
fourth (45 after 0, 10 and 25), from 44° the first."""


def test_ranks_of_hand_made_drawings_under_each_way_of_asking() -> None:
    """The sum of two unit vectors points half way between them: 60° and the text at 0° ask from 30°, which is 30, 20, 5, 15
    and 40 away from the photos: the fourth. Then 10° (10, 0, 15: the second), 3° and 0.5°; 23.5° for the other photo (21.5
    after 1.5 and 13.5: the third), 45.5°."""
    assert sketch_ranks(plain_probe(), HAND, SKETCH).tolist() == [5, 3, 2, 1, 4, 1]
    assert sketch_ranks(plain_probe(), HAND, TEXT).tolist() == [1] * 6
    assert sketch_ranks(plain_probe(), HAND, BOTH).tolist() == [4, 2, 1, 1, 3, 1]


def test_m_a_and_m_b_of_hand_made_drawings() -> None:
    """m@A: of 4 others 0, 2, 3, 4, 1 and 4 are farther, 14 of 24. m@B: 1/5 + 1/3 + 1/2 + 1 + 1/4 + 1 = 197/60, over 6 stages:
    over all stages, so the longer drawing counts twice."""
    ranks = sketch_ranks(plain_probe(), HAND, SKETCH)
    assert percentile_of_ranks(ranks, 5) == pytest.approx(14 / 24)
    assert reciprocal_of_ranks(ranks) == pytest.approx(197 / 360)


def test_the_course_of_hand_made_drawings_of_different_lengths() -> None:
    """Each drawing counts once at each share. At 20 % neither has a stage yet, and both are asked with their first (ranks 5 and
    4); at 50 and 75 % the longer has its second and third (3, 2), the shorter still its first; at 100 % both are found."""
    ranks = sketch_ranks(plain_probe(), HAND, SKETCH)
    percentile, reciprocal = course(ranks, HAND, 5, grid=(0.2, 0.25, 0.5, 0.75, 0.99, 1.0))
    assert percentile == pytest.approx([(0 + 1) / 8, (0 + 1) / 8, (2 + 1) / 8, (3 + 1) / 8, (3 + 1) / 8, 1.0])
    assert reciprocal == pytest.approx([*((1 / rank + 1 / 4) / 2 for rank in (5, 5, 3, 2, 2)), 1.0])


@pytest.mark.parametrize("stages", [3, 20, 49, 70])
def test_the_course_reaches_each_stage_at_its_own_share_in_spite_of_rounding(stages: int) -> None:
    ranks = np.arange(stages, 0, -1)
    share = np.arange(1, stages + 1) / stages
    split = dataclasses.replace(HAND, photo=np.zeros(stages, int), episode=np.zeros(stages, int), share=share)
    _, reciprocal = course(ranks, split, stages, grid=[n * (1 / stages) for n in range(1, stages + 1)])
    np.testing.assert_allclose(reciprocal, 1 / ranks)


@pytest.mark.slow
@pytest.mark.parametrize("photos", [2, 3, 8])
def test_chance_is_one_half_and_the_mean_of_one_over_every_rank(store: Store, photos: int) -> None:
    result = measure(drawings(store, 4, photos), store).result
    chance = values(result.baselines["chance"])
    harmonic = sum(1 / rank for rank in range(1, photos + 1))
    for mode in MODES:
        assert chance[mode, "m@A"] == pytest.approx(
            np.mean([(photos - r) / (photos - 1) for r in range(1, photos + 1)])
        )
        assert chance[mode, "m@B"] == pytest.approx(harmonic / photos)


# -- data whose answer is known -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_more_is_drawn_the_better_its_photo_is_found(store: Store) -> None:
    """The paper's 100 epochs at 1e-6; a whole drawing here is its photo."""
    measured = measure(drawings(store, 20, 60), store, SKETCHES.model_copy(update={"runs": 2, "batch_size": 80}))
    result = measured.result
    curve = dict(result.curves[f"{SKETCH}, m@B"])
    quarters = [curve[share] for share in (0.25, 0.5, 0.75, 1.0)]
    assert quarters == sorted(quarters)
    assert quarters[0] < 0.6 < quarters[2]
    assert quarters[3] == pytest.approx(1.0)
    assert list(curve) == [share / 20 for share in range(1, 21)]
    found = values(result.measurements)
    assert found[SKETCH, "m@B"] == pytest.approx(np.mean(quarters)), "drawings of one length count alike"
    assert found[SKETCH, "m@A"] > 0.8
    assert {m.runs for m in result.measurements} == {2}
    assert result.counts["gallery"] == result.counts["test drawings"] == 60
    assert result.counts["test sketches"] == 240
    assert sorted(measured.figures) == ["curves.png", "drawing.png"]
    for data in measured.figures.values():
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "PNG"


@pytest.mark.slow
def test_text_is_learned_and_helps_an_early_sketch(store: Store) -> None:
    """At a rate that does move weights in so few steps."""
    protocol = QUICK.model_copy(update={"epochs": 15, "learning_rate": 2e-3})
    result = measure(drawings(store, 120, 40), store, protocol).result
    found, chance = values(result.measurements), values(result.baselines["chance"])
    assert found[TEXT, "m@B"] > 4 * chance[TEXT, "m@B"]
    early = {mode: dict(result.curves[f"{mode}, m@B"])[0.25] for mode in (SKETCH, BOTH)}
    assert early[BOTH] > early[SKETCH] + 0.1


@pytest.mark.slow
def test_the_test_split_is_not_looked_at_in_training(store: Store) -> None:
    """Other captions of test photos change what is found by text, and nothing that is asked by sketch."""
    data = drawings(store, 20, 12, 8)
    other = dataclasses.replace(
        data, captions=[*data.captions[:20], *reversed(data.captions[20:32]), *data.captions[32:]]
    )
    first, second = (measure(own, store).result for own in (data, other))
    found, again = values(first.measurements), values(second.measurements)
    assert all(found[SKETCH, metric] == again[SKETCH, metric] for metric in ("m@A", "m@B"))
    assert found[BOTH, "m@B"] != again[BOTH, "m@B"]
    assert first.protocol["epoch"] == "best on the validation split"


def test_the_epoch_with_the_best_m_b_on_the_validation_split_is_kept(store: Store) -> None:
    data, cache = drawings(store, 20, 4, 8), cache_of(store)
    train, validation = (SplitEpisodes.of(data, cache, split) for split in ("train", "validation"))
    protocol = QUICK.model_copy(update={"epochs": 5, "learning_rate": 1e-3})
    probe, trained = train_sketch_probe(train, validation, BOTH, protocol, run=0)
    assert trained.validation == reciprocal_of_ranks(sketch_ranks(probe, validation, BOTH))
    last, final = train_sketch_probe(train, None, BOTH, protocol, run=0)
    assert (final.epoch, final.validation) == (5, None)
    assert trained.validation >= reciprocal_of_ranks(sketch_ranks(last, validation, BOTH))


# -- shapes of data sets and faults ------------------------------------------------------------------------------------


def test_drawings_of_different_lengths_keep_their_own_shares(store: Store) -> None:
    data = drawings(store, 3, 4, stages=(2, 5, 1))
    split = SplitEpisodes.of(data, cache_of(store), "test")
    assert split.share.tolist() == pytest.approx([0.5, 1, 0.2, 0.4, 0.6, 0.8, 1, 1, 0.5, 1])
    assert split.episode.tolist() == [0, 0, 1, 1, 1, 1, 1, 2, 3, 3]
    assert split.photo.tolist() == [0, 0, 1, 1, 1, 1, 1, 2, 3, 3]
    assert measure(data, store).result.counts["test sketches"] == 10


def test_a_photo_that_was_drawn_twice_stands_in_the_gallery_once(store: Store) -> None:
    data = drawings(store, 4, 3)
    again = dataclasses.replace(
        data,
        episodes=[*data.episodes, Episode(5, data.episodes[5].sketches)],
        splits={**data.splits, "test": np.array([4, 5, 6, 7])},
    )
    result = measure(again, store).result
    assert result.counts["gallery"] == 3
    assert result.counts["test drawings"] == 4
    assert result.counts["test sketches"] == 16


def test_without_captions_only_sketches_are_asked_with(store: Store) -> None:
    measured = measure(drawings(store, 4, 6, captions=False), store)
    assert {m.setting for m in measured.result.measurements} == {SKETCH}
    assert set(measured.result.curves) == {f"{SKETCH}, m@A", f"{SKETCH}, m@B"}


@pytest.mark.slow
def test_a_drawing_whose_photo_does_not_decode_is_counted_and_left_out(store: Store) -> None:
    """Of the gallery too: every number is as without it."""
    data = drawings(store, 6, 8, damaged_photos=[2, 9])
    kept = {name: np.setdiff1d(rows, [2, 9]) for name, rows in data.splits.items()}
    with_faults = measure(data, store).result
    without = measure(dataclasses.replace(data, splits=kept), store).result
    assert with_faults.counts["photos that did not decode"] == with_faults.counts["episodes without photo"] == 2
    assert with_faults.counts["gallery"] == without.counts["gallery"] == 7
    assert SplitEpisodes.of(data, cache_of(store), "test").photo_rows.tolist() == [6, 7, 8, 10, 11, 12, 13]
    assert with_faults.measurements == without.measurements
    assert with_faults.curves == without.curves
    assert with_faults.baselines == without.baselines


def test_sketches_that_do_not_decode_are_counted_and_the_others_keep_their_share(store: Store) -> None:
    """Sketches 0 … 3 are the first drawing's, 24 and 25 the first two of the seventh, the first of the test split."""
    data = drawings(store, 6, 8, damaged_sketches=[3, 24, 25])
    measured = measure(data, store)
    assert measured.result.counts["sketches that did not decode"] == 3
    assert measured.result.counts["test sketches"] == 4 * 8 - 2
    assert measured.result.counts["training sketches"] == 4 * 6 - 1
    split = SplitEpisodes.of(data, cache_of(store), "test")
    assert split.share[:3].tolist() == [0.75, 1.0, 0.25]
    assert split.sketch_rows[:3].tolist() == [26, 27, 28]


def test_a_drawing_of_which_no_sketch_decodes_leaves_its_photo_in_the_gallery(store: Store) -> None:
    result = measure(drawings(store, 3, 4, damaged_sketches=[12, 13, 14, 15]), store).result
    assert result.counts["test drawings"] == 3
    assert result.counts["gallery"] == 4


def test_a_gallery_of_one_photo_has_no_m_a_but_a_reason(store: Store) -> None:
    measured = measure(drawings(store, 4, 1), store)
    for m in [*measured.result.measurements, *measured.result.baselines["chance"]]:
        if m.metric == "m@A":
            assert (m.value, m.why) == (None, "a gallery of one photo")
        else:
            assert m.value == 1.0
    assert set(measured.result.curves) == {f"{mode}, m@B" for mode in MODES}
    assert measured.figures["curves.png"].startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", ["photos", "sketches"])
def test_a_split_of_which_nothing_decodes_is_one_line(store: Store, kind: str) -> None:
    photos, sketches = ([3, 4], []) if kind == "photos" else ([], list(range(12, 20)))
    data = drawings(store, 3, 2, damaged_photos=photos, damaged_sketches=sketches)
    with pytest.raises(FeatureError, match=rf"^not one of \d pictures decodes, {kind}/00\d\d\.png among them"):
        measure(data, store)


def test_a_model_without_layers_is_measured_all_the_same(store: Store) -> None:
    result = measure_sketches(drawings(store, 4, 6), cache_of(store, ToneModel("align", layers=0)), QUICK).result
    assert all(m.value is not None for m in result.measurements)


def test_a_caption_with_dollar_signs_is_no_formula() -> None:
    page = np.full((8, 8, 3), 255, np.uint8)
    strip = episode_strip(None, [page, None], [0.5, 1.0], {SKETCH: [2, 1]}, 3, r"a hat for $5 \frac{ or $7")
    assert strip.startswith(b"\x89PNG")
