"""Towers from real folders of save_pretrained, and one line that names the setting where they cannot be had."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, BertTokenizer, ViTConfig, ViTModel

from facecaption_ml.flip.model.initialisation import build, tokenizer_of
from facecaption_ml.flip.model.model import FlipModel
from facecaption_ml.flip.model.tokenization import CaptionTokenizer
from facecaption_ml.pretrained import WeightsNotReachable
from micro_flip import MICRO

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "young", "woman", "man", "with", "hat", "smil", "##ing"]
TOWER: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
}  # fmt: skip


def vit(**changed: Any) -> ViTModel:
    return ViTModel(ViTConfig(**{"image_size": 16, "patch_size": 8, **TOWER, **changed}))


def bert(**changed: Any) -> BertModel:
    return BertModel(BertConfig(**{"vocab_size": len(WORDS), "max_position_embeddings": 12, **TOWER, **changed}))


def save_tokenizer(folder: Path) -> None:
    BertTokenizer(vocab={word: at for at, word in enumerate(WORDS)}).save_pretrained(folder)


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``image`` and ``text``: a ViT and a BERT of the micro preset's shape, with their poolers, as the hub's have."""
    folder = tmp_path_factory.mktemp("towers")
    torch.manual_seed(0)
    vit().save_pretrained(folder / "image")
    bert().save_pretrained(folder / "text")
    save_tokenizer(folder / "text")
    return folder


@pytest.fixture
def image(towers: Path) -> str:
    return str(towers / "image")


@pytest.fixture
def text(towers: Path) -> str:
    return str(towers / "text")


@pytest.fixture
def tokenizer(text: str) -> CaptionTokenizer:
    return tokenizer_of(MICRO, text, lambda: [])


def refusal(setting: str, folder: Path | str, tokenizer: CaptionTokenizer) -> str:
    """The one line that a start from ``folder`` ends with; it names the setting and what was tried."""
    names = {"image_init": "", "text_init": "", setting: str(folder)}
    with pytest.raises(WeightsNotReachable) as error:
        build(MICRO, tokenizer, 0, names["image_init"], names["text_init"])
    message = str(error.value)
    assert message.startswith(f"{setting}: ")
    assert repr(str(folder)) in message
    assert "\n" not in message
    return message


# -- weights that are there --------------------------------------------------------------------------------------------


def test_towers_have_the_weights_of_their_folders(image: str, text: str, tokenizer: CaptionTokenizer) -> None:
    model = build(MICRO, tokenizer, 0, image, text)
    for tower, saved in ((model.image, ViTModel.from_pretrained(image)), (model.text, BertModel.from_pretrained(text))):
        found = tower.state_dict()
        expected = {name: value for name, value in saved.state_dict().items() if not name.startswith("pooler.")}
        assert expected.keys() <= found.keys()
        for name, value in expected.items():
            assert torch.equal(found[name][: len(value)], value), name
    words = model.text.get_input_embeddings().weight
    assert len(words) == tokenizer.vocabulary == len(WORDS) + 1  # [ENC]
    assert bool(words[-1].isfinite().all())


def test_a_started_model_is_bidirectional_and_looks_at_pictures(
    image: str, text: str, tokenizer: CaptionTokenizer
) -> None:
    model = build(MICRO, tokenizer, 0, image, text).eval()
    ids = tokenizer(["a young woman with a hat"]).ids
    mask = torch.ones_like(ids, dtype=torch.bool)
    other = ids.clone()
    other[0, -2] = WORDS.index("man")
    assert bool((model.text_tokens(ids, mask) != model.text_tokens(other, mask)).any(2).all())
    pictures = model.image_tokens(torch.randint(256, (2, 3, 16, 16), dtype=torch.uint8))
    both = model.match_logits(ids.repeat(2, 1), mask.repeat(2, 1), pictures)
    assert not torch.equal(both[0], both[1])


def test_the_folders_bert_without_cross_attention_gives_the_same_tokens(text: str, tokenizer: CaptionTokenizer) -> None:
    """Being a decoder with cross-attention changes nothing of the unimodal mode."""
    model = build(MICRO, tokenizer, 0, "", text).eval()
    tokens = tokenizer(["a young woman with a hat", "smiling man"])
    with torch.no_grad():
        plain = BertModel.from_pretrained(text).eval()(tokens.ids, attention_mask=tokens.mask.long())
        torch.testing.assert_close(
            model.text_tokens(tokens.ids, tokens.mask)[tokens.mask],
            plain.last_hidden_state[tokens.mask],
            rtol=1e-4,
            atol=1e-5,
        )


def test_the_tokenizer_is_the_folders(tokenizer: CaptionTokenizer) -> None:
    ids = tokenizer(["A smiling woman"]).ids[0, :6].tolist()
    assert ids == [WORDS.index(word) for word in ("[CLS]", "a", "smil", "##ing", "woman", "[SEP]")]
    assert tokenizer.max_tokens == MICRO.text.max_tokens


def test_weights_saved_in_half_precision_are_trained_in_float32(tmp_path: Path, tokenizer: CaptionTokenizer) -> None:
    vit().half().save_pretrained(tmp_path / "image")
    bert().to(torch.bfloat16).save_pretrained(tmp_path / "text")
    model = build(MICRO, tokenizer, 0, str(tmp_path / "image"), str(tmp_path / "text"))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("pretrained", [True, False])
