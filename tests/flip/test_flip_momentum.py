"""The momentum towers: an average of the trained weights that is never trained itself."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from examples import examples
from facecaption_ml.flip.training.momentum import momentum_copy, update_momentum


def tower() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))


@examples(40)
@given(st.integers(0, 1000), st.floats(0, 1), st.integers(1, 6))
def test_the_average_follows_the_formula_and_leaves_the_trained_weights_alone(seed: int, m: float, steps: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    source = tower()
    target = momentum_copy(source)
    expected = {name: p.detach().double().numpy() for name, p in source.named_parameters()}
    for _ in range(steps):
        with torch.no_grad():
            for parameter in source.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        before = {name: p.detach().clone() for name, p in source.named_parameters()}
        update_momentum(source, target, m)
        for name, parameter in source.named_parameters():
            assert torch.equal(parameter, before[name])
            expected[name] = m * expected[name] + (1 - m) * parameter.detach().double().numpy()
    for name, parameter in target.named_parameters():
        np.testing.assert_allclose(parameter.numpy(), expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_buffers_are_copied_whole() -> None:
    source = tower()
    target = momentum_copy(source)
    source(torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))  # the running statistics move
    update_momentum(source, target, 0.995)
    for name, buffer in source.named_buffers():
        assert torch.equal(dict(target.named_buffers())[name], buffer), name
    assert int(target.get_buffer("1.num_batches_tracked")) == 1


def test_a_copy_is_not_trained_and_stays_in_evaluation_mode() -> None:
    source = tower().train()
    target = momentum_copy(source)
    both = nn.ModuleList([source, target]).train()
    assert source.training
    assert not any(module.training for module in target.modules())
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(target(x), target(x))  # no dropout
    assert not any(p.requires_grad for p in target.parameters())
    assert all(p.requires_grad for p in source.parameters())
    assert not target(x).requires_grad
    assert {id(p) for p in source.parameters()}.isdisjoint(id(p) for p in target.parameters())
    assert set(dict(both[1].named_parameters())) == set(dict(source.named_parameters()))


def test_a_copy_of_the_copy_stays_in_evaluation_mode_too() -> None:
    first = momentum_copy(tower())
    second = copy.deepcopy(first)
    assert second.train() is second
    assert not second.training


def test_a_copy_may_lack_parts_of_the_trained_module() -> None:
    source = tower()
    target = momentum_copy(source)
    del target[3]
    with torch.no_grad():
        source.get_parameter("0.weight").fill_(1.0)
    update_momentum(source, target, 0.0)
    assert bool((target.get_parameter("0.weight") == 1).all())


@pytest.mark.parametrize("kind", ["parameter", "buffer"])
def test_what_the_trained_module_lacks_is_named_and_nothing_is_changed(kind: str) -> None:
    source = nn.Linear(2, 2)
    target = momentum_copy(source)
    if kind == "parameter":
        target.register_parameter("extra", nn.Parameter(torch.zeros(1), requires_grad=False))
    else:
        target.register_buffer("extra", torch.zeros(1))
    before = target.weight.clone()
    with torch.no_grad():
        source.weight.add_(1)
    with pytest.raises(ValueError, match=f"{kind} 'extra'"):
        update_momentum(source, target, 0.5)
    assert torch.equal(target.weight, before)
