"""Probes against slow NumPy in float64: losses, layer norm, combination, rates, seeds, and which epoch is kept."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from examples import examples
from facecaption_ml.benchmarks.options import ProbeProtocol
from facecaption_ml.benchmarks.tasks.probes import (
    AttributeProbe,
    PairProbe,
    contrastive_loss,
    normed,
    train_probe,
)
from facecaption_ml.benchmarks.tasks.protocol import chance_recall, over_runs
from facecaption_ml.errors import FaceCaptionError


def rows_of(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


# -- losses and forward passes ----------------------------------------------------------------------------------------


def slow_contrastive_loss(left: np.ndarray, right: np.ndarray, groups: Sequence[int], scale: float) -> float:
    """Pair by pair: −Σ target · log softmax, the target shared among the rows of a group; both directions."""
    count, total = len(left), 0.0
    for queries, items in ((left, right), (right, left)):
        for i in range(count):
            logits = [scale * float(np.dot(queries[i], items[j])) for j in range(count)]
            top = max(logits)
            log_sum = top + math.log(sum(math.exp(value - top) for value in logits))
            own = [j for j in range(count) if groups[j] == groups[i]]
            total -= sum(logits[j] - log_sum for j in own) / len(own)
    return total / (2 * count)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.floats(0.1, 100.0), st.integers(0, 1000))
@examples(40)
def test_the_contrastive_loss_is_the_slow_one_with_shared_targets(groups: list[int], scale: float, seed: int) -> None:
    left, right = rows_of(seed, len(groups), 5), rows_of(seed + 1, len(groups), 5)
    left, right = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (left, right))
    found = contrastive_loss(
        torch.from_numpy(left).float(), torch.from_numpy(right).float(), torch.tensor(groups), torch.tensor(scale)
    )
    assert float(found) == pytest.approx(slow_contrastive_loss(left, right, groups, scale), rel=1e-4, abs=1e-5)


def test_rows_of_one_group_are_drawn_together_and_others_apart() -> None:
    """Two pictures with the same caption: without groups the loss would push their texts apart."""
    together, apart = torch.eye(3)[[0, 0, 1]], torch.eye(3)
    scale = torch.tensor(10.0)

    def loss(rows: Tensor, groups: list[int]) -> float:
        return float(contrastive_loss(rows, rows, torch.tensor(groups), scale))

    assert loss(together, [0, 0, 1]) == pytest.approx(2 / 3 * math.log(2), abs=1e-3)
    assert loss(together, [0, 0, 1]) < loss(apart, [0, 0, 1])
    assert loss(together, [0, 1, 2]) > loss(apart, [0, 1, 2])


def test_a_pair_probe_projects_norms_and_caps_its_temperature() -> None:
    probe, features = PairProbe(7, 5, seed=3), rows_of(0, 4, 7)
    weight, bias = (p.detach().numpy().astype(np.float64) for p in (probe.image.weight, probe.image.bias))
    wanted = features @ weight.T + bias
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    found = probe.images(torch.from_numpy(features)).detach().numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert found.shape == (4, 256)
    texts, groups = probe.texts(torch.from_numpy(rows_of(1, 4, 5))), [0, 1, 2, 3]
    for log_scale, scale in ((-math.log(0.07), 1 / 0.07), (9.0, 100.0)):
        with torch.no_grad():
            probe.log_scale.fill_(log_scale)
        found_loss = probe.loss(torch.from_numpy(found), texts, torch.tensor(groups)).item()
        slow = slow_contrastive_loss(wanted, texts.detach().numpy().astype(np.float64), groups, scale)
        assert found_loss == pytest.approx(slow, rel=1e-4)


def slow_layer_norm(vectors: np.ndarray) -> np.ndarray:
    found = np.empty_like(vectors, dtype=np.float64)
    for place in np.ndindex(vectors.shape[:-1]):
        own = vectors[place].astype(np.float64)
        found[place] = (own - own.mean()) / math.sqrt(own.var() + 1e-5)
    return found


@pytest.mark.parametrize("rows_at_once", [1, 3, 100])
def test_normed_vectors_have_mean_0_and_variance_1_whatever_is_done_at_once(rows_at_once: int) -> None:
    vectors = (rows_of(0, 7, 3, 20) * 8 + 30).astype(np.float16)
    found = normed(torch.from_numpy(vectors), rows_at_once)
    assert found.dtype == torch.float16
    np.testing.assert_allclose(found.numpy(), slow_layer_norm(vectors), atol=3e-3)
    assert np.isfinite(normed(torch.zeros(2, 1, 4, dtype=torch.float16)).numpy()).all()


def test_an_attribute_probe_combines_its_vectors_and_goes_through_one_layer() -> None:
    probe, vectors = AttributeProbe(3, 6, 4, seed=0), rows_of(2, 5, 3, 6)
    with torch.no_grad():
        probe.weights.copy_(torch.tensor([0.5, -1.0, 2.0]))
    weight, bias = (p.detach().numpy().astype(np.float64) for p in (probe.head.weight, probe.head.bias))
    wanted = (0.5 * vectors[:, 0] - vectors[:, 1] + 2 * vectors[:, 2]) @ weight.T + bias
    np.testing.assert_allclose(probe(torch.from_numpy(vectors)).detach().numpy(), wanted, atol=1e-5)
    assert AttributeProbe(4, 6, 4, seed=0).weights.tolist() == [0.25] * 4, "it starts with their mean"


# -- training -----------------------------------------------------------------------------------------------------------


class Line(nn.Module):
    """w · x + b."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.weight, self.bias = nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(()))

    def forward(self, rows: Tensor) -> Tensor:
        return rows @ self.weight + self.bias


