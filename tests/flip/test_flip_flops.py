"""The arithmetic that MFU counts against what PyTorch counts in a real step."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from facecaption_ml.flip.model.flops import matrix_rate, step_flops
from facecaption_ml.flip.model.model import FlipModel
from facecaption_ml.flip.model.presets import Preset
from facecaption_ml.flip.training import task as pretraining
from micro_flip import ENC

VOCABULARY = 64


def counted(preset: Preset, pairs: int, tokens: int, processes: int = 1) -> int:
    """Operations of the matrix products of one forward and backward pass; the kernel of attention is one that is counted."""
    step = pretraining.FlipTask(FlipModel(preset, VOCABULARY), ENC, queue_size=0, momentum=0.9, seed=0).train()
    size = preset.image.size
    pixels = torch.randint(256, (pairs, 3, size, size), dtype=torch.uint8)
    ids = torch.randint(6, VOCABULARY, (pairs, tokens))
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        step(pixels, ids, torch.ones_like(ids, dtype=torch.bool), torch.arange(pairs), 0.4).total.backward()
    return int(counter.get_total_flops())


@pytest.mark.slow
@pytest.mark.parametrize(("pairs", "tokens"), [(4, 8), (6, 40)])
@pytest.mark.parametrize("preset", ["tiny", "micro"])
def test_a_step_has_the_operations_that_pytorch_counts(preset: str, pairs: int, tokens: int) -> None:
    shape = Preset.named(preset)
    assert step_flops(shape, pairs, tokens) == pytest.approx(counted(shape, pairs, tokens), rel=0.04)


def test_among_processes_keys_and_values_of_negatives_are_computed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process's pictures are here this one's own, once more."""

    def twice(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x])

    shape = Preset.named("tiny")
    alone = step_flops(shape, 4, 16)
    for name, stand_in in {"gather": twice, "gather_with_gradient": twice, "world_size": lambda: 2}.items():
        monkeypatch.setattr(pretraining, name, stand_in)
    among = step_flops(shape, 4, 16, processes=2)
    assert among == step_flops(shape, 4, 16, processes=8) > alone
    assert among == pytest.approx(counted(shape, 4, 16), rel=0.04)


def test_the_papers_step_is_of_the_size_one_expects() -> None:
    """A rough account: 2 × parameters × tokens forward, thrice with backward, a third of it for the momentum towers; ViT-B
    reads 197 tokens, BERT-base 65 once alone and three times with pictures."""
    base = Preset.named("base")
    image, text, crossing = 85e6 * 197, 85e6 * 65, 14e6 * 65 + 14e6 * 197 / 3
    rough = 2 * 80 * (3 * (image + 4 * text + 3 * crossing) + image + text)
    assert step_flops(base, 80, 65) == pytest.approx(rough, rel=0.1)
    assert step_flops(base, 160, 65) == 2 * step_flops(base, 80, 65)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_matrix_rate_is_one_that_a_processor_can_have(dtype: torch.dtype) -> None:
    assert 1e8 < matrix_rate(torch.device("cpu"), dtype) < 1e14
