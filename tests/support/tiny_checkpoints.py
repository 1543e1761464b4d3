"""CLIP and BLIP of two tiny random towers each, with real tokenizers, as save_pretrained writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

_TOWER: Final[dict[str, Any]] = {
    "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
_VISION: Final[dict[str, Any]] = {"image_size": 32, "patch_size": 8}
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz.,-"


def save_clip(folder: Path) -> Path:
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
    CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    ).save_pretrained(folder)
    pixels = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    tokenizer = CLIPTokenizer(vocab={token: at for at, token in enumerate(tokens)}, merges=[])
    CLIPProcessor(pixels, tokenizer).save_pretrained(folder)
    return folder


def save_blip(folder: Path) -> Path:
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

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "man", "woman", "person", "smiling", "hat", *_LETTERS]
    tower = {**_TOWER, "initializer_range": 0.3}  # the default is so small that every pair would score alike
    text = BlipTextConfig(
        **tower, encoder_hidden_size=24, vocab_size=len(tokens), max_position_embeddings=24, pad_token_id=0,
        bos_token_id=2, sep_token_id=3, eos_token_id=3,
    )  # fmt: skip
    vision = BlipVisionConfig(**tower, **_VISION)
    torch.manual_seed(0)
    config = BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), image_text_hidden_size=16)
    BlipForImageTextRetrieval(config).save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={token: at for at, token in enumerate(tokens)})
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder
