"""The retrieval benchmark: data whose answer is known, both directions against a full matrix, small galleries, faults."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from facecaption_ml.benchmarks.datasets.data import PairData, Source
from facecaption_ml.benchmarks.encoders.features import FeatureCache
from facecaption_ml.benchmarks.encoders.models import FlipEncoder
from facecaption_ml.benchmarks.options import RETRIEVAL, ProbeProtocol
from facecaption_ml.benchmarks.result import BenchmarkResult
from facecaption_ml.benchmarks.tasks.probes import PairProbe
from facecaption_ml.benchmarks.tasks.retrieval import (
    AUC,
    IMAGE_TO_TEXT,
    MATCHING,
    TEXT_TO_IMAGE,
    SplitPairs,
    drawn_captions,
    measure_retrieval,
    pair_ranks,
    train_retrieval_probe,
)
from facecaption_ml.pair_matching import area_under_curve, mismatched
from facecaption_ml.storage.store import Store
from stub_models import micro_flip
from tone_world import cache_of, pairs, values

QUICK = RETRIEVAL.model_copy(update={"epochs": 2, "batch_size": 16, "runs": 1})
WAYS = (TEXT_TO_IMAGE, IMAGE_TO_TEXT)


def measure(data: PairData, store: Store, protocol: ProbeProtocol = QUICK) -> BenchmarkResult:
    return measure_retrieval(data, cache_of(store), protocol).result


@pytest.mark.slow
def test_after_the_papers_protocol_pictures_and_captions_that_correspond_find_each_other(store: Store) -> None:
    """20 epochs at 4e-4, from features of pictures and texts that are turned against each other: by chance 1 of 100."""
    protocol = RETRIEVAL.model_copy(update={"batch_size": 16, "runs": 2})
    result = measure(pairs(store, 200, 100), store, protocol)
    found, chance = values(result.measurements), values(result.baselines["chance"])
    for way in WAYS:
        assert found[way, "R@1"] > 30 * chance[way, "R@1"]
        assert found[way, "R@1"] <= found[way, "R@5"] <= found[way, "R@10"]
        assert chance[way, "R@1"] == pytest.approx(0.01)
        assert chance[way, "R@10"] == pytest.approx(0.10)
    assert {m.runs for m in result.measurements} == {2}
    assert all(m.spread is not None for m in result.measurements)
    assert result.protocol["epoch"] == "last (the data set has no validation split)"
    assert result.protocol["epochs chosen"] == "20, 20"


def test_captions_of_other_pictures_are_found_no_better_than_by_chance(store: Store) -> None:
    """The same pictures and texts, paired at random: nothing can be learned, so nothing may seem to be."""
    data = pairs(store, 200, 100)
    order = np.random.default_rng(1).permutation(300)
    mixed = dataclasses.replace(data, captions=[data.captions[row] for row in order])
    found = values(measure(mixed, store, RETRIEVAL.model_copy(update={"batch_size": 16, "runs": 1})).measurements)
    assert all(found[way, "R@10"] < 0.25 for way in WAYS)


# -- ranks ------------------------------------------------------------------------------------------------------------


def slow_ranks(probe: PairProbe, split: SplitPairs) -> tuple[list[int], list[int]]:
    """The whole matrix, query by query: rivals at least as similar as the best item that belongs."""
    with torch.inference_mode():
        images = probe.images(torch.from_numpy(split.images.views[0].pooled)).numpy().astype(np.float64)
        texts = probe.texts(torch.from_numpy(split.text)).numpy().astype(np.float64)
    matrix = (images @ texts.T).astype(np.float32)
    to_image = [
        1 + sum(matrix[i, t] >= matrix[own, t] for i in range(len(images)) if i != own)
        for t, own in enumerate(split.owner.tolist())
    ]
    to_text = []
    for i in range(len(images)):
        best = max(matrix[i, t] for t in range(len(texts)) if split.owner[t] == i)
        to_text.append(1 + sum(matrix[i, t] >= best for t in range(len(texts)) if split.owner[t] != i))
    return to_image, to_text


@pytest.mark.parametrize("captions", [1, 3])
def test_ranks_and_recalls_of_both_directions_are_those_of_the_full_matrix(store: Store, captions: int) -> None:
    data = pairs(store, 40, 30, captions=captions)
    uneven = [own[: 1 + row % captions] for row, own in enumerate(data.captions)]
    data = dataclasses.replace(data, captions=uneven)
    cache = cache_of(store)
    train, test = (SplitPairs.of(data, cache, split, layers=False) for split in ("train", "test"))
    probe, _ = train_retrieval_probe(train, None, QUICK, run=0)
    found, slow = pair_ranks(probe, test), slow_ranks(probe, test)
    assert found[0].tolist() == slow[0]
    assert found[1].tolist() == slow[1]
    assert len(found[0]) == sum(len(own) for own in uneven[40:])
    measured = values(measure(data, store).measurements)
    for way, ranks in zip(WAYS, slow, strict=True):
        for k in (1, 5, 10):
            assert measured[way, f"R@{k}"] == pytest.approx(np.mean(np.array(ranks) <= k))


def test_ties_count_against_the_model(store: Store) -> None:
    """All test captions alike: whatever the model, every picture ties with every other."""
    data = pairs(store, 20, 12)
    same = [*data.captions[:20], *[data.captions[20]] * 12]
    found = values(measure(dataclasses.replace(data, captions=same), store).measurements)
    assert [found[IMAGE_TO_TEXT, f"R@{k}"] for k in (1, 5, 10)] == [0, 0, 0]
    assert found[TEXT_TO_IMAGE, "R@1"] == pytest.approx(1 / 12)


def test_chance_counts_a_pictures_own_captions(store: Store) -> None:
    """Of 12 captions, 3 to a picture: the first one drawn is its own with 3/12."""
    result = measure(pairs(store, 10, 4, captions=3), store)
    chance = values(result.baselines["chance"])
    assert chance[IMAGE_TO_TEXT, "R@1"] == pytest.approx(3 / 12)
    assert chance[IMAGE_TO_TEXT, "R@10"] == pytest.approx(1.0), "two of twelve places stay out, three are own"
    assert chance[TEXT_TO_IMAGE, "R@1"] == pytest.approx(1 / 4)
    assert chance[TEXT_TO_IMAGE, "R@5"] is None


def test_the_matching_head_is_measured_where_there_is_one(store: Store) -> None:
    """Against a slow count over the same pairs; a model without such a head has no such number."""
    data, flip = pairs(store, 12, 15), micro_flip()
    result = measure_retrieval(data, FeatureCache(store, FlipEncoder(flip, "flip"), 8), QUICK).result
    found, chance = values(result.measurements), values(result.baselines["chance"])
    rows = data.splits["test"].tolist()
    images = [image for image in data.pictures.read(rows) if image is not None]
    texts = [data.captions[row][0] for row in rows]
    numbers = [texts.index(text) for text in texts]
    true = flip.match(images, texts)
    wrong, captions = mismatched(numbers, seed=QUICK.seed)
    false = flip.match([images[row] for row in wrong], [texts[row] for row in captions])
    assert found[MATCHING, AUC] == pytest.approx(
        area_under_curve(true, false), abs=0.01
    )  # tokens are in half precision
    assert chance[MATCHING, AUC] == 0.5
    assert (MATCHING, AUC) not in values(measure(pairs(store, 12, 15), store).measurements)


# -- small galleries and faults ----------------------------------------------------------------------------------------


def test_a_gallery_smaller_than_k_has_no_recall_but_a_reason(store: Store) -> None:
    result = measure(pairs(store, 10, 4, captions=2), store)
    for m in [*result.measurements, *result.baselines["chance"]]:
        gallery = 4 if m.setting == TEXT_TO_IMAGE else 8
        if int(m.metric.removeprefix("R@")) > gallery:
            assert (m.value, m.why) == (None, f"a gallery of {gallery}")
        else:
            assert m.value is not None


def test_pictures_that_do_not_decode_are_counted_and_every_number_is_over_the_rest(store: Store) -> None:
    """As if they and their captions had never been listed."""
    damaged, counts = [3, 25, 31, 33], (20, 12, 6)
    data = pairs(store, *counts, captions=2, damaged=damaged)
    with_faults = measure(data, store)
    kept = {name: np.setdiff1d(rows, damaged) for name, rows in data.splits.items()}
    without = measure(dataclasses.replace(data, splits=kept), store)
    assert with_faults.counts["did not decode"] == 4
    assert without.counts["did not decode"] == 0
    for name, count in {"training": 19, "validation": 5, "test": 10}.items():
        assert with_faults.counts[f"{name} pictures"] == without.counts[f"{name} pictures"] == count
    assert with_faults.counts["test captions"] == 20
    assert with_faults.measurements == without.measurements
    assert with_faults.baselines == without.baselines


def test_what_a_reader_left_out_and_noted_stands_in_the_result(store: Store) -> None:
    data = pairs(store, 12, 10)
    told = dataclasses.replace(data, source=Source("tones", "5", {"without caption": 7}, ["captions are made up"]))
    result = measure(told, store)
    assert result.counts["left out: without caption"] == 7
    assert result.notes == ["captions are made up"]
    assert result.versions == {"data": "5", "model": "1", "code": "2"}
    assert result.key == "benchmarks/retrieval/tones/tones"


# -- training ---------------------------------------------------------------------------------------------------------


def test_the_test_split_is_not_looked_at_in_training(store: Store) -> None:
    """Other test captions change the numbers, but no weight and no chosen epoch."""
    data, cache = pairs(store, 30, 20, 20), cache_of(store)
    shuffled = [*data.captions[:30], *reversed(data.captions[30:50]), *data.captions[50:]]
    protocol = QUICK.model_copy(update={"epochs": 4})
    found = []
    for own in (data, dataclasses.replace(data, captions=shuffled)):
        train, validation = (SplitPairs.of(own, cache, split, layers=False) for split in ("train", "validation"))
        found.append((train_retrieval_probe(train, validation, protocol, run=0), measure(own, store, protocol)))
    (first, trained), result = found[0]
    (second, again), other = found[1]
    assert all(torch.equal(second.state_dict()[name], value) for name, value in first.state_dict().items())
    assert trained == again
    assert result.protocol["epochs chosen"] == other.protocol["epochs chosen"] == str(trained.epoch)
    assert result.protocol["epoch"] == "best on the validation split"
    assert result.measurements != other.measurements


@pytest.mark.slow
def test_a_small_validation_split_does_not_choose_the_first_epoch_for_want_of_difference(store: Store) -> None:
    """R@10 among ten pictures is always 1; R@5 still tells epochs apart, and where all are right the last one is taken."""
    data, cache = pairs(store, 200, 20, 10), cache_of(store)
    train, validation = (SplitPairs.of(data, cache, split, layers=False) for split in ("train", "validation"))
    _, trained = train_retrieval_probe(train, validation, RETRIEVAL.model_copy(update={"batch_size": 16}), run=0)
    assert trained.epoch > 1
    assert trained.validation == 1.0


def test_runs_differ_by_their_seed_alone(store: Store) -> None:
    data, cache = pairs(store, 30, 20), cache_of(store)
    train = SplitPairs.of(data, cache, "train", layers=False)
    first = train_retrieval_probe(train, None, QUICK, run=1)[0].state_dict()
    again = train_retrieval_probe(train, None, QUICK.model_copy(update={"seed": 1}), run=0)[0].state_dict()
    other = train_retrieval_probe(train, None, QUICK, run=0)[0].state_dict()
    assert all(torch.equal(again[name], value) for name, value in first.items())
    assert not torch.equal(first["image.weight"], other["image.weight"])


def test_an_epoch_learns_from_one_caption_of_each_picture_and_epochs_from_others(store: Store) -> None:
    train = SplitPairs.of(pairs(store, 20, 4, captions=3), cache_of(store), "train", layers=False)
    epochs = np.stack([drawn_captions(train.owner, 0, epoch).numpy() for epoch in range(60)])
    assert (train.owner[epochs] == np.arange(20)).all(), "a picture's own captions"
    assert all(len(np.unique(of_picture)) == 3 for of_picture in epochs.T), "each of them sooner or later"


def test_random_views_are_trained_on_in_turn(store: Store) -> None:
    data = pairs(store, 24, 10)
    plain, viewed = measure(data, store), measure(data, store, QUICK.model_copy(update={"views": 2}))
    assert viewed.protocol["views"] == "2 random views, one an epoch; plain for validation and test"
    assert plain.protocol["views"] == "plain"
    assert len({key.split("/view-")[1][0] for key in store.keys("benchmark_features/") if "/view-" in key}) == 3
    cache = cache_of(store)
    probes = [
        train_retrieval_probe(SplitPairs.of(data, cache, "train", layers=False, views=views), None, QUICK, 0)[0]
        for views in ((1, 2), (2, 1), (1, 2))
    ]
    assert torch.equal(probes[0].image.weight, probes[2].image.weight)
    assert not torch.equal(probes[0].image.weight, probes[1].image.weight)


def test_layers_are_kept_where_another_task_wants_them(store: Store) -> None:
    data = pairs(store, 8, 4)
    measure_retrieval(data, cache_of(store), QUICK)
    assert not [key for key in store.keys("benchmark_features/") if "/layers-" in key]
    measure_retrieval(data, cache_of(store), QUICK, layers=True)
    cache = cache_of(store)
    cache.pictures(data.pictures, range(12), layers=True)
    assert cache.encoded == 0