POINTS = torch.from_numpy(rows_of(5, 10, 3)).float()
HEIGHTS = POINTS @ torch.tensor([1.0, -2.0, 0.5]) + 0.25


def loss_of_line(line: Line, seen: list[tuple[int, list[int]]] | None = None) -> Callable[[Tensor, int], Tensor]:
    def loss_of(rows: Tensor, epoch: int) -> Tensor:
        if seen is not None:
            seen.append((epoch, rows.tolist()))
        return F.mse_loss(line(POINTS[rows]), HEIGHTS[rows])

    return loss_of


def quick(epochs: int) -> ProbeProtocol:
    return ProbeProtocol(epochs=epochs, learning_rate=0.1, batch_size=4)


def slow_training(line: Line, protocol: ProbeProtocol, orders: list[tuple[int, list[int]]]) -> tuple[np.ndarray, float]:
    """AdamW (Loshchilov and Hutter, ICLR 2019, Algorithm 2) by hand, its rate a half cosine from the first step to 0."""
    points, heights = POINTS.numpy().astype(np.float64), HEIGHTS.numpy().astype(np.float64)
    w = np.array([*line.weight.tolist(), line.bias.item()], np.float64)
    first, second = np.zeros(4), np.zeros(4)
    for step, (_, rows) in enumerate(orders):
        rate = protocol.learning_rate * 0.5 * (1 + math.cos(math.pi * step / len(orders)))
        x = np.column_stack([points[rows], np.ones(len(rows))])
        gradient = 2 * x.T @ (x @ w - heights[rows]) / len(rows)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        step_size = (first / (1 - 0.9 ** (step + 1))) / (np.sqrt(second / (1 - 0.999 ** (step + 1))) + 1e-8)
        w = w - rate * protocol.weight_decay * w - rate * step_size
    return w, rate


def test_training_is_adamw_with_a_cosine_to_0_worked_by_hand() -> None:
    line, seen = Line(), []
    protocol = quick(25)
    wanted = Line()
    trained = train_probe(line, loss_of_line(line, seen), 10, protocol, 3)
    weights, last_rate = slow_training(wanted, protocol, seen)
    np.testing.assert_allclose([*line.weight.tolist(), line.bias.item()], weights, atol=1e-4)
    assert len(seen) == 25 * 3
    assert last_rate < 0.1 * 5e-4, "the cosine ends at 0 over all steps"
    assert (trained.epoch, trained.validation, len(trained.losses)) == (25, None, 25)
    assert trained.losses[-1] < 0.1 * trained.losses[0]


