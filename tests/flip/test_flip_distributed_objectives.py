"""Two real processes with half of a batch each learn exactly what one process learns from the whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import objective_rank

pytestmark = pytest.mark.processes

RANK = Path(objective_rank.__file__)


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """What one process saw."""
    with torch.random.fork_rng():
        return objective_rank.everything(0, 1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes saw; both have ended."""
    folder = tmp_path_factory.mktemp("pair")
    outs = [folder / f"{rank}.pt" for rank in range(2)]
    running = [
        subprocess.Popen(
            [sys.executable, str(RANK), str(rank), "2", str(folder / "rendezvous"), str(out)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            cwd=RANK.parents[2],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, out in enumerate(outs)
    ]
    try:
        for process in running:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    finally:
        for process in running:
            process.kill()
            process.wait()
    return [torch.load(out, weights_only=True) for out in outs]


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].numpy(), value.numpy(), rtol=1e-4, atol=2e-6, err_msg=name)


def test_losses_and_gradients_are_those_of_one_process(alone: dict[str, Any], pair: list[dict[str, Any]]) -> None:
    for seen in pair:
        torch.testing.assert_close(seen["run"]["losses"], alone["run"]["losses"], rtol=1e-5, atol=1e-6)
        for found, expected in zip(seen["run"]["gradients"], alone["run"]["gradients"], strict=True):
            assert_close(found, expected)
            assert all(bool(gradient.any()) for gradient in found.values())


def test_weights_momentum_towers_and_queue_end_alike(alone: dict[str, Any], pair: list[dict[str, Any]]) -> None:
    first, second = (seen["run"]["state"] for seen in pair)
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert_close(first, alone["run"]["state"])
    assert bool(first["queue.valid"].all())
    assert int(first["queue.position"]) == 16  # five batches of 8 in a queue of 24


def test_gathered_tensors_stand_in_the_order_of_the_processes(pair: list[dict[str, Any]]) -> None:
    numbers = [torch.arange(6).reshape(2, 3), torch.arange(10, 16).reshape(2, 3)]
    for seen in pair:
        found = seen["gathered"]
        for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.uint8):
            assert found[str(dtype)].dtype is dtype
            assert torch.equal(found[str(dtype)], torch.cat(numbers).to(dtype))
        assert torch.equal(found["bool"], torch.cat([x % 3 == rank for rank, x in enumerate(numbers)]))
        assert torch.equal(found["transposed"], torch.cat([x.T for x in numbers]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_of_gathered_rows_is_summed_over_the_processes(
    pair: list[dict[str, Any]], dtype: torch.dtype
) -> None:
    weights = torch.arange(1.0, 13.0).reshape(4, 3).to(dtype)
    for rank, seen in enumerate(pair):
        found = seen["gradients"]
        # this process's rows weigh 1 × on the first process and 2 × on the second
        assert torch.equal(found[f"own {dtype}"], 3 * weights[2 * rank : 2 * rank + 2])
        assert torch.equal(found[f"added {dtype}"], (1 + rank) * weights)  # not gathered: only one's own
        assert torch.equal(found["sum"], torch.full((2, 3), 2.0))


def test_alone_a_process_gathers_its_own(alone: dict[str, Any]) -> None:
    assert torch.equal(alone["gathered"]["torch.int64"], torch.arange(6).reshape(2, 3))
    assert torch.equal(alone["gradients"]["own torch.float32"], torch.arange(1.0, 7.0).reshape(2, 3))
