"""The attribute benchmark: attributes that show in the pixels are learned, more with more data, and faults are counted."""

from __future__ import annotations

import dataclasses
import io
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from facecaption_ml.attributes.evaluation import average_precision
from facecaption_ml.benchmarks.datasets.data import LabelData
from facecaption_ml.benchmarks.options import ATTRIBUTES as PAPER
from facecaption_ml.benchmarks.options import ProbeProtocol
from facecaption_ml.benchmarks.tasks.attributes import (
    FRACTIONS,
    logits,
    measure_attributes,
    normed_layers,
    scores,
    subset,
    train_attribute_probe,
)
from facecaption_ml.benchmarks.tasks.protocol import Measured, SplitFeatures
from facecaption_ml.storage.store import Store
from facecaption_ml.taxonomy import ATTRIBUTES
from tone_world import cache_of, labelled, values

QUICK = PAPER.model_copy(update={"epochs": 3, "batch_size": 32, "runs": 1})
METRICS = ("accuracy", "average precision")


def measure(
    data: LabelData, store: Store, protocol: ProbeProtocol = QUICK, fractions: tuple[float, ...] = (1.0,)
) -> Measured:
    return measure_attributes(data, cache_of(store), protocol, fractions)


@pytest.mark.slow
def test_attributes_that_show_in_the_pixels_are_learned_and_more_data_teaches_more(store: Store) -> None:
    """100 epochs at 0.3 as in the paper; 1 % of 400 pictures are 4."""
    measured = measure(labelled(store, 400, 200), store, PAPER.model_copy(update={"runs": 2}), (0.01, 0.1, 1.0))
    found, majority = values(measured.result.measurements), values(measured.result.baselines["majority class"])
    for metric in METRICS:
        assert found["1 %", metric] < found["10 %", metric] < found["100 %", metric]
        assert majority["1 %", metric] == majority["100 %", metric] == pytest.approx(0.5, abs=0.1)
    assert found["100 %", "accuracy"] > 0.85
    assert found["100 %", "average precision"] > 0.95
    assert found["1 %", "accuracy"] > majority["1 %", "accuracy"]
    assert {(m.runs, m.spread is None) for m in measured.result.measurements} == {(2, False)}
    with Image.open(io.BytesIO(measured.figures["layers.png"])) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 100


def test_scores_are_those_of_the_attributes_one_by_one(store: Store) -> None:
    data, cache = labelled(store, 60, 40), cache_of(store)
    train, test = (SplitFeatures.of(cache, data.pictures, data.splits[s], layers=True) for s in ("train", "test"))
    probe, _ = train_attribute_probe(
        [normed_layers(train.views[0])], data.labels[:60], np.arange(60), None, QUICK, run=0
    )
    truth = data.labels[60:].copy()
    truth[:, 3], truth[:, 9] = True, False
    found = logits(probe, normed_layers(test.views[0]))
    accuracies = [float(((found[:, i] > 0) == truth[:, i]).mean()) for i in range(40)]
    precisions = [average_precision(found[:, i], truth[:, i]) for i in range(40) if i not in (3, 9)]
    accuracy, precision = scores(probe, normed_layers(test.views[0]), truth)
    assert accuracy == pytest.approx(np.mean(accuracies))
    assert precision == pytest.approx(np.mean(precisions))


def test_an_attribute_with_one_class_is_named_and_left_out_of_the_mean(store: Store) -> None:
    data = labelled(store, 60, 40)
    labels = data.labels.copy()
    labels[60:, 0], labels[60:, 39] = True, False
    result = measure(dataclasses.replace(data, labels=labels), store).result
    assert result.counts["attributes without average precision"] == 2
    assert result.notes == [
        f"no average precision (one class only in the test split): {ATTRIBUTES[0]}, {ATTRIBUTES[39]}"
    ]
    chance = values(result.baselines["majority class"])
    assert chance["100 %", "average precision"] == pytest.approx(labels[60:, 1:39].mean(axis=0).mean())


def test_without_any_attribute_of_both_classes_there_is_no_average_precision_but_a_reason(store: Store) -> None:
    data = labelled(store, 30, 1)
    result = measure(data, store, fractions=(0.5, 1.0)).result
    for m in [*result.measurements, *result.baselines["majority class"]]:
        if m.metric == "average precision":
            assert (m.value, m.why) == (None, "one class only in the test split")
        else:
            assert m.value is not None
    assert result.counts["attributes without average precision"] == 40


