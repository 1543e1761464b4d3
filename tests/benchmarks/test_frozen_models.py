"""Frozen models: which tokens and layers their features come from, held against the models' own outputs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from facecaption_ml.benchmarks.encoders import hub_models
from facecaption_ml.benchmarks.encoders.models import FlipEncoder, FrozenModel, HubModel, layer_names, probe_layers
from facecaption_ml.pretrained import WeightsNotReachable
from stub_models import TEXTS, micro_flip, random_images, save_align
from tiny_checkpoints import save_blip, save_clip

SAVERS = {"clip": save_clip, "blip": save_blip, "align": save_align}
TOLERANCE = 2e-5  # float32, sums in another order


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {kind: save(root / kind) for kind, save in SAVERS.items()}


@pytest.fixture(scope="module")
def hub(folders: dict[str, Path]) -> dict[str, HubModel]:
    """With layer norms that do something: as they are born, one after the other is the same as one."""
    found = {kind: hub_models.load(kind, folder, precision="fp32") for kind, folder in folders.items()}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for norm in (m for model in found.values() for m in model.model.modules() if isinstance(m, torch.nn.LayerNorm)):
            for parameter in norm.parameters():
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return found


@pytest.fixture(scope="module", params=["flip", "clip", "blip", "align"])
def model(request: pytest.FixtureRequest, hub: dict[str, HubModel]) -> FrozenModel:
    return FlipEncoder(micro_flip(), "flip") if request.param == "flip" else hub[request.param]


# -- which layers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "layers"),
    [(12, [4, 6, 8, 12]), (24, [8, 12, 16, 24]), (6, [2, 3, 4, 6]), (3, [1, 2, 3]), (2, [1, 2]), (1, [1])],
)
def test_the_probe_sees_a_third_half_two_thirds_and_all_of_the_layers(depth: int, layers: list[int]) -> None:
    assert probe_layers(depth) == layers


@given(st.integers(1, 100))
def test_the_last_layer_is_always_seen_and_none_twice(depth: int) -> None:
    layers = probe_layers(depth)
    assert layers == sorted(set(layers))
    assert layers[0] >= 1
    assert layers[-1] == depth
    assert len(layer_names(depth)) == 3 * len(layers)


def outputs_of(layers: torch.nn.ModuleList, run: Callable[[], object]) -> list[np.ndarray]:
    """What each layer gave while ``run`` ran, [N, tokens, width]: the slow way, without the models' own records."""
    found: list[np.ndarray] = []

    def keep(module: torch.nn.Module, given: object, output: object) -> None:
        tokens = output[0] if isinstance(output, tuple) else output
        assert isinstance(tokens, torch.Tensor)
        found.append(tokens.detach().numpy())

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    run()
    for hook in hooks:
        hook.remove()
    return found


def pooled_tokens(tokens: np.ndarray) -> list[np.ndarray]:
    """[CLS], mean and maximum of the patch tokens of each picture, one by one."""
    cls = np.stack([own[0] for own in tokens])
    return [cls, np.stack([own[1:].mean(axis=0) for own in tokens]), np.stack([own[1:].max(axis=0) for own in tokens])]


def test_layer_vectors_of_a_flip_of_twelve_layers_are_those_of_layers_4_6_8_and_the_normed_12() -> None:
    flip = micro_flip(layers=12)
    encoder, images = FlipEncoder(flip, "flip"), random_images(3)
    vit = flip.model.image
    found: list[np.ndarray] = []
    tokens = outputs_of(vit.layers, lambda: found.append(encoder.encode_images(images).layers))
    last = outputs_of(torch.nn.ModuleList([vit.layernorm]), lambda: encoder.encode_images(images))[0]
    wanted = [vector for states in (tokens[3], tokens[5], tokens[7], last) for vector in pooled_tokens(states)]
    np.testing.assert_allclose(found[0], np.stack(wanted, axis=1), atol=TOLERANCE)
    assert list(encoder.layer_names) == [f"layer {n} {p}" for n in (4, 6, 8, 12) for p in ("[CLS]", "mean", "max")]


@pytest.mark.parametrize("kind", ["clip", "blip"])
def test_layer_vectors_of_clip_and_blip_are_those_of_their_own_layers(hub: dict[str, HubModel], kind: str) -> None:
    """Of both layers; BLIP goes on with the last one layer-normed, CLIP norms [CLS] only after it was taken."""
    model, images = hub[kind], random_images(3)
    tower = model.model.vision_model
    found: list[np.ndarray] = []
    tokens = outputs_of(tower.encoder.layers, lambda: found.append(model.encode_images(images).layers))
    with torch.inference_mode():
        last = tower.post_layernorm(torch.from_numpy(tokens[1])).numpy() if kind == "blip" else tokens[1]
    wanted = np.stack([*pooled_tokens(tokens[0]), *pooled_tokens(last)], axis=1)
    np.testing.assert_allclose(found[0], wanted, atol=TOLERANCE)
    assert found[0].std() > 0.1


def test_align_has_no_layers(hub: dict[str, HubModel]) -> None:
    assert hub["align"].encode_images(random_images(2)).layers is None
    assert list(hub["align"].layer_names) == []


# -- features before the projections ----------------------------------------------------------------------------------


