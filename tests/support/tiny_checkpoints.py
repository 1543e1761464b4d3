"""CLIP and BLIP of two tiny random towers each, with real tokenizers, as save_pretrained writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

_TOWER: Final[dict[str, Any]] = {
    "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
_VISION: Final[dict[str, Any]] = {"image_size": 32, "patch_size": 8}
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz.,-"


def save_clip(folder: Path, spread: float = 1.0) -> Path:
    """``spread`` multiplies the initial weights."""
    import torch
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        CLIPTextConfig,
        CLIPTokenizer,
        CLIPVisionConfig,
    )

    tokens = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS), "<|startoftext|>", "<|endoftext|>"]
    last = len(tokens) - 1
    text = CLIPTextConfig(
        **_TOWER, vocab_size=len(tokens), max_position_embeddings=77, bos_token_id=last - 1, eos_token_id=last,
        pad_token_id=last,
    )  # fmt: skip
    vision = CLIPVisionConfig(**_TOWER, **_VISION)
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16))
    with torch.no_grad():
        for matrix in (parameter for parameter in model.parameters() if parameter.ndim > 1):
            matrix.mul_(spread)
    model.save_pretrained(folder)
    pixels = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    tokenizer = CLIPTokenizer(vocab={token: at for at, token in enumerate(tokens)}, merges=[])
    CLIPProcessor(pixels, tokenizer).save_pretrained(folder)
    return folder


def save_blip(folder: Path, words: Sequence[str] = ("man", "woman", "person", "smiling", "hat")) -> Path:
    """``words`` are those that the tokenizer knows, beside the letters."""
    import torch
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForImageTextRetrieval,
        BlipImageProcessor,
        BlipProcessor,
        BlipTextConfig,
        BlipVisionConfig,
    )

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *_LETTERS]
    vocabulary = {token: at for at, token in enumerate(dict.fromkeys(tokens))}
    tower = {**_TOWER, "initializer_range": 0.3}  # the default is so small that every pair would score alike
    text = BlipTextConfig(
        **tower, encoder_hidden_size=24, vocab_size=len(vocabulary), max_position_embeddings=24, pad_token_id=0,
        bos_token_id=2, sep_token_id=3, eos_token_id=3,
    )  # fmt: skip
    vision = BlipVisionConfig(**tower, **_VISION)
    torch.manual_seed(0)
    config = BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), image_text_hidden_size=16)
    BlipForImageTextRetrieval(config).save_pretrained(folder)
    BlipProcessor(
        BlipImageProcessor(size={"height": 32, "width": 32}), BertTokenizer(vocab=vocabulary)
    ).save_pretrained(folder)
    return folder
