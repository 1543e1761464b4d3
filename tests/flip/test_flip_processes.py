"""FLIP's whole pre-training step on two real processes with half of a batch each: that of one process with all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pretraining_rank

pytestmark = pytest.mark.processes

RANK = Path(pretraining_rank.__file__)
CASES = (5, 1)  # captions among the eight pairs of a step
Seen = dict[Any, dict[str, Any]]


@pytest.fixture(scope="module")
def alone() -> Seen:
    """One process with the whole batch: this one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return pretraining_rank.seen(0, 1)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Seen]:
    """What each of two processes saw; both have ended."""
    folder = tmp_path_factory.mktemp("pretraining")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    outs = [folder / f"{rank}.pt" for rank in range(2)]
    running = [
        subprocess.Popen(
            [sys.executable, str(RANK), str(rank), "2", str(folder / "rendezvous"), str(out)],
            env=environment,
            cwd=RANK.parents[2],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, out in enumerate(outs)
    ]
    try:
        for process in running:
            _, errors = process.communicate(timeout=200)
            assert process.returncode == 0, errors
    finally:
        for process in running:
            process.kill()
            process.wait()
    return [torch.load(out, weights_only=True) for out in outs]


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-3, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients_are_those_of_one_process(alone: Seen, pair: list[Seen], case: int) -> None:
    for seen in (process[case] for process in pair):
        torch.testing.assert_close(seen["losses"], alone[case]["losses"], rtol=1e-4, atol=1e-5)
        for found, expected in zip(seen["gradients"], alone[case]["gradients"], strict=True):
            assert_close(found, expected)
            assert bool(found["model.image_projection.weight"].any())
            assert bool(found["model.match_head.weight"].any())


@pytest.mark.parametrize("case", CASES)
def test_weights_momentum_towers_and_queue_end_alike(alone: Seen, pair: list[Seen], case: int) -> None:
    first, second = (seen[case]["state"] for seen in pair)
    assert_close(first, alone[case]["state"])
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert bool(first["queue.valid"].all())
    assert int(first["queue.position"]) == 0  # four batches of 8 in a queue of 16
    expected = [row % case for row in range(8)]
    assert first["queue.caption_ids"].tolist() == 2 * expected


def test_with_one_caption_for_all_no_pair_has_a_negative(alone: Seen, pair: list[Seen]) -> None:
    for seen in (alone, *pair):
        assert int(seen[1]["without negative"]) == 2 * 8  # captions and pictures
        assert int(seen[5]["without negative"]) == 0


def test_each_process_draws_its_own_negatives(alone: Seen, pair: list[Seen]) -> None:
    assert pair[0][5]["random"] == alone[5]["random"]
    assert pair[0][5]["random"] != pair[1][5]["random"]


def test_gathered_tensors_stand_in_the_order_of_the_processes(pair: list[Seen]) -> None:
    numbers = [torch.arange(6).reshape(2, 3), torch.arange(10, 16).reshape(2, 3)]
    for seen in pair:
        found = seen["gathered"]
        for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.uint8):
            assert found[str(dtype)].dtype is dtype
            assert torch.equal(found[str(dtype)], torch.cat(numbers).to(dtype))
        assert torch.equal(found["bool"], torch.cat([x % 3 == rank for rank, x in enumerate(numbers)]))
        assert torch.equal(found["transposed"], torch.cat([x.T for x in numbers]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_of_gathered_rows_is_summed_over_the_processes(pair: list[Seen], dtype: torch.dtype) -> None:
    weights = torch.arange(1.0, 13.0).reshape(4, 3).to(dtype)
    for rank, seen in enumerate(pair):
        found = seen["gradients"]
        # this process's rows weigh 1 × on the first process and 2 × on the second
        assert torch.equal(found[f"own {dtype}"], 3 * weights[2 * rank : 2 * rank + 2])
        assert torch.equal(found[f"added {dtype}"], (1 + rank) * weights)  # not gathered: only one's own
        assert torch.equal(found["sum"], torch.full((2, 3), 2.0))


def test_alone_a_process_gathers_its_own(alone: Seen) -> None:
    assert torch.equal(alone["gathered"]["torch.int64"], torch.arange(6).reshape(2, 3))
    assert torch.equal(alone["gradients"]["own torch.float32"], torch.arange(1.0, 7.0).reshape(2, 3))