def unit(rows: np.ndarray | torch.Tensor) -> np.ndarray:
    values = rows.detach().numpy() if isinstance(rows, torch.Tensor) else rows
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_flips_features_through_its_projections_are_its_own() -> None:
    flip = micro_flip()
    encoder, images = FlipEncoder(flip, "flip"), random_images(4)
    pictures, texts = encoder.encode_images(images).pooled, encoder.encode_texts(TEXTS)
    with torch.inference_mode():
        own_images = unit(flip.model.image_projection(torch.from_numpy(pictures)))
        own_texts = unit(flip.model.text_projection(torch.from_numpy(texts)))
    np.testing.assert_allclose(own_images, flip.encode_images(images), atol=TOLERANCE)
    np.testing.assert_allclose(own_texts, flip.encode_texts(TEXTS), atol=TOLERANCE)


def own_features(model: HubModel, images: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Our features of pictures and texts through the model's projections, then the model's own ones; unit rows."""
    net, pixels = model.model, model.processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
    tokens = model.processor.tokenizer(TEXTS, padding=True, return_tensors="pt")
    pictures = torch.from_numpy(model.encode_images(images).pooled)
    texts = torch.from_numpy(model.encode_texts(TEXTS))
    with torch.inference_mode():
        if model.name == "blip":
            scores = net(**tokens, pixel_values=pixels[:1].repeat(len(TEXTS), 1, 1, 1), use_itm_head=False)
            own_texts = net.text_proj(scores.question_embeds[:, 0])
            own_images = net.vision_proj(net.vision_model(pixel_values=pixels).last_hidden_state[:, 0])
            ours = net.vision_proj(pictures), net.text_proj(texts)
            matrix = unit(ours[0]) @ unit(ours[1]).T  # BLIP's own scores, from our features
            np.testing.assert_allclose(matrix[0], scores.itm_score[0].numpy(), atol=TOLERANCE)
        else:
            own_images = net.get_image_features(pixel_values=pixels).pooler_output
            own_texts = net.get_text_features(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).pooler_output
            projected = net.visual_projection(pictures) if model.name == "clip" else pictures
            ours = projected, net.text_projection(texts)
    return unit(ours[0]), unit(ours[1]), unit(own_images), unit(own_texts)


@pytest.mark.parametrize("kind", ["clip", "blip", "align"])
def test_features_through_a_models_own_projections_are_its_own_features(hub: dict[str, HubModel], kind: str) -> None:
    pictures, texts, own_pictures, own_texts = own_features(hub[kind], random_images(4))
    np.testing.assert_allclose(pictures, own_pictures, atol=TOLERANCE)
    np.testing.assert_allclose(texts, own_texts, atol=TOLERANCE)
    assert np.abs(texts[0] - texts[1]).max() > 0.01


# -- in use ----------------------------------------------------------------------------------------------------------


def test_neither_batch_nor_neighbours_change_a_feature(model: FrozenModel) -> None:
    images = random_images(5)
    together, alone = model.encode_images(images), [model.encode_images([image]) for image in images]
    np.testing.assert_allclose(together.pooled, np.concatenate([one.pooled for one in alone]), atol=TOLERANCE)
    if together.layers is not None:
        np.testing.assert_allclose(together.layers, np.concatenate([one.layers for one in alone]), atol=TOLERANCE)
    texts = np.concatenate([model.encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(model.encode_texts(TEXTS), texts, atol=TOLERANCE)


def test_features_are_float32_and_tell_inputs_apart(model: FrozenModel) -> None:
    features, texts = model.encode_images(random_images(4)), model.encode_texts(TEXTS)
    assert features.pooled.dtype == texts.dtype == np.float32
    assert np.ptp(features.pooled, axis=0).max() > 0.01
    assert len(np.unique(texts.round(4), axis=0)) > 1
    if features.layers is not None:
        assert features.layers.dtype == np.float32
        assert features.layers.shape[:2] == (4, len(model.layer_names))


def test_a_long_text_loses_its_end(model: FrozenModel) -> None:
    long = "red hat " * 60
    np.testing.assert_allclose(*model.encode_texts([long, f"{long} a smiling woman"]), atol=TOLERANCE)


@pytest.mark.parametrize("kind", list(SAVERS))
def test_the_version_names_the_weights_and_the_precision(
    hub: dict[str, HubModel], folders: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    again = hub_models.load(kind, SAVERS[kind](tmp_path / "elsewhere"), precision="fp32")
    assert again.version == hub[kind].version
    rough = hub_models.load(kind, folders[kind], precision="bf16")
    assert rough.version not in ("", hub[kind].version)
    with torch.no_grad():
        next(again.model.parameters()).add_(1e-3)
    again.model.save_pretrained(tmp_path / "elsewhere")
    assert hub_models.load(kind, tmp_path / "elsewhere", precision="fp32").version != hub[kind].version


def test_flips_that_do_not_say_their_version_are_told_apart_by_their_weights() -> None:
    versions = [FlipEncoder(micro_flip(seed, version=""), "flip").version for seed in (0, 0, 1)]
    assert versions[0] == versions[1] != versions[2]
    assert FlipEncoder(micro_flip(), "flip").version == "micro-fp32"


def test_the_side_is_that_of_what_the_model_sees(hub: dict[str, HubModel]) -> None:
    """Not of the configuration, where ALIGN has another number."""
    for model in hub.values():
        pixels = model.processor.image_processor(images=random_images(1), return_tensors="pt")["pixel_values"]
        assert pixels.shape[-2:] == (model.side, model.side)


@pytest.mark.parametrize(("kind", "other"), [("clip", "blip"), ("align", "clip"), ("blip", "align")])
def test_a_checkpoint_of_another_kind_is_refused_in_one_line(folders: dict[str, Path], kind: str, other: str) -> None:
    with pytest.raises(WeightsNotReachable) as refused:
        hub_models.load(kind, folders[other])
    assert str(refused.value).startswith(f"no weights from {str(folders[other])!r}: ")
    assert "\n" not in str(refused.value)
