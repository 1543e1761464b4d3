"""The queue of features: what it holds after any number of batches, and the sizes it may have."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml.flip.errors import TrainingError
from facecaption_ml.flip.training.momentum import FeatureQueue, check_queue_size

DIM = 3


def pairs(first: int, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pairs number ``first`` and following: their features and captions tell their numbers."""
    numbers = torch.arange(first, first + count)
    image = numbers[:, None].float().expand(-1, DIM)
    return image, -image, numbers + 1000


def held(queue: FeatureQueue) -> list[int]:
    """The numbers of the pairs in the queue; both modalities and the captions must agree about them."""
    view = queue.view()
    numbers = view.caption_ids[view.valid] - 1000
    assert torch.equal(view.image_features[view.valid], numbers[:, None].float().expand(-1, DIM))
    assert torch.equal(view.text_features[view.valid], -numbers[:, None].float().expand(-1, DIM))
    assert bool((view.caption_ids[~view.valid] == -1).all())
    return numbers.tolist()


@examples(150)
@given(st.integers(1, 12), st.data())
def test_the_queue_holds_the_newest_pairs_whatever_the_batches(size: int, data: st.DataObject) -> None:
    queue, seen = FeatureQueue(size, DIM), 0
    for count in data.draw(st.lists(st.integers(0, size), max_size=12)):
        queue.enqueue(*pairs(seen, count))
        seen += count
        assert sorted(held(queue)) == list(range(max(0, seen - size), seen))


def test_with_a_size_that_is_a_multiple_of_the_batch_a_batch_takes_the_place_of_the_oldest() -> None:
    queue = FeatureQueue(6, DIM)
    for number in range(4):
        queue.enqueue(*pairs(2 * number, 2))
    assert held(queue) == [6, 7, 2, 3, 4, 5]


@examples(40)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=8), st.integers(1, 7))
def test_a_queue_goes_on_from_its_saved_state(counts: list[int], cut: int) -> None:
    through, saved, seen = FeatureQueue(5, DIM), FeatureQueue(5, DIM), 0
    for number, count in enumerate(counts):
        if number == cut:
            restored = FeatureQueue(5, DIM)
            restored.load_state_dict(saved.state_dict())
            saved = restored
        through.enqueue(*pairs(seen, count))
        saved.enqueue(*pairs(seen, count))
        seen += count
    for name, value in through.state_dict().items():
        assert torch.equal(value, saved.state_dict()[name]), name


def test_features_of_lower_precision_are_kept_as_float32_and_without_gradient() -> None:
    queue = FeatureQueue(4, DIM)
    image = torch.full((2, DIM), 0.5, dtype=torch.bfloat16, requires_grad=True)
    queue.enqueue(image, image, torch.tensor([1, 2]))
    view = queue.view()
    assert view.image_features.dtype is view.text_features.dtype is torch.float32
    assert not view.image_features.requires_grad
    assert view.image_features[:, 0].tolist() == [0.5, 0.5, 0, 0]


def test_no_queue_takes_batches_and_holds_nothing() -> None:
    queue = FeatureQueue(0, DIM)
    queue.enqueue(*pairs(0, 4))
    view = queue.view()
    assert view.image_features.shape == view.text_features.shape == (0, DIM)
    assert len(view.caption_ids) == len(view.valid) == 0


def test_a_batch_larger_than_the_queue_is_refused_and_changes_nothing() -> None:
    queue = FeatureQueue(4, DIM)
    queue.enqueue(*pairs(0, 2))
    with pytest.raises(ValueError, match="5 rows do not fit a queue of 4"):
        queue.enqueue(*pairs(2, 5))
    assert held(queue) == [0, 1]


@examples(150)
@given(st.integers(0, 70_000), st.integers(1, 1000))
def test_sizes_that_do_not_fit_are_refused_with_sizes_that_do(size: int, global_batch: int) -> None:
    if size % global_batch == 0:
        check_queue_size(size, global_batch)
        return
    with pytest.raises(TrainingError, match="queue_size") as refusal:
        check_queue_size(size, global_batch)
    message = str(refusal.value)
    assert "\n" not in message
    assert f"is {size}," in message
    assert f"of {global_batch} " in message
    below, above = (int(part.split()[0]) for part in message.split(": ")[-1].split(" or "))
    assert below < size < above
    assert above - below == global_batch
    check_queue_size(below, global_batch)
    check_queue_size(above, global_batch)


def test_the_papers_queue_fits_eight_processes_of_eighty() -> None:
    check_queue_size(61_440, 8 * 80)
    with pytest.raises(TrainingError, match=r"is 61440, .* 504 .*: 60984 or 61488 would fit"):
        check_queue_size(61_440, 8 * 63)
    with pytest.raises(TrainingError, match=r"0 \(no queue\) or 640 would fit"):
        check_queue_size(128, 640)