def test_every_epoch_sees_every_row_once_in_an_order_of_its_own() -> None:
    line, seen = Line(), []
    train_probe(line, loss_of_line(line, seen), 10, quick(4), 1)
    orders = [list(itertools.chain(*(rows for epoch, rows in seen if epoch == number))) for number in range(4)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_the_loss_of_an_epoch_is_the_mean_over_its_rows_not_its_batches() -> None:
    line, kept = Line(), []

    def loss_of(rows: Tensor, epoch: int) -> Tensor:
        kept.append((len(rows), 1.0 + len(kept)))
        return line.bias * 0 + kept[-1][1]

    trained = train_probe(line, loss_of, 10, quick(1), 0)
    assert [size for size, _ in kept] == [4, 4, 2]
    assert trained.losses == [pytest.approx((4 * 1 + 4 * 2 + 2 * 3) / 10)]


def trained_line(seed: int) -> list[float]:
    line = Line()
    train_probe(line, loss_of_line(line), 10, quick(2), seed)
    return [*line.weight.tolist(), line.bias.item()]


def test_equal_seeds_give_equal_weights_and_others_do_not() -> None:
    assert trained_line(1) == trained_line(1) != trained_line(2)
    state = torch.random.get_rng_state()
    pairs = [PairProbe(4, 5, seed).state_dict() for seed in (1, 1, 2)]
    attributes = [AttributeProbe(2, 4, 3, seed).state_dict() for seed in (1, 1, 2)]
    for first, again, other in (pairs, attributes):
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert any(not torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(state, torch.random.get_rng_state()), "who draws elsewhere is not disturbed"


@pytest.mark.parametrize(
    ("scores", "epoch"), [([0.1, 0.9, 0.3], 2), ([0.9, 0.1, 0.3], 1), ([0.1, 0.2, 0.9], 3), ([1.0, 1.0, 1.0], 3)]
)
def test_the_best_validation_epochs_weights_are_kept_of_equals_the_later(scores: list[float], epoch: int) -> None:
    line, after = Line(), []

    def score() -> float:
        after.append({name: value.clone() for name, value in line.state_dict().items()})
        return scores[len(after) - 1]

    trained = train_probe(line, loss_of_line(line), 10, quick(3), 0, score)
    assert (trained.epoch, trained.validation) == (epoch, max(scores))
    assert all(torch.equal(line.state_dict()[name], value) for name, value in after[epoch - 1].items())
    assert not torch.equal(after[0]["weight"], after[1]["weight"])


def test_asking_for_a_score_changes_no_step() -> None:
    plain, scored = Line(), Line()
    train_probe(plain, loss_of_line(plain), 10, quick(3), 0)
    rising = itertools.count()
    train_probe(scored, loss_of_line(scored), 10, quick(3), 0, lambda: float(next(rising)))
    assert torch.equal(plain.weight, scored.weight)


def test_a_loss_that_is_no_number_and_no_rows_are_one_line() -> None:
    line = Line()
    with pytest.raises(
        FaceCaptionError, match=r"^the probe's loss is nan in epoch 1: a lower learning rate is needed$"
    ):
        train_probe(line, lambda rows, epoch: line.bias * math.nan, 10, quick(2), 0)
    with pytest.raises(ValueError, match=r"^a probe needs rows to train on$"):
        train_probe(line, loss_of_line(line), 0, quick(2), 0)


# -- what all tasks share ---------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(0, 2), st.integers(1, 5))
@examples(40)
def test_recall_by_chance_is_that_of_all_orders_of_the_gallery(own: list[int], others: int, k: int) -> None:
    """Every set that the first K places can hold, one by one."""
    gallery = max(own) + others
    if k > gallery:
        return
    hits = []
    for count in own:
        tops = list(itertools.combinations(range(gallery), k))
        hits.append(sum(any(item < count for item in top) for top in tops) / len(tops))
    assert chance_recall(own, gallery, k) == pytest.approx(np.mean(hits))


def test_runs_are_a_mean_with_its_spread_or_a_reason() -> None:
    one, three = over_runs("a", "R@1", [0.5]), over_runs("a", "R@1", [0.1, 0.2, 0.6])
    assert (one.value, one.spread, one.runs) == (0.5, None, 1)
    assert three.value == pytest.approx(0.3)
    assert three.spread == pytest.approx(math.sqrt((0.2**2 + 0.1**2 + 0.3**2) / 2))
    assert three.runs == 3
    missing = over_runs("a", "R@1", [0.1, None], "a gallery of 0")
    assert (missing.value, missing.why, missing.runs) == (None, "a gallery of 0", 2)
