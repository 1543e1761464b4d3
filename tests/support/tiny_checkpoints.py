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
    import transformers as hf

    tokens = [*_LETTERS, *(f"{letter}</w>" for letter in _LETTERS), "<|startoftext|>", "<|endoftext|>"]
    last = len(tokens) - 1
    text = hf.CLIPTextConfig(
        **_TOWER, vocab_size=len(tokens), max_position_embeddings=77, bos_token_id=last - 1, eos_token_id=last,
        pad_token_id=last,
    )  # fmt: skip
    vision = hf.CLIPVisionConfig(**_TOWER, **_VISION)
    torch.manual_seed(0)
    config = hf.CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    hf.CLIPModel(config).save_pretrained(folder)
    pixels = hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    tokenizer = hf.CLIPTokenizer(vocab={token: at for at, token in enumerate(tokens)}, merges=[])
    hf.CLIPProcessor(pixels, tokenizer).save_pretrained(folder)
    return folder


def save_blip(folder: Path) -> Path:
    import torch
    import transformers as hf

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "man", "woman", "person", "smiling", "hat", *_LETTERS]
    tower = {**_TOWER, "initializer_range": 0.3}  # the default is so small that every pair would score alike
    text = hf.BlipTextConfig(
        **tower, encoder_hidden_size=24, vocab_size=len(tokens), max_position_embeddings=24, pad_token_id=0,
        bos_token_id=2, sep_token_id=3, eos_token_id=3,
    )  # fmt: skip
    vision = hf.BlipVisionConfig(**tower, **_VISION)
    torch.manual_seed(0)
    config = hf.BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), image_text_hidden_size=16)
    hf.BlipForImageTextRetrieval(config).save_pretrained(folder)
    tokenizer = hf.BertTokenizer(vocab={token: at for at, token in enumerate(tokens)})
    hf.BlipProcessor(hf.BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder
