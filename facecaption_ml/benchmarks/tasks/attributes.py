"""Facial attributes from a frozen image tower: features of four depths, combined with learned weights (paper §5.3, Table 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from facecaption_ml.attributes.evaluation import average_precision
from facecaption_ml.benchmarks.datasets.data import LabelData
from facecaption_ml.benchmarks.encoders.features import FeatureCache, PictureFeatures
from facecaption_ml.benchmarks.options import ProbeProtocol
from facecaption_ml.benchmarks.result import Measurement
from facecaption_ml.benchmarks.tasks.probes import AttributeProbe, Trained, normed, train_probe
from facecaption_ml.benchmarks.tasks.protocol import (
    VALIDATION_ROWS,
    Measured,
    SplitFeatures,
    over_runs,
    result_of,
    training_views,
)
from facecaption_ml.taxonomy import ATTRIBUTES

FRACTIONS: Final = (0.01, 0.02, 0.10, 0.50, 1.0)
"""Of the training split. Table 3 has 1, 2 or 10 and 100 % for CelebA, 10, 50 and 100 % for LFWA."""
_SUBSET_STREAM: Final = 0x5B5E7
_ONE_CLASS: Final = "one class only in the test split"
Labels = npt.NDArray[np.bool_]


def measure_attributes(
    data: LabelData, cache: FeatureCache, protocol: ProbeProtocol, fractions: Sequence[float] = FRACTIONS
) -> Measured:
    """Mean accuracy and mean average precision over the 40 attributes on the test split, for each share of the training split.

    An attribute with one class only in the test split has no average precision: it is left out of that mean and named.
    Raises FeatureError or ValueError with one line where nothing can be measured.
    """
    train = SplitFeatures.of(cache, data.pictures, data.splits["train"], layers=True, views=training_views(protocol))
    rows = data.splits.get("validation", np.zeros(0, np.int64))[:VALIDATION_ROWS]
    validation = SplitFeatures.of(cache, data.pictures, rows, layers=True) if len(rows) else None
    test = SplitFeatures.of(cache, data.pictures, data.splits["test"], layers=True)
    views = [normed_layers(view).to(protocol.device) for view in train.views]
    held = None
    if validation:
        held = normed_layers(validation.views[0]).to(protocol.device), data.labels[validation.rows]
    asked, truth = normed_layers(test.views[0]).to(protocol.device), data.labels[test.rows]
    labels = data.labels[train.rows]
    undefined = [name for i, name in enumerate(ATTRIBUTES) if truth[:, i].all() or not truth[:, i].any()]
    measured: list[Measurement] = []
    weights: list[npt.NDArray[np.float32]] = []
    for fraction in fractions:
        runs, weights = [], []
        for run in range(protocol.runs):
            chosen = subset(len(labels), fraction, protocol.seed + run)
            probe, _ = train_attribute_probe(views, labels, chosen, held, protocol, run)
            runs.append(scores(probe, asked, truth))
            weights.append(probe.weights.detach().cpu().numpy())
        setting = f"{100 * fraction:g} %"
        measured.append(over_runs(setting, "accuracy", [accuracy for accuracy, _ in runs]))
        measured.append(over_runs(setting, "average precision", [ap for _, ap in runs], _ONE_CLASS))
    from facecaption_ml.benchmarks.tasks.figures import layer_weights

    return Measured(
        result_of(
            "attributes",
            data.source,
            cache.model,
            measurements=measured,
            baselines={"majority class": _majority(labels, truth, fractions)},
            counts={
                "training pictures": len(train.rows),
                "validation pictures": len(validation.rows) if validation else 0,
                "test pictures": len(test.rows),
                "attributes without average precision": len(undefined),
                "did not decode": sum(part.unreadable for part in (train, validation, test) if part),
            },
            protocol=protocol.describe(validation is not None),
            notes=[f"no average precision ({_ONE_CLASS}): {', '.join(undefined)}"] if undefined else [],
        ),
        {"layers.png": layer_weights(cache.model.layer_names, np.stack(weights))},
    )


def train_attribute_probe(
    views: Sequence[Tensor],
    labels: Labels,
    rows: npt.NDArray[np.int64],
    validation: tuple[Tensor, Labels] | None,
    protocol: ProbeProtocol,
    run: int,
) -> tuple[AttributeProbe, Trained]:
    """A probe on ``rows`` of the ``views`` (what ``normed_layers`` gave) and ``labels`` bool [N, 40].

    The epoch is the one with the best mean accuracy on ``validation``; the loss is the mean binary cross-entropy.
    """
    device, seed = views[0].device, protocol.seed + run
    target, chosen = torch.from_numpy(labels).float().to(device), torch.from_numpy(rows)
    probe = AttributeProbe(views[0].shape[1], views[0].shape[2], target.shape[1], seed).to(device)

    def loss_of(batch: Tensor, epoch: int) -> Tensor:
        at = chosen[batch]
        return F.binary_cross_entropy_with_logits(probe(views[epoch % len(views)][at]), target[at])

    def score() -> float:
        assert validation is not None
        return float(((logits(probe, validation[0]) > 0) == validation[1]).mean())

    trained = train_probe(probe, loss_of, len(rows), protocol, seed, score if validation else None)
    return probe, trained


def normed_layers(features: PictureFeatures) -> Tensor:
    """float16 [N, V, W], layer-normed."""
    assert features.layers is not None
    return normed(torch.from_numpy(features.layers))


@torch.inference_mode()
def logits(probe: AttributeProbe, vectors: Tensor) -> npt.NDArray[np.float32]:
    """float32 [N, 40] of layer-normed vectors [N, V, W]."""
    return torch.cat([probe(part) for part in vectors.split(4096)]).cpu().numpy()


def scores(probe: AttributeProbe, vectors: Tensor, truth: Labels) -> tuple[float, float | None]:
    """Mean accuracy at a probability of 0.5, and mean average precision over the attributes that have both classes."""
    values = logits(probe, vectors)
    precisions = [average_precision(values[:, i], truth[:, i]) for i in range(truth.shape[1])]
    defined = [value for value in precisions if not np.isnan(value)]
    return float(((values > 0) == truth).mean()), float(np.mean(defined)) if defined else None


def subset(count: int, fraction: float, seed: int) -> npt.NDArray[np.int64]:
    """The rows of a share of the training split, one at least, sorted; under one seed, smaller shares lie in larger ones."""
    order = np.random.default_rng((_SUBSET_STREAM, seed)).permutation(count)
    return np.sort(order[: max(1, round(fraction * count))])


def _majority(labels: Labels, truth: Labels, fractions: Sequence[float]) -> list[Measurement]:
    """Always the majority of the training split; the average precision of an order by chance is the share of positives."""
    accuracy = float((truth == (labels.mean(axis=0) > 0.5)).mean())
    both = truth.any(axis=0) & ~truth.all(axis=0)
    precision = float(truth.mean(axis=0)[both].mean()) if both.any() else None
    why = "" if both.any() else _ONE_CLASS
    values = (("accuracy", accuracy, ""), ("average precision", precision, why))
    return [
        Measurement(f"{100 * fraction:g} %", metric, value, why=reason)
        for fraction in fractions
        for metric, value, reason in values
    ]
