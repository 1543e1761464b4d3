"""Small random chat models, and faces to ask them about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from facecaption_ml.taxonomy import Gender

TEMPLATE = (
    "{% for message in messages %}<s>{{ message.role }}\n{{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
FACES: list[tuple[list[str], Gender | None]] = [
    (["Young", "Wavy_Hair"], "female"),
    (["Male", "Eyeglasses", "Black_Hair"], "male"),
    (["Smiling"], None),
    (["Blond_Hair", "Wearing_Lipstick", "High_Cheekbones"], "female"),
    (["Male", "Bald", "Mustache"], "male"),
    (["Oval_Face"], None),
]


def tiny(kind: str, seed: int = 0) -> Any:
    """A random model of 2 layers with 4 query heads and 2 key/value heads, over bytes."""
    import transformers

    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=258,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.3,
        bos_token_id=256,
        eos_token_id=257,
        pad_token_id=257,
    )
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


def save_tiny(folder: Path, chat_template: str | None = TEMPLATE, seed: int = 0) -> Path:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(letters)} | {"<s>": 256, "</s>": 257}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = chat_template
    fast.save_pretrained(folder)
    tiny("Llama", seed).save_pretrained(folder)
    return folder
