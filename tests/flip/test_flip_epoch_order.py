"""The order of an epoch: no pair twice, none lost but the tail, resume at any batch, whatever the sizes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml.flip.errors import PairsError
from facecaption_ml.flip.pairs import epoch_order
from facecaption_ml.flip.pairs.index import PairIndex
from facecaption_ml.storage.store import Store
from pair_stores import index_of

STORE = Store("unused")

groups = st.lists(st.integers(0, 23), min_size=1, max_size=12)
layouts = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 5),
        "epoch": st.integers(0, 50),
        "world_size": st.integers(1, 4),
        "batch_size": st.integers(1, 9),
        "window_row_groups": st.integers(1, 5),
    }
)


def windows(index: PairIndex, layout: dict[str, int], rank: int, first_batch: int = 0) -> list[tuple[np.ndarray, int]]:
    return list(epoch_order.windows(index, **layout, rank=rank, first_batch=first_batch))


def order(index: PairIndex, layout: dict[str, int], rank: int, first_batch: int = 0) -> list[int]:
    """Positions of one process's pairs, as a loader takes them."""
    found = windows(index, layout, rank, first_batch)
    return list(itertools.chain.from_iterable(positions[skipped:].tolist() for positions, skipped in found))


@given(groups, layouts)
@examples(200)
def test_every_pair_comes_at_most_once_and_only_a_tail_is_left_out(sizes: list[int], layout: dict[str, int]) -> None:
    index = index_of(sizes, STORE)
    world = layout["world_size"]
    assume(len(index) >= layout["batch_size"] * world)
    batches = epoch_order.batches_per_epoch(len(index), layout["batch_size"], world)
    shares = [order(index, layout, rank) for rank in range(world)]
    assert [len(share) for share in shares] == [batches * layout["batch_size"]] * world
    seen = list(itertools.chain.from_iterable(shares))
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(len(index)))
    assert len(index) - len(seen) < layout["batch_size"] * world


@given(groups, layouts, st.data())
@examples(200)
def test_from_a_batch_on_come_exactly_the_batches_that_follow(
    sizes: list[int], layout: dict[str, int], data: st.DataObject
) -> None:
    index = index_of(sizes, STORE)
    assume(len(index) >= layout["batch_size"] * layout["world_size"])
    batches = epoch_order.batches_per_epoch(len(index), layout["batch_size"], layout["world_size"])
    rank = data.draw(st.integers(0, layout["world_size"] - 1))
    first = data.draw(st.integers(0, batches + 1))
    assert order(index, layout, rank, first) == order(index, layout, rank)[first * layout["batch_size"] :]
    # whole windows, so that a stand-in for a picture that does not decode is drawn from the same rows
    whole = windows(index, layout, rank)
    later = windows(index, layout, rank, first)
    for (positions, _), (same, _) in zip(whole[len(whole) - len(later) :], later, strict=True):
        np.testing.assert_array_equal(positions, same)
    assert all(skipped == 0 for _, skipped in later[1:])


@given(groups, layouts)
@examples(100)
def test_a_process_meets_a_row_group_in_one_window_only(sizes: list[int], layout: dict[str, int]) -> None:
    index = index_of(sizes, STORE)
    assume(len(index) >= layout["batch_size"] * layout["world_size"])
    for rank in range(layout["world_size"]):
        met = [
            np.unique(np.searchsorted(index.starts, positions, side="right") - 1)
            for positions, _ in windows(index, layout, rank)
        ]
        assert all(len(found) <= layout["window_row_groups"] for found in met)
        together = np.concatenate(met)
        assert len(np.unique(together)) == len(together)


LAYOUT = {"seed": 3, "epoch": 0, "world_size": 2, "batch_size": 8, "window_row_groups": 2}


@pytest.mark.parametrize("sizes", [[100], [30, 30, 40], [7] * 20], ids=["one group", "three", "twenty"])
def test_epochs_differ_in_order_and_in_what_they_leave_out(sizes: Sequence[int]) -> None:
    index = index_of(sizes, STORE)
    left_out, orders = [], []
    for epoch in range(60):
        found = [order(index, LAYOUT | {"epoch": epoch}, rank) for rank in range(2)]
        orders.append(tuple(found[0] + found[1]))
        left_out.append(frozenset(range(len(index))) - set(orders[-1]))
    assert len(set(orders)) == 60
    assert all(left_out)
    # no pair is left out for good, nor always the same ones
    assert len(frozenset.union(*left_out)) > len(index) / 2
    assert not frozenset.intersection(*left_out)


def test_rows_of_a_window_are_mixed_and_seeds_differ() -> None:
    index = index_of([50] * 8, STORE)
    layout = {"seed": 1, "epoch": 0, "world_size": 1, "batch_size": 10, "window_row_groups": 4}
    first, second = (positions for positions, _ in windows(index, layout, 0))
    assert len(first) == len(second) == 200
    # the first quarter of a window holds rows of all its row groups
    assert len(set((first[:50] // 50).tolist())) == 4
    assert order(index, layout, 0) != order(index, layout | {"seed": 2}, 0)


def test_less_than_one_global_batch_is_one_clear_line() -> None:
    with pytest.raises(PairsError, match=r"^31 training pairs.*8 × 4 processes.*batch_size") as caught:
        epoch_order.batches_per_epoch(31, 8, 4)
    assert "\n" not in str(caught.value)
    assert epoch_order.batches_per_epoch(32, 8, 4) == 1
    assert epoch_order.batches_per_epoch(95, 8, 4) == 2
