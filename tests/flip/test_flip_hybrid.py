"""Image towers of form hybrid: a ViT over the maps of a residual network that has learned labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from facecaption_ml.attributes import AttributePredictor
from facecaption_ml.eight_bits import packed, unpacked
from facecaption_ml.flip.model.flops import step_flops
from facecaption_ml.flip.model.initialisation import build, tokenizer_of
from facecaption_ml.flip.model.model import FlipModel, normalised
from facecaption_ml.flip.model.presets import MAP_CHANNELS, MAP_GRID, Preset
from facecaption_ml.photo_flip.faces import read_stem

PHOTOS = Preset.named("photos")


def pictures(count: int = 3) -> torch.Tensor:
    rng = np.random.default_rng(5)
    return torch.from_numpy(rng.integers(256, size=(count, 3, 96, 96), dtype=np.uint8))


def test_maps_of_pictures_go_where_the_pictures_go() -> None:
    """So a training may compute them once."""
    model = FlipModel(PHOTOS, 20).eval()
    with torch.inference_mode():
        maps = model.stem(normalised(pictures()))
        assert tuple(maps.shape) == (3, MAP_CHANNELS, *MAP_GRID)
        assert bool((maps >= 0).all())
        tokens = model.image_tokens(pictures())
        assert torch.equal(model.image_tokens(maps), tokens)
        assert tuple(tokens.shape) == (3, PHOTOS.image.tokens, PHOTOS.image.width) == (3, 31, 128)


def test_the_stem_of_a_predictor_sees_what_its_network_sees() -> None:
    """40 logits of the network ``tiny`` follow from the map's mean alone."""
    stem, version = read_stem("bundled")
    predictor = AttributePredictor.load("bundled")
    assert version == predictor.version
    networks = [one for one in predictor._network.networks if one._mirrored]  # type: ignore[union-attr]
    (tiny,) = networks
    pixels = pictures().float()
    small = torch.nn.functional.interpolate(pixels, (96, 72), mode="bilinear", antialias=True, align_corners=False)
    with torch.inference_mode():
        expected = tiny(tiny.normalised(small))
        found = tiny.head(stem(normalised(pictures())).mean((2, 3)))
    assert torch.allclose(found, expected, atol=1e-3)


def test_a_stem_that_came_in_is_not_trained() -> None:
    for image_init, text_init in (("faces", "bundled"), ("faces", "none")):
        tokenizer = tokenizer_of(PHOTOS, text_init, lambda: ["a smiling woman"])
        model = build(PHOTOS, tokenizer, 0, image_init, text_init)
        assert not any(parameter.requires_grad for parameter in model.stem.parameters())
        assert all(parameter.requires_grad for parameter in model.image.parameters())
    random = build(PHOTOS, tokenizer, 0, "none", "none")
    assert all(parameter.requires_grad for parameter in random.stem.parameters())
    assert not torch.equal(random.stem.trunk[0].weight, model.stem.trunk[0].weight)


def test_the_arithmetic_counts_places_of_the_map() -> None:
    assert step_flops(PHOTOS, 8, 40) > 0
    assert PHOTOS.image.tokens == MAP_GRID[0] * MAP_GRID[1] + 1


def test_weights_at_a_byte_each_are_near_the_weights(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    state = {
        "matrix": torch.randn(80, 64, generator=rng),
        "filters": torch.randn(16, 32, 3, 3, generator=rng),
        "bias": torch.randn(64, generator=rng),
        "count": torch.tensor(3),
    }
    save_file(packed(state), tmp_path / "packed.safetensors")
    found = unpacked(load_file(tmp_path / "packed.safetensors"))
    assert found.keys() == state.keys()
    for name in ("matrix", "filters"):
        steps = state[name].flatten(1).abs().amax(1) / 127
        error = (found[name] - state[name]).flatten(1).abs().amax(1)
        assert bool((error <= 0.51 * steps).all())
    assert torch.allclose(found["bias"], state["bias"], atol=1e-2)
    assert int(found["count"]) == 3
    assert (tmp_path / "packed.safetensors").stat().st_size < 1.25 * sum(
        value.numel() for value in state.values()
    ) + 2000


def test_tensors_that_are_not_packed_come_as_they_are() -> None:
    state = {"weight": torch.randn(4, 4), "other.scale": torch.ones(3)}
    assert all(torch.equal(value, state[name]) for name, value in unpacked(state).items())
    assert unpacked(state).keys() == state.keys()
    with pytest.raises(KeyError):
        unpacked({})["weight"]
