from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from facecaption_ml.attributes.checkpoints import read_weights, write_weights


@given(spread=st.floats(1e-4, 1e3), seed=st.integers(0, 999))
def test_a_weight_is_off_by_half_a_step_of_its_filter_at_most(spread: float, seed: int, tmp_path_factory) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    generator = torch.Generator().manual_seed(seed)
    filters = torch.randn(16, 32, 3, 3, generator=generator) * spread * torch.rand(16, 1, 1, 1, generator=generator)
    filters[3] = 0
    write_weights(path, {"conv.weight": filters, "conv.bias": torch.zeros(16)}, eight_bits=True)
    found = read_weights(path)
    assert set(found) == {"conv.weight", "conv.bias"}
    step = filters.flatten(1).abs().amax(1).view(-1, 1, 1, 1) / 127
    assert ((found["conv.weight"] - filters).abs() <= step * 0.5001 + 1e-8).all()


def test_eight_bits_take_a_quarter_of_single_precision(tmp_path: Path) -> None:
    state = {"head.weight": torch.randn(128, 512), "scales.count": torch.tensor(3)}
    write_weights(tmp_path / "w", state, eight_bits=True)
    assert (tmp_path / "w").stat().st_size < 128 * 512 * 1.05
    assert load_file(tmp_path / "w")["head.weight"].dtype is torch.int8
    assert read_weights(tmp_path / "w")["scales.count"] == 3


def test_half_precision_stays_what_it_was(tmp_path: Path) -> None:
    state = {"head.weight": torch.randn(128, 512), "head.bias": torch.randn(128)}
    write_weights(tmp_path / "w", state)
    found = read_weights(tmp_path / "w")
    assert all(np.array_equal(found[name].numpy(), state[name].half().float().numpy()) for name in state)