def test_the_majority_is_that_of_the_training_split(store: Store) -> None:
    data = labelled(store, 30, 20)
    wanted = data.labels[:30].sum(axis=0) > 15
    majority = values(measure(data, store).result.baselines["majority class"])
    assert majority["100 %", "accuracy"] == pytest.approx((data.labels[30:] == wanted).mean())


# -- shares of the training split --------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 40, 1000])
def test_smaller_shares_lie_in_larger_ones_and_seeds_draw_others(count: int) -> None:
    shares = [subset(count, fraction, seed=1) for fraction in FRACTIONS]
    sizes = [max(1, round(count * fraction)) for fraction in FRACTIONS]
    assert [len(rows) for rows in shares] == sizes
    for smaller, larger in itertools.pairwise(shares):
        assert set(smaller) <= set(larger)
    assert shares[-1].tolist() == list(range(count))
    if count == 1000:
        assert set(shares[0]) != set(subset(count, FRACTIONS[0], seed=2))


def test_a_share_learns_from_its_own_rows_alone(store: Store) -> None:
    """Wrong labels of the other rows change no weight."""
    data, cache = labelled(store, 50, 4), cache_of(store)
    views = [normed_layers(SplitFeatures.of(cache, data.pictures, data.splits["train"], layers=True).views[0])]
    rows = subset(50, 0.1, seed=0)
    wrong = ~data.labels[:50]
    wrong[rows] = data.labels[rows]
    probes = [train_attribute_probe(views, own, rows, None, QUICK, 0)[0] for own in (data.labels[:50], wrong)]
    assert torch.equal(probes[0].head.weight, probes[1].head.weight)
    assert not torch.equal(
        probes[0].head.weight, train_attribute_probe(views, ~wrong, rows, None, QUICK, 0)[0].head.weight
    )


# -- training and faults -----------------------------------------------------------------------------------------------


def test_the_test_split_is_not_looked_at_in_training(store: Store) -> None:
    """Other test labels change the numbers, but not the picture of the learned weights, which all runs go into."""
    data = labelled(store, 60, 30, 30)
    labels = data.labels.copy()
    labels[60:90] = ~labels[60:90]
    one, other = measure(data, store), measure(dataclasses.replace(data, labels=labels), store)
    assert one.figures["layers.png"] == other.figures["layers.png"]
    found, turned = values(one.result.measurements), values(other.result.measurements)
    assert found["100 %", "accuracy"] == pytest.approx(1 - turned["100 %", "accuracy"])
    assert one.result.protocol["epoch"] == "best on the validation split"


def test_the_epoch_is_the_one_with_the_best_validation_accuracy(store: Store) -> None:
    """Validated on the turned labels, the best epoch is the one that has learned least."""
    data, cache = labelled(store, 60, 30), cache_of(store)
    views = [normed_layers(SplitFeatures.of(cache, data.pictures, data.splits["train"], layers=True).views[0])]
    protocol = QUICK.model_copy(update={"epochs": 12})
    last = train_attribute_probe(views, data.labels[:60], np.arange(60), None, protocol, 0)[1]
    turned = train_attribute_probe(views, data.labels[:60], np.arange(60), (views[0], ~data.labels[:60]), protocol, 0)[
        1
    ]
    assert (last.epoch, last.validation) == (12, None)
    assert turned.epoch < 6
    assert turned.losses == last.losses


def test_pictures_that_do_not_decode_are_counted_and_every_number_is_over_the_rest(store: Store) -> None:
    damaged = [3, 65, 80, 95]
    data = labelled(store, 60, 30, 12, damaged=damaged)
    kept = {name: np.setdiff1d(rows, damaged) for name, rows in data.splits.items()}
    with_faults = measure(data, store).result
    without = measure(dataclasses.replace(data, splits=kept), store).result
    assert with_faults.counts["did not decode"] == 4
    for name, count in {"training": 59, "validation": 11, "test": 28}.items():
        assert with_faults.counts[f"{name} pictures"] == without.counts[f"{name} pictures"] == count
    assert with_faults.measurements == without.measurements
    assert with_faults.baselines == without.baselines


def test_validation_is_looked_at_in_four_thousand_pictures_at_most(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("facecaption_ml.benchmarks.tasks.attributes.VALIDATION_ROWS", 5)
    assert measure(labelled(store, 20, 10, 12), store).result.counts["validation pictures"] == 5
