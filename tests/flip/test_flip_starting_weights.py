"""Starts from weights of other programs: real folders and files of CLIP, BLIP, FLIP's authors and this project, in small.

Each is compared with what its own program computes from the same picture, or with the tensors that went in.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForImageTextRetrieval,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
)

from facecaption_ml.flip.model.files import save_weights
from facecaption_ml.flip.model.initialisation import build, tokenizer_of
from facecaption_ml.flip.model.model import FlipModel
from facecaption_ml.flip.model.tokenization import CaptionTokenizer
from facecaption_ml.flip.model.weight_names import stable_state
from facecaption_ml.pretrained import WeightsNotReachable
from micro_flip import MICRO

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "young", "woman", "man", "with", "hat", "smil", "##ing"]
SHAPE: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
}  # fmt: skip
VISION: dict[str, Any] = {**SHAPE, "image_size": 16, "patch_size": 8}
PIXELS = torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}
CLIP_MEAN, CLIP_DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def clip_pixels(pixels: Tensor) -> Tensor:
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_DEVIATION))
    return (pixels.float() / 255 - mean) / deviation


def spread(model: torch.nn.Module) -> Any:
    """Weights at which every input shows in the output, norms and biases among them."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def save_words(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    BertTokenizer(vocab={word: at for at, word in enumerate(WORDS)}).save_pretrained(folder)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words")
    save_words(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(words: Path) -> CaptionTokenizer:
    return tokenizer_of(MICRO, str(words), lambda: [])


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ``save_pretrained`` with [DEC] and [ENC] behind BERT's words, as the hub's."""
    folder = tmp_path_factory.mktemp("blip")
    text = {**SHAPE, "vocab_size": len(WORDS) + 2, "encoder_hidden_size": 16, "max_position_embeddings": 512}
    config = BlipConfig(
        text_config=text, vision_config={**VISION, "layer_norm_eps": 1e-12}, image_text_hidden_size=8, projection_dim=8
    )
    spread(BlipForImageTextRetrieval(config)).save_pretrained(folder)
    save_words(folder)
    return folder


# -- CLIP ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [False, True], ids=["tower", "both towers"])
def test_a_clip_tower_gives_the_tokens_that_clip_gives(
    tmp_path: Path, tokenizer: CaptionTokenizer, whole: bool
) -> None:
    """Its scaling of pixels, its norm behind the embeddings and its GELU come along."""
    vision = CLIPVisionConfig(**VISION)
    if whole:
        clip = spread(CLIPModel(CLIPConfig(text_config={**SHAPE, "vocab_size": 20}, vision_config=vision.to_dict())))
        reference = clip.vision_model
    else:
        clip = reference = spread(CLIPVisionModel(vision))
    clip.save_pretrained(tmp_path)
    model = build(MICRO, tokenizer, 0, str(tmp_path), "").eval()
    assert model.preset.image.form == "clip"
    with torch.no_grad():
        expected = reference(clip_pixels(PIXELS)).last_hidden_state
        torch.testing.assert_close(model.image_tokens(PIXELS), expected, **CLOSE)


def test_a_model_with_a_clip_tower_comes_back_from_its_file(tmp_path: Path, tokenizer: CaptionTokenizer) -> None:
    spread(CLIPVisionModel(CLIPVisionConfig(**VISION))).save_pretrained(tmp_path / "clip")
    model = build(MICRO, tokenizer, 0, str(tmp_path / "clip"), "").eval()
    folder = saved_checkpoint(model, tokenizer, tmp_path / "flip")
    again = build(MICRO, tokenizer, 1, "", "", str(folder)).eval()
    assert again.preset == model.preset
    with torch.no_grad():
        assert torch.equal(again.image_tokens(PIXELS), model.image_tokens(PIXELS))


# -- BLIP ----------------------------------------------------------------------------------------------------------------


def blip_reference(folder: Path, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Match logits and cosine similarities of BLIP itself."""
    reference = BlipForImageTextRetrieval.from_pretrained(folder).eval()
    pixels = (PIXELS.float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        matching = reference(input_ids=ids, pixel_values=pixels, attention_mask=mask, use_itm_head=True).itm_score
        cosine = reference(input_ids=ids, pixel_values=pixels, attention_mask=mask, use_itm_head=False).itm_score
    return matching, cosine


def test_a_model_that_starts_from_blip_says_what_blip_says(blip: Path, tokenizer: CaptionTokenizer) -> None:
    own = tokenizer_of(MICRO, "", lambda: [], str(blip))
    assert own.vocabulary == len(WORDS) + 1  # [ENC]; BLIP's [DEC] has no use here
    model = build(MICRO, own, 0, "", "", str(blip)).eval()
    texts = ["a young woman with a hat", "a man", "smiling woman"]
    tokens = own(texts)
    # transformers' BLIP leaves [CLS] where its authors put [ENC]
    matching, cosine = blip_reference(blip, tokens.ids, tokens.mask.long())
    with torch.no_grad():
        image = model.image_tokens(PIXELS)
        torch.testing.assert_close(model.match_logits(tokens.ids, tokens.mask, image), matching, **CLOSE)
        text = model.text_features(model.text_tokens(tokens.ids, tokens.mask))
        torch.testing.assert_close(model.image_features(image) @ text.T, cosine, **CLOSE)


def test_the_enc_token_starts_as_the_last_word_of_the_file(blip: Path) -> None:
    own = tokenizer_of(MICRO, "", lambda: [], str(blip))
    rows = build(MICRO, own, 0, "", "", str(blip)).text.get_input_embeddings().weight
    held = load_file(blip / "model.safetensors")["text_encoder.embeddings.word_embeddings.weight"]
    assert torch.equal(rows[own.enc_id], held[len(WORDS) + 1])
    assert torch.equal(rows[: len(WORDS)], held[: len(WORDS)])


def test_towers_may_start_from_blip_one_by_one(blip: Path, tokenizer: CaptionTokenizer) -> None:
    whole = stable_state(build(MICRO, tokenizer, 0, "", "", str(blip)))
    model = stable_state(build(MICRO, tokenizer, 0, str(blip), str(blip)))
    taken = {name for name in whole if torch.equal(whole[name], model[name])}
    towers = {name for name in whole if name.startswith(("image.", "text."))}
    assert towers <= taken
    assert "match_head.weight" not in taken
    only_image = stable_state(build(MICRO, tokenizer, 0, str(blip), ""))
    assert torch.equal(only_image["image.layernorm.weight"], whole["image.layernorm.weight"])
    word = "text.embeddings.word_embeddings.weight"
    assert not torch.equal(only_image[word], whole[word])


# -- files of BLIP's code and of the authors -------------------------------------------------------------------------------


def authors_file(path: Path, words: int, form: str) -> dict[str, Tensor]:
    """A checkpoint as their training scripts write it: the model's tensors under "model", momentum towers and queue too."""
    text = BlipForImageTextRetrieval(
        BlipConfig(
            text_config={**SHAPE, "vocab_size": words, "encoder_hidden_size": 16, "max_position_embeddings": 512},
            vision_config=VISION,
            image_text_hidden_size=8,
            projection_dim=8,
        )
    )
    state = {name: value for name, value in spread(text).state_dict().items() if not name.startswith("vision_model.")}
    if form == "clip":
        vision = CLIPVisionModel(CLIPVisionConfig(**VISION))
        vision.save_pretrained(path.parent / "vision")
        held = load_file(path.parent / "vision" / "model.safetensors")
        held = {name if name.startswith("vision_model.") else f"vision_model.{name}": v for name, v in held.items()}
        state |= {f"visual_encoder.{name}": value for name, value in held.items()}
    else:
        state |= blip_code_names(16, 2)
    state["temp"] = torch.tensor(0.05)
    momentum = {
        re.sub(r"(encoder|proj)\.", r"\1_m.", name, count=1): value + 1
        for name, value in state.items()
        if not name.startswith(("itm_head", "temp"))
    }
    torch.save({"model": {**state, **momentum, "image_queue": torch.zeros(8, 4)}, "epoch": 3}, path)
    return state


def blip_code_names(width: int, layers: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(3)

    def rows(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    state = {
        "visual_encoder.cls_token": rows(1, 1, width),
        "visual_encoder.pos_embed": rows(1, 5, width),
        "visual_encoder.patch_embed.proj.weight": rows(width, 3, 8, 8),
        "visual_encoder.patch_embed.proj.bias": rows(width),
        "visual_encoder.norm.weight": rows(width),
        "visual_encoder.norm.bias": rows(width),
    }
    for layer in range(layers):
        for name, shape in {
            "norm1": (width,), "norm2": (width,), "attn.qkv": (3 * width, width), "attn.proj": (width, width),
            "mlp.fc1": (2 * width, width), "mlp.fc2": (width, 2 * width),
        }.items():  # fmt: skip
            state[f"visual_encoder.blocks.{layer}.{name}.weight"] = rows(*shape)
            state[f"visual_encoder.blocks.{layer}.{name}.bias"] = rows(shape[0])
    return state


@pytest.mark.parametrize("form", ["vit", "clip"])
def test_a_file_of_the_authors_starts_a_whole_model(tmp_path: Path, words: Path, form: str) -> None:
    shutil.copytree(words, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "checkpoint_best.pth"
    held = authors_file(path, len(WORDS) + 2, form)
    tokenizer = tokenizer_of(MICRO, "", lambda: [], str(path))
    model = build(MICRO, tokenizer, 0, "", "", str(path))
    assert model.preset.image.form == form
    state = stable_state(model)
    assert model.temperature.item() == pytest.approx(0.05)
    assert torch.equal(state["match_head.weight"], held["itm_head.weight"])
    assert torch.equal(state["image_projection.weight"], held["vision_proj.weight"])
    crossing = "encoder.layer.1.crossattention.self.query.weight"
    assert torch.equal(state[f"text.{crossing}"], held[f"text_encoder.{crossing}"])
    first = "visual_encoder.blocks.0.attn.qkv.weight"
    if form == "vit":
        query = state["image.encoder.layer.0.attention.attention.query.weight"]
        assert torch.equal(query, held[first][:16])


def test_a_file_without_words_beside_it_takes_the_presets_own(tmp_path: Path, words: Path) -> None:
    path = tmp_path / "flip.pth"
    authors_file(path, len(WORDS) + 2, "vit")
    with pytest.raises(WeightsNotReachable, match=r"^init: .*there is no tokenizer\.json or vocab\.txt beside it"):
        tokenizer_of(MICRO, "", lambda: [], str(path))
    with_words = dataclasses.replace(MICRO, text_init=str(words))
    assert tokenizer_of(with_words, "", lambda: [], str(path)).vocabulary == len(WORDS) + 1


def test_a_file_without_an_enc_token_starts_it_as_cls(tmp_path: Path, tokenizer: CaptionTokenizer) -> None:
    path = tmp_path / "albef.pth"
    authors_file(path, len(WORDS), "vit")
    rows = build(MICRO, tokenizer, 0, "", "", str(path)).text.get_input_embeddings().weight
    assert torch.equal(rows[tokenizer.enc_id], rows[tokenizer.cls_id])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("a word less", "it knows 12 tokens, its tokenizer 13"),
        ("no head", "match_head.bias is missing"),
        ("narrower", r"has the shape \(8,\), the model's is \(16,\)"),
        ("no tower", "it has no image tower under the names of BLIP, CLIP or FLIP's authors"),
        ("no file", "it holds no tensors by name"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(
    tmp_path: Path, tokenizer: CaptionTokenizer, change: str, said: str
) -> None:
    path = tmp_path / "flip.pth"
    state = authors_file(path, len(WORDS) - 1 if change == "a word less" else len(WORDS) + 2, "vit")
    if change == "no head":
        del state["itm_head.bias"]
    elif change == "narrower":
        state["visual_encoder.norm.bias"] = torch.zeros(8)
    elif change == "no tower":
        state = {name: value for name, value in state.items() if not name.startswith("visual_encoder.")}
    torch.save([1] if change == "no file" else state, path)
    with pytest.raises(WeightsNotReachable, match=rf"^init: .*{said}") as error:
        build(MICRO, tokenizer, 0, "", "", str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["weights/flip.pth", "/nowhere/flip.safetensors"])
def test_a_file_that_is_not_there_is_said_to_be_none(tokenizer: CaptionTokenizer, name: str) -> None:
    """Without asking the hub for a model of that name."""
    with pytest.raises(WeightsNotReachable, match=r"^init: .*there is no such file"):
        build(MICRO, tokenizer, 0, "", "", name)


def test_a_file_runs_nothing(tmp_path: Path, tokenizer: CaptionTokenizer) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"model": Payload()}, tmp_path / "flip.pth")
    with pytest.raises(WeightsNotReachable, match=r"^init: "):
        build(MICRO, tokenizer, 0, "", "", str(tmp_path / "flip.pth"))
    assert not (tmp_path / "ran").exists()


# -- FLIP checkpoints ------------------------------------------------------------------------------------------------------


def saved_checkpoint(model: FlipModel, tokenizer: CaptionTokenizer, folder: Path) -> Path:
    folder.mkdir()
    save_weights(stable_state(model), folder / "model.safetensors")
    tokenizer.save(folder)
    (folder / "config.json").write_text(json.dumps({"preset": model.preset.as_dict()}), encoding="utf-8")
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path, tokenizer: CaptionTokenizer) -> Path:
    return saved_checkpoint(build(MICRO, tokenizer, 7, "", ""), tokenizer, tmp_path / "checkpoint")


def test_a_training_may_start_from_a_checkpoint_with_its_words(checkpoint: Path, tokenizer: CaptionTokenizer) -> None:
    own = tokenizer_of(MICRO, "", lambda: [], str(checkpoint))
    assert own.to_json() == tokenizer.to_json()
    found, expected = (
        stable_state(build(MICRO, own, 0, "", "", str(checkpoint))),
        load_file(checkpoint / "model.safetensors"),
    )
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_tower_of_a_checkpoint_comes_alone(checkpoint: Path, tokenizer: CaptionTokenizer) -> None:
    held = load_file(checkpoint / "model.safetensors")
    for tower, other in (("image", "text"), ("text", "image")):
        names = {"image": "", "text": "", tower: str(checkpoint)}
        state = stable_state(build(MICRO, tokenizer, 0, names["image"], names["text"]))
        equal = {name for name in held if torch.equal(state[name], held[name])}
        fresh = {name for name in held if name.startswith(f"{other}.") and name.endswith("query.weight")}
        crossing = {name for name in held if "crossattention" in name}
        assert {name for name in held if name.startswith(f"{tower}.")} - crossing <= equal
        assert not equal & fresh
    assert tokenizer_of(MICRO, str(checkpoint), lambda: []).to_json() == tokenizer.to_json()


def test_a_checkpoint_of_another_shape_is_refused(checkpoint: Path, tokenizer: CaptionTokenizer) -> None:
    wider = dataclasses.replace(MICRO, projection=12)
    with pytest.raises(WeightsNotReachable, match=r"^init: .*image_projection\.bias has the shape"):
        build(wider, tokenizer, 0, "", "", str(checkpoint))


def test_a_checkpoint_from_before_stable_names_starts_a_model(checkpoint: Path, tokenizer: CaptionTokenizer) -> None:
    model = build(MICRO, tokenizer, 7, "", "")
    save_file({name: value.clone() for name, value in model.state_dict().items()}, checkpoint / "model.safetensors")
    again = build(MICRO, tokenizer, 0, "", "", str(checkpoint))
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
