"""The model: its size, what each mode may see, and that no arrangement of a batch changes a result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from examples import examples
from facecaption_ml.flip.model.model import TEMPERATURE_RANGE, FlipModel, normalised
from facecaption_ml.flip.model.presets import Preset, preset_names
from facecaption_ml.flip.training.task import FlipTask
from micro_flip import CLS, ENC, FIRST_WORD, MICRO, PAD, VOCABULARY, gradients, micro_model, random_pairs

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> FlipModel:
    return micro_model().eval()


def with_enc(ids: Tensor) -> Tensor:
    changed = ids.clone()
    changed[:, 0] = ENC
    return changed


def count_parameters(preset: Preset) -> int:
    with torch.device("meta"):  # shapes without memory
        return FlipModel(preset, preset.text.vocabulary + 1).parameter_count()


# -- size ------------------------------------------------------------------------------------------------------------


def test_base_has_the_papers_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    counts = {name: count_parameters(Preset.named(name)) for name in preset_names()}
    with capsys.disabled():
        print("\nFLIP parameters: " + ", ".join(f"{name} {count / 1e6:.1f}M" for name, count in counts.items()))  # noqa: T201
    assert abs(counts["base"] / 223e6 - 1) < 0.02
    assert counts["base"] > counts["small"] > counts["tiny"]


def test_both_modes_share_all_of_the_text_tower_but_cross_attention() -> None:
    """BERT's own layers are there once; a second text encoder would be another 85M parameters of base."""
    preset = Preset.named("base")
    with torch.device("meta"):
        text = FlipModel(preset, preset.text.vocabulary).text
    crossing = sum(p.numel() for name, p in text.named_parameters() if "crossattention" in name)
    width, layers = preset.text.width, preset.text.layers
    assert crossing == layers * (4 * (width * width + width) + 2 * width)  # four projections and a norm a layer
    assert 108e6 < sum(p.numel() for p in text.parameters()) - crossing < 110e6  # BERT-base without its pooler


@pytest.mark.parametrize("width", [96, 768])
def test_random_weights_spread_features_alike_at_every_width(width: int) -> None:
    """The narrower a tower, the larger its random weights: a sum over fewer of them is as large as at BERT's width."""
    image, text = (dataclasses.replace(shape, width=width, mlp_width=width) for shape in (MICRO.image, MICRO.text))
    model = FlipModel(dataclasses.replace(MICRO, image=image, text=text), VOCABULARY)
    weights = [
        model.text.encoder.layer[0].attention.self.query.weight,
        model.text.encoder.layer[1].crossattention.self.key.weight,
        model.image.layers[0].attention.q_proj.weight,
    ]
    for weight in weights:
        assert weight.std().item() == pytest.approx(0.02 * math.sqrt(768 / width), rel=0.05)


# -- the image tower -------------------------------------------------------------------------------------------------


def test_pictures_become_cls_and_patches(model: FlipModel) -> None:
    tokens = model.image_tokens(random_pairs(3).pixels)
    assert tokens.shape == (3, MICRO.image.tokens, MICRO.image.width) == (3, 5, 16)
    base = Preset.named("base")
    assert (base.image.tokens, base.text.max_tokens, base.projection) == (197, 65, 256)


def test_pixels_are_scaled_to_minus_one_and_one() -> None:
    pixels = torch.tensor([0, 255], dtype=torch.uint8)
    assert normalised(pixels).tolist() == [-1.0, 1.0]
    assert normalised(pixels).dtype is torch.float32


def test_features_are_unit_rows_in_float32(model: FlipModel) -> None:
    pairs = random_pairs(4)
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast), torch.no_grad():
            image = model.image_features(model.image_tokens(pairs.pixels))
            text = model.text_features(model.text_tokens(pairs.ids, pairs.mask))
        for features in (image, text):
            assert features.shape == (4, MICRO.projection)
            assert features.dtype is torch.float32
            torch.testing.assert_close(features.norm(dim=1), torch.ones(4))


# -- what the text tower sees ----------------------------------------------------------------------------------------


