"""Small real models for the benchmarks: a FLIP of a few thousand parameters, and ALIGN as save_pretrained writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch

from facecaption_ml.flip import Flip
from facecaption_ml.flip.model.tokenization import CaptionTokenizer
from micro_flip import MICRO, VOCABULARY, micro_model

_WORDS: Final = ["red", "green", "blue", "grey", "hat", "man", "woman", "smiling"]
TEXTS: Final = ["red hat", "green", "a smiling woman", "blue man", "grey hat red man", "woman", "hat", "red red red"]


def micro_flip(seed: int = 0, version: str = "micro", **towers: object) -> Flip:
    """float32 on the CPU; its tokenizer knows eight words and the letters."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = [" ".join(_WORDS)] * 9 + [letters]
    tokenizer = CaptionTokenizer.trained(texts, VOCABULARY, MICRO.text.max_tokens)
    assert tokenizer.vocabulary <= VOCABULARY
    return Flip(micro_model(seed, **towers), tokenizer, {"version": version} if version else {}, "cpu", "fp32")


def random_images(count: int) -> list[np.ndarray]:
    """RGB uint8 of sides that differ."""
    rng = np.random.default_rng(0)
    sides = [tuple(rng.integers(12, 50, 2).tolist()) for _ in range(count)]
    return [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in sides]


def save_align(folder: Path) -> Path:
    """An EfficientNet of one small block and a BERT of two layers."""
    import transformers as hf

    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS, *"abcdefghijklmnopqrstuvwxyz"]
    text = hf.AlignTextConfig(
        vocab_size=len(tokens), hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=24, initializer_range=0.3,
    )  # fmt: skip
    vision = hf.AlignVisionConfig(
        image_size=600, width_coefficient=1.0, depth_coefficient=1.0, kernel_sizes=[3], in_channels=[32],
        out_channels=[16], strides=[1], num_block_repeats=[1], expand_ratios=[1], hidden_dim=16,
        initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    config = hf.AlignConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    hf.AlignModel(config).save_pretrained(folder)
    pixels = hf.EfficientNetImageProcessor(size={"height": 40, "width": 40}, crop_size={"height": 32, "width": 32})
    pixels.do_center_crop = True
    tokenizer = hf.BertTokenizer(vocab={token: at for at, token in enumerate(tokens)})
    hf.AlignProcessor(pixels, tokenizer).save_pretrained(folder)
    return folder
