"""The losses against the formulas in float64 and their finite differences; hard negatives against what must never happen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from examples import examples
from facecaption_ml.flip.training.momentum import FeatureQueue, QueueView
from facecaption_ml.flip.training.objectives import (
    GatheredMomentum,
    ItcLoss,
    batch_similarity,
    draw_hard_negatives,
    itc_loss,
    itm_loss,
    soft_target_alpha,
)

DIM = 4
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """What the contrastive loss is given: B own pairs, which are rows of the G pairs of all processes, and a queue."""

    image: Tensor
    text: Tensor
    everyone: GatheredMomentum
    queue: QueueView
    temperature: Tensor
    alpha: float

    @property
    def own(self) -> slice:
        return slice(self.everyone.offset, self.everyone.offset + len(self.image))

    def loss(self) -> ItcLoss:
        return itc_loss(
            self.image,
            self.text,
            self.everyone.image_features[self.own],
            self.everyone.text_features[self.own],
            self.everyone.caption_ids[self.own],
            self.queue,
            self.temperature,
            self.alpha,
            gathered=self.everyone,
        )


def unit_rows(count: int, generator: torch.Generator) -> Tensor:
    return F.normalize(torch.randn(count, DIM, generator=generator), dim=-1)


def a_step(
    seed: int = 0,
    own: int = 3,
    processes: int = 2,
    filled: int = 4,
    free: int = 2,
    captions: int = 3,
    temperature: float = 0.2,
    alpha: float = 0.4,
) -> Step:
    """A step with random features and ``captions`` different captions. The queue's ``free`` rows look like the ``filled``."""
    g = torch.Generator().manual_seed(seed)
    everyone = GatheredMomentum(
        unit_rows(own * processes, g),
        unit_rows(own * processes, g),
        torch.randint(captions, (own * processes,), generator=g),
        own * int(torch.randint(processes, (), generator=g)),
    )
    rows = filled + free
    queue = QueueView(
        unit_rows(rows, g),
        unit_rows(rows, g),
        torch.randint(captions, (rows,), generator=g),
        torch.arange(rows) < filled,
    )
    image, text = unit_rows(own, g).requires_grad_(), unit_rows(own, g).requires_grad_()
    return Step(image, text, everyone, queue, torch.tensor(temperature, requires_grad=True), alpha)


steps = st.builds(
    a_step,
    seed=st.integers(0, 10_000),
    own=st.integers(1, 4),
    processes=st.integers(1, 3),
    filled=st.integers(0, 5),
    free=st.integers(0, 4),
    captions=st.integers(1, 6),
    temperature=st.floats(0.05, 0.5),
    alpha=st.sampled_from([0.0, 0.1, 0.4, 1.0]),
)


def log_softmax(scores: Array) -> Array:
    return scores - scores.max() - np.log(np.exp(scores - scores.max()).sum())


def double(x: Tensor) -> Array:
    return x.detach().numpy().astype(np.float64)


@dataclass(frozen=True)
class Reference:
    """Equations 1, 2 and 6 of ALBEF in float64, picture by picture; targets are fixed when it is made."""

    texts: Array  # the candidates of pictures: all processes' pairs, then the filled rows of the queue
    images: Array
    image_targets: list[Array]
    text_targets: list[Array]

    @classmethod
    def of(cls, step: Step) -> Reference:
        filled = step.queue.valid.numpy()
        texts = np.concatenate([double(step.everyone.text_features), double(step.queue.text_features)[filled]])
        images = np.concatenate([double(step.everyone.image_features), double(step.queue.image_features)[filled]])
        ids = np.concatenate([step.everyone.caption_ids.numpy(), step.queue.caption_ids.numpy()[filled]])

        def targets(momentum: Array, candidates: Array) -> list[Array]:
            rows = []
            for feature, caption in zip(momentum, step.everyone.caption_ids[step.own].tolist(), strict=True):
                opinion = np.exp(log_softmax(candidates @ feature / step.temperature.item()))
                equal = (ids == caption) / (ids == caption).sum()
                rows.append(step.alpha * opinion + (1 - step.alpha) * equal)
            return rows

        return cls(
            texts,
            images,
            targets(double(step.everyone.image_features[step.own]), texts),
            targets(double(step.everyone.text_features[step.own]), images),
        )

    def directions(self, image: Array, text: Array, temperature: float) -> tuple[float, float]:
        def cross_entropy(own: Array, candidates: Array, targets: list[Array]) -> float:
            terms = [
                -(q * log_softmax(candidates @ row / temperature)).sum() for row, q in zip(own, targets, strict=True)
            ]
            return sum(terms) / len(terms)

        to_text = cross_entropy(image, self.texts, self.image_targets)
        return to_text, cross_entropy(text, self.images, self.text_targets)

    def loss(self, image: Array, text: Array, temperature: float) -> float:
        return sum(self.directions(image, text, temperature)) / 2