def test_dropout_is_the_presets(image: str, text: str, tokenizer: CaptionTokenizer, pretrained: bool) -> None:
    for rate in (0.0, 0.25):
        shapes = (dataclasses.replace(shape, dropout=rate) for shape in (MICRO.image, MICRO.text))
        preset = dataclasses.replace(MICRO, **dict(zip(("image", "text"), shapes, strict=True)))
        model = build(preset, tokenizer, 0, image if pretrained else "", text if pretrained else "")
        rates = {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)}
        assert rates == {rate}


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_seed_gives_the_same_model_and_leaves_the_callers_random_numbers(
    image: str, text: str, tokenizer: CaptionTokenizer, pretrained: bool
) -> None:
    names = (image, text) if pretrained else ("", "")
    torch.manual_seed(5)
    state = torch.get_rng_state()
    models: list[FlipModel] = []
    for seed in (1, 1, 2):
        models.append(build(MICRO, tokenizer, seed, *names))
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(5 + seed)  # what the caller draws has no part in it
        state = torch.get_rng_state()
    first, again, other = (model.state_dict() for model in models)
    for name, value in first.items():
        assert torch.equal(value, again[name]), name
    for name in ("match_head.weight", "text.encoder.layer.0.crossattention.self.query.weight"):
        assert not torch.equal(first[name], other[name])


def test_from_scratch_the_vocabulary_is_learned_from_the_texts() -> None:
    tokenizer = tokenizer_of(MICRO, "", lambda: ["a woman", "a man with a hat"])
    model = build(MICRO, tokenizer, 0, "", "")
    assert model.text.get_input_embeddings().num_embeddings == tokenizer.vocabulary <= MICRO.text.vocabulary
    assert int(tokenizer(["a man"]).mask.sum()) <= 6


# -- weights that cannot be had ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tower", "changed", "said"),
    [
        ("image", {"hidden_size": 32}, "its hidden_size is 32, the preset's 16"),
        ("image", {"patch_size": 4}, "its patch_size is 4, the preset's 8"),
        ("image", {"image_size": 24}, "its image_size is 24, the preset's 16"),
        ("text", {"num_hidden_layers": 3}, "its num_hidden_layers is 3, the preset's 2"),
        ("text", {"num_attention_heads": 4}, "its num_attention_heads is 4, the preset's 2"),
        ("text", {"intermediate_size": 64}, "its intermediate_size is 64, the preset's 32"),
        ("text", {"max_position_embeddings": 8}, "it takes 8 tokens at most, the preset's captions have up to 12"),
        ("text", {"vocab_size": 9}, "it knows 9 tokens, its tokenizer 13"),
    ],
)
def test_another_shape_is_named_with_the_presets(
    tmp_path: Path, tokenizer: CaptionTokenizer, tower: str, changed: dict[str, Any], said: str
) -> None:
    (vit if tower == "image" else bert)(**changed).save_pretrained(tmp_path)
    assert said in refusal("image_init" if tower == "image" else "text_init", tmp_path, tokenizer)


@pytest.mark.parametrize(
    ("tower", "gone"),
    [("image", "embeddings.position_embeddings"), ("text", "encoder.layer.1.intermediate.dense.weight")],
)
def test_a_weight_that_is_missing_is_not_made_up(
    towers: Path, tmp_path: Path, tokenizer: CaptionTokenizer, tower: str, gone: str
) -> None:
    folder = tmp_path / tower
    shutil.copytree(towers / tower, folder)
    weights = load_file(folder / "model.safetensors")
    del weights[gone]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    said = refusal("image_init" if tower == "image" else "text_init", folder, tokenizer)
    assert f"it has no weight {gone!r}" in said


def test_a_tower_of_the_other_kind_is_refused(image: str, text: str, tokenizer: CaptionTokenizer) -> None:
    assert "it has no weight" in refusal("image_init", text, tokenizer)
    assert "it has no weight" in refusal("text_init", image, tokenizer)


@pytest.mark.parametrize("setting", ["image_init", "text_init"])
def test_a_broken_or_empty_folder_is_refused(
    towers: Path, tmp_path: Path, tokenizer: CaptionTokenizer, setting: str
) -> None:
    (tmp_path / "empty").mkdir()
    refusal(setting, tmp_path / "empty", tokenizer)
    broken = tmp_path / "broken"
    shutil.copytree(towers / ("image" if setting == "image_init" else "text"), broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    refusal(setting, broken, tokenizer)


@pytest.mark.parametrize("setting", ["image_init", "text_init"])
def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, tokenizer: CaptionTokenizer, setting: str) -> None:
    assert "there is no such folder" in refusal(setting, tmp_path / "absent", tokenizer)


@pytest.mark.parametrize("setting", ["image_init", "text_init"])
def test_a_hub_name_out_of_reach_is_refused(
    monkeypatch: pytest.MonkeyPatch, tokenizer: CaptionTokenizer, setting: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = refusal(setting, "someone/no-such-tower", tokenizer)
    assert "it is not in the local cache, and HF_HUB_OFFLINE is set" in said
    assert "or a hub name such as " in said


def test_a_folder_without_a_vocabulary_has_no_tokenizer(tmp_path: Path) -> None:
    """The library makes one of special tokens only, for which every word is unknown."""
    bert().save_pretrained(tmp_path)
    with pytest.raises(WeightsNotReachable, match=r"^text_init: .*it has no vocabulary") as error:
        tokenizer_of(MICRO, str(tmp_path), lambda: [])
    assert "\n" not in str(error.value)