def test_every_token_sees_those_after_it_in_both_modes(model: FlipModel) -> None:
    """The tower has cross-attention, which the library gives to decoders; it must not be causal for that."""
    pairs = random_pairs(1)
    mask = torch.ones_like(pairs.mask)
    ids = torch.arange(FIRST_WORD, FIRST_WORD + mask.shape[1])[None]
    last = ids.clone()
    last[0, -1] = VOCABULARY - 1
    picture = model.image_tokens(pairs.pixels)
    unimodal = model.text_tokens(ids, mask), model.text_tokens(last, mask)
    # the tokens of the multimodal mode, before the head takes the first
    seen: list[Tensor] = []
    hook = model.text.register_forward_hook(lambda _module, _given, output: seen.append(output.last_hidden_state))
    for given_ids in (ids, last):
        model.match_logits(given_ids, mask, picture)
    hook.remove()
    for before, after in (unimodal, (seen[0], seen[1])):
        changed = (before - after).abs().amax(-1)[0]
        assert bool((changed > 1e-3).all()), changed


def test_a_token_moved_to_another_place_counts(model: FlipModel) -> None:
    pairs = random_pairs(1)
    mask = torch.ones_like(pairs.mask)
    ids = torch.arange(FIRST_WORD, FIRST_WORD + mask.shape[1])[None]
    swapped = ids[:, [0, 2, 1, *range(3, ids.shape[1])]]
    assert not torch.allclose(model.text_tokens(ids, mask)[:, 0], model.text_tokens(swapped, mask)[:, 0], atol=1e-3)


@pytest.mark.slow
@examples(25)
@given(st.integers(0, 1000), st.integers(0, 4), st.integers(FIRST_WORD, VOCABULARY - 1))
def test_padding_changes_nothing_whatever_stands_in_it(seed: int, more: int, filler: int) -> None:
    model = micro_model().eval()
    pairs = random_pairs(3, seed=seed)
    ids = torch.cat([pairs.ids, torch.full((3, more), PAD)], 1)
    mask = torch.cat([pairs.mask, torch.zeros(3, more, dtype=torch.bool)], 1)
    ids = ids.masked_fill(~mask, filler)
    with torch.no_grad():
        pictures = model.image_tokens(pairs.pixels)
        for row in range(3):
            length = int(pairs.mask[row].sum())
            alone = pairs.ids[row : row + 1, :length], pairs.mask[row : row + 1, :length]
            torch.testing.assert_close(
                model.text_tokens(ids, mask)[row, :length], model.text_tokens(*alone)[0], **CLOSE
            )
            torch.testing.assert_close(
                model.match_logits(ids, mask, pictures)[row],
                model.match_logits(*alone, pictures[row : row + 1])[0],
                **CLOSE,
            )


@examples(25)
@given(st.permutations(range(5)), st.integers(0, 1000))
def test_the_order_of_a_batch_changes_nothing(order: list[int], seed: int) -> None:
    model = micro_model().eval()
    pairs, rows = random_pairs(5, seed=seed), torch.tensor(order)
    other = pairs[rows]
    with torch.no_grad():
        pictures, others = model.image_tokens(pairs.pixels), model.image_tokens(other.pixels)
        torch.testing.assert_close(pictures[rows], others, **CLOSE)
        torch.testing.assert_close(
            model.text_tokens(pairs.ids, pairs.mask)[rows], model.text_tokens(other.ids, other.mask), **CLOSE
        )
        torch.testing.assert_close(
            model.match_logits(with_enc(pairs.ids), pairs.mask, pictures)[rows],
            model.match_logits(with_enc(other.ids), other.mask, others),
            **CLOSE,
        )


# -- the multimodal mode ---------------------------------------------------------------------------------------------


def test_matching_depends_on_the_picture_the_caption_and_enc(model: FlipModel) -> None:
    pairs = random_pairs(2)
    mask = torch.ones_like(pairs.mask)
    ids = with_enc(pairs.ids)
    pictures = model.image_tokens(pairs.pixels)
    logits = model.match_logits(ids, mask, pictures)
    assert logits.shape == (2, 2)
    changes = {
        "picture": model.match_logits(ids, mask, pictures.flip(0)),
        "caption": model.match_logits(ids.flip(0), mask, pictures),
        "first token": model.match_logits(ids.index_fill(1, torch.tensor(0), CLS), mask, pictures),
    }
    for what, changed in changes.items():
        assert not torch.allclose(logits, changed, atol=1e-3), what