def central_differences(f: Callable[[Array], float], at: Array, h: float = 1e-6) -> Array:
    slopes = np.zeros_like(at)
    for where in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[where] = h
        slopes[where] = (f(at + step) - f(at - step)) / (2 * h)
    return slopes


@examples(80)
@given(steps)
def test_contrast_is_what_the_formulas_say(step: Step) -> None:
    found = step.loss()
    to_text, to_image = Reference.of(step).directions(double(step.image), double(step.text), step.temperature.item())
    assert found.image_to_text.item() == pytest.approx(to_text, rel=2e-5, abs=2e-6)
    assert found.text_to_image.item() == pytest.approx(to_image, rel=2e-5, abs=2e-6)
    assert found.loss.item() == pytest.approx((to_text + to_image) / 2, rel=2e-5, abs=2e-6)


@examples(25)
@given(steps)
def test_the_gradient_is_that_of_the_formulas_with_the_targets_held_still(step: Step) -> None:
    reference = Reference.of(step)
    image, text, temperature = double(step.image), double(step.text), step.temperature.item()
    step.loss().loss.backward()
    expected = {
        "image": central_differences(lambda x: reference.loss(x, text, temperature), image),
        "text": central_differences(lambda x: reference.loss(image, x, temperature), text),
        "temperature": central_differences(lambda x: reference.loss(image, text, float(x)), np.array(temperature)),
    }
    for name, slopes in expected.items():
        np.testing.assert_allclose(getattr(step, name).grad.numpy(), slopes, rtol=2e-4, atol=5e-5, err_msg=name)


def test_a_case_worked_by_hand() -> None:
    """Two pairs at right angles: the right candidate scores 1, the other 0. With equal captions both are half right."""
    rows = torch.eye(2, DIM)
    queue = FeatureQueue(0, DIM).view()

    def loss(ids: list[int], alpha: float) -> float:
        return float(itc_loss(rows, rows, rows, rows, torch.tensor(ids), queue, torch.tensor(1.0), alpha).loss)

    assert loss([7, 8], 0) == pytest.approx(math.log(1 + math.exp(-1)))
    assert loss([7, 7], 0) == pytest.approx(math.log(1 + math.e) - 0.5)
    share = math.e / (1 + math.e)  # soft targets alone: the entropy of the momentum towers' opinion
    assert loss([7, 8], 1) == pytest.approx(-share * math.log(share) - (1 - share) * math.log(1 - share))


def test_targets_and_candidates_carry_no_gradient() -> None:
    step = a_step()
    everyone = step.everyone
    image, text = (x[step.own].clone().requires_grad_() for x in (everyone.image_features, everyone.text_features))
    ids = everyone.caption_ids[step.own]
    itc_loss(
        step.image, step.text, image, text, ids, step.queue, step.temperature, 0.4, gathered=everyone
    ).loss.backward()
    assert image.grad is None
    assert text.grad is None
    assert step.image.grad is not None
    assert bool(step.image.grad.any())


def test_rows_of_the_queue_that_are_not_filled_change_nothing() -> None:
    step = a_step(filled=0, free=5)
    without = replace(step, queue=FeatureQueue(0, DIM).view())
    torch.testing.assert_close(without.loss().loss, step.loss().loss, rtol=1e-6, atol=0)  # a product of another shape
    assert not torch.equal(a_step(filled=5, free=0).loss().loss, step.loss().loss)


def test_a_batch_that_enters_the_queue_too_early_stops_the_backward_pass() -> None:
    """The queue is not copied; what must not happen is a wrong gradient without a word."""
    step = a_step(filled=0, free=0)
    queue = FeatureQueue(6, DIM)
    queue.enqueue(*(x[:2] for x in (step.image, step.text, step.everyone.caption_ids)))
    loss = replace(step, queue=queue.view()).loss().loss
    queue.enqueue(torch.ones(2, DIM), torch.ones(2, DIM), torch.arange(2))
    with pytest.raises(RuntimeError, match="inplace"):
        loss.backward()


@pytest.mark.parametrize("temperature", [1e-3, 100.0])
@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_loss_and_gradient_stay_finite_at_the_ends_of_the_temperature(temperature: float, alpha: float) -> None:
    step = a_step(temperature=temperature, alpha=alpha)
    loss = step.loss().loss
    loss.backward()
    reference = Reference.of(step).loss(double(step.image), double(step.text), step.temperature.item())
    assert loss.item() == pytest.approx(reference, rel=1e-4)
    for x in (step.image, step.text, step.temperature):
        assert x.grad is not None
        assert bool(x.grad.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_lower_the_precision(dtype: torch.dtype) -> None:
    plain = a_step().loss()
    with torch.autocast("cpu", dtype=dtype):
        under_autocast = a_step().loss()
    assert under_autocast.loss.dtype is torch.float32
    assert torch.equal(under_autocast.loss, plain.loss)


def test_similarities_for_hard_negatives_are_those_of_the_batch_over_the_temperature() -> None:
    step = a_step(filled=5)
    candidates = step.everyone.text_features
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            found = batch_similarity(step.image, candidates, step.temperature)
        assert not found.requires_grad
        assert found.dtype is torch.float32
        expected = double(step.image) @ double(candidates).T / step.temperature.item()
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)


EXTREMES = [0.0, 1.0, -1.0, 1e-30, 1e4, -1e4, 3e38, -3e38, math.inf, -math.inf, math.nan]


@examples(200)
@given(st.data())
def test_a_hard_negative_never_has_the_same_caption(data: st.DataObject) -> None:
    rows, candidates = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 6))
    value = st.sampled_from(EXTREMES) | st.floats(-1e3, 1e3, width=32)
    similarity = data.draw(st.lists(value, min_size=rows * candidates, max_size=rows * candidates))
    own = data.draw(st.lists(st.integers(0, 2), min_size=rows, max_size=rows))
    others = data.draw(st.lists(st.integers(0, 2), min_size=candidates, max_size=candidates))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    drawn = draw_hard_negatives(
        torch.tensor(similarity).reshape(rows, candidates), torch.tensor(own), torch.tensor(others), generator
    )
    assert drawn.dtype is torch.int64
    assert drawn.shape == (rows,)
    for caption, index in zip(own, drawn.tolist(), strict=True):
        if all(other == caption for other in others):
            assert index == -1
        else:
            assert 0 <= index < candidates
            assert others[index] != caption


@pytest.mark.parametrize("offset", [0.0, 2.0**21, -(2.0**21)])
def test_hard_negatives_follow_the_softmax_over_other_captions(offset: float) -> None:
    scores = np.array([0.0, 1.5, 40.0, -1.0, 0.5, 1.5])
    allowed = np.array([True, True, False, True, True, True])  # the third has the row's own caption
    draws = 40_000
    similarity = torch.tensor(scores + offset, dtype=torch.float32).expand(draws, -1)
    ids = torch.tensor([1, 2, 0, 3, 3, 4])
    drawn = draw_hard_negatives(
        similarity, torch.zeros(draws, dtype=torch.int64), ids, torch.Generator().manual_seed(3)
    )
    expected = np.where(allowed, np.exp(scores - 1.5), 0)
    expected = expected / expected.sum()
    found = np.bincount(drawn.numpy(), minlength=len(scores)) / draws
    # five standard deviations of a share
    np.testing.assert_array_less(np.abs(found - expected), 5 * np.sqrt(expected * (1 - expected) / draws) + 1e-12)


def test_hard_negatives_depend_on_the_seed_alone() -> None:
    similarity, ids = torch.randn(50, 60, generator=torch.Generator().manual_seed(1)), torch.arange(60)
    first, again, other = (
        draw_hard_negatives(similarity, ids[:50], ids, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@examples(60)
@given(st.integers(0, 1000), st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=8))
def test_matching_loss_is_the_mean_cross_entropy_of_the_valid_rows(seed: int, rows: list[tuple[bool, bool]]) -> None:
    logits = torch.randn(len(rows), 2, generator=torch.Generator().manual_seed(seed)).mul(5).requires_grad_()
    matches, valid = (torch.tensor(column) for column in zip(*rows, strict=True))
    loss = itm_loss(logits, matches, valid)
    loss.backward()
    terms = [-log_softmax(x)[int(match)] for x, (match, counts) in zip(double(logits), rows, strict=True) if counts]
    assert loss.item() == pytest.approx(sum(terms) / max(len(terms), 1), rel=1e-5, abs=1e-6)
    assert logits.grad is not None
    assert not bool(logits.grad[~valid].any())
    if not terms:
        assert loss.item() == 0


def test_matching_loss_of_half_precision_logits_is_computed_in_single_precision() -> None:
    logits = torch.tensor([[12.0, -4.0], [3.0, 1.0]], dtype=torch.bfloat16)
    loss = itm_loss(logits, torch.tensor([True, False]), torch.tensor([True, True]))
    assert loss.dtype is torch.float32
    assert loss.item() == pytest.approx((16 + math.log1p(math.exp(-16)) + math.log1p(math.exp(-2))) / 2)


def test_soft_targets_come_in_over_the_first_epochs() -> None:
    ramp = [soft_target_alpha(step, 100, 0.4, 2) for step in (0, 50, 100, 199, 200, 1000)]
    assert ramp == pytest.approx([0, 0.1, 0.2, 0.398, 0.4, 0.4])
    assert soft_target_alpha(25, 100, 0.4, 0.5) == pytest.approx(0.2)
    assert soft_target_alpha(0, 100, 0.4, 0) == 0.4  # no ramp