@pytest.mark.slow
@examples(25)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=6), st.integers(0, 1000))
def test_image_rows_are_the_same_as_pictures_repeated(rows: list[int], seed: int) -> None:
    model = micro_model()
    captions, pictures = random_pairs(len(rows), seed=seed), random_pairs(3, seed=seed + 1)
    where = torch.tensor(rows)
    found: list[tuple[Tensor, dict[str, Tensor]]] = []
    for by_row in (True, False):
        model.zero_grad()
        tokens = model.image_tokens(pictures.pixels)
        shown = (tokens, where) if by_row else (tokens[where], None)
        logits = model.match_logits(captions.ids, captions.mask, *shown)
        logits.square().sum().backward()
        found.append((logits.detach(), gradients(model)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-4)


def test_the_unimodal_mode_does_not_use_cross_attention(model: FlipModel) -> None:
    pairs = random_pairs(3)
    before = model.text_tokens(pairs.ids, pairs.mask)
    other = micro_model().eval()
    with torch.no_grad():
        for name, parameter in other.text.named_parameters():
            if "crossattention" in name:
                parameter.add_(1.0)
    assert torch.equal(other.text_tokens(pairs.ids, pairs.mask), before)
    pictures = model.image_tokens(pairs.pixels)
    assert not torch.allclose(
        other.match_logits(pairs.ids, pairs.mask, pictures), model.match_logits(pairs.ids, pairs.mask, pictures)
    )


# -- training --------------------------------------------------------------------------------------------------------


def step(model: FlipModel, seed: int = 0) -> Tensor:
    """The total loss of one step, negatives drawn by one seed; the gradient is left in the model."""
    pretraining = FlipTask(model, ENC, queue_size=8, momentum=0.9, seed=seed).train()
    total = pretraining(*random_pairs(4).arguments(), 0.4).total
    total.backward()
    return total.detach()


def test_a_step_reaches_every_parameter() -> None:
    model = micro_model()
    step(model)
    found = gradients(model)
    # a bias of the keys adds the same to every score of a softmax: its gradient is zero whatever the loss
    still = {name for name, gradient in found.items() if not bool(gradient.abs().max() > 1e-7)}
    assert found.keys() == dict(model.named_parameters()).keys()
    assert all("key.bias" in name or "k_proj.bias" in name for name in still), sorted(still)
    # rows that no caption of the batch has
    words = model.text.get_input_embeddings().weight.grad
    assert words is not None
    assert bool(words[ENC].any())
    assert not bool(words[1].any())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_activation_checkpointing_gives_the_same_gradients(dropout: float) -> None:
    found: list[tuple[Tensor, dict[str, Tensor]]] = []
    calls = [0, 0]
    for checkpointing in (False, True):

        def count(*_: object, which: int = int(checkpointing)) -> None:
            calls[which] += 1

        model = micro_model(dropout=dropout)
        layer: nn.Module = model.text.encoder.layer[0].intermediate
        layer.register_forward_pre_hook(count)
        if checkpointing:
            for tower in (model.image, model.text):
                tower.activation_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(1)
        found.append((step(model), gradients(model)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
    # both modes and the momentum tower; both modes again in the backward pass
    assert calls == [3, 3 + 2]


def test_bfloat16_is_near_float32() -> None:
    model = micro_model(spread=0.1).eval()
    pairs = random_pairs(6)
    results: list[list[Tensor]] = []
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast), torch.no_grad():
            pictures = model.image_tokens(pairs.pixels)
            results.append(
                [
                    model.image_features(pictures),
                    model.text_features(model.text_tokens(pairs.ids, pairs.mask)),
                    model.match_logits(with_enc(pairs.ids), pairs.mask, pictures).float(),
                ]
            )
    for single, half in zip(*results, strict=True):
        assert not torch.equal(single, half)
        # bfloat16 has eight bits: two to three digits survive two layers
        torch.testing.assert_close(half, single, rtol=0.05, atol=0.03)


def test_the_temperature_stays_in_albefs_range() -> None:
    model = micro_model()
    for value, kept in ((5.0, 0.5), (1e-9, 0.001), (0.07, 0.07)):
        with torch.no_grad():
            model.log_temperature.fill_(math.log(value))
        model.clamp_temperature()
        assert model.temperature.item() == pytest.approx(kept)
    assert TEMPERATURE_RANGE == (0.001, 0.5)
