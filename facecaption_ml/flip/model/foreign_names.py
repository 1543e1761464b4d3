"""Weights under other programs' names, as FLIP's towers call them: BLIP's and the authors' own files, CLIP's image towers.

Names here are those that ``save_pretrained`` gives a ViT and a BERT (see files.py), under ``image.`` and ``text.``:

- BLIP's and ALBEF's code: ``visual_encoder.blocks.0.attn.qkv``, ``text_encoder.encoder.layer.0``, ``vision_proj``,
  ``itm_head``, ``temp``;
- BLIP in ``transformers``: ``vision_model.encoder.layers.0.self_attn.qkv``, the rest the same;
- FLIP's authors: ``visual_encoder.vision_model.`` and CLIP's names, the rest the same;
- CLIP in ``transformers``: ``vision_model.encoder.layers.0.self_attn.q_proj``, a tower alone without the first word.

A CLIP tower is a ViT with one more layer norm behind its embeddings, another GELU, and pixels scaled by CLIP's mean and
deviation. The last goes into the patch embedding, which is linear and without padding, so that every tower here takes pixels
from -1 to 1. Momentum towers (``…_m``) and queues are not taken over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import torch
from torch import Tensor

_CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
_CLIP_DEVIATION: Final = (0.26862954, 0.26130258, 0.27577711)

_IMAGE: Final = r"(?:visual_encoder\.vision_model\.|visual_encoder\.|vision_model\.|)"  # a CLIP tower alone has none
_BLOCK: Final = rf"{_IMAGE}(?:blocks|encoder\.layers)\.(\d+)\."
_IN_BLOCK: Final = {
    r"(?:norm1|layer_norm1)": "layernorm_before",
    r"(?:norm2|layer_norm2)": "layernorm_after",
    r"mlp\.fc1": "intermediate.dense",
    r"mlp\.fc2": "output.dense",
    r"(?:attn\.proj|self_attn\.(?:projection|out_proj))": "attention.output.dense",
    r"(?:attn|self_attn)\.qkv": "attention.attention.qkv",
    r"self_attn\.q_proj": "attention.attention.query",
    r"self_attn\.k_proj": "attention.attention.key",
    r"self_attn\.v_proj": "attention.attention.value",
}
_ELSEWHERE: Final = {
    rf"{_IMAGE}(?:patch_embed\.proj|embeddings\.patch_embedding)\.": "image.embeddings.patch_embeddings.projection.",
    rf"{_IMAGE}(?:cls_token|embeddings\.class_embedding)$": "image.embeddings.cls_token",
    rf"{_IMAGE}(?:pos_embed|embeddings\.position_embedding(?:\.weight)?)$": "image.embeddings.position_embeddings",
    rf"{_IMAGE}pre_layr?norm\.": "image.embeddings.norm.",
    rf"{_IMAGE}(?:norm|post_layernorm)\.": "image.layernorm.",
    r"text_encoder\.(?=embeddings|encoder)": "text.",
    r"(?:vision_proj|vision_projection)\.": "image_projection.",
    r"text_proj\.": "text_projection.",
    r"itm_head\.": "match_head.",
}
# the first that fits counts
_RULES: Final = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        *((rf"{_BLOCK}{part}\.", rf"image.encoder.layer.\1.{name}.") for part, name in _IN_BLOCK.items()),
        *_ELSEWHERE.items(),
    )
)
_TEMPERATURE: Final = "temp"
_QKV: Final = ".qkv."
# What is there in other programs only: counted positions, other objectives, a classifier on the pooled token.
_LEFT_OUT: Final = re.compile(r"position_ids$|token_type_embeddings|\.pooler\.|pooler\.")
BLIP: Final = "BLIP"
CLIP: Final = "CLIP"


def kind_of(names: Mapping[str, object]) -> str | None:
    """``BLIP`` or ``CLIP`` by the form of the image tower among the names of a file; None where neither is."""
    named = [renamed(name) for name in names]
    if "image.embeddings.cls_token" not in named:
        return None
    return CLIP if "image.embeddings.norm.weight" in named else BLIP


def renamed(name: str) -> str | None:
    """The name here of a tensor of such a file; None for what has no counterpart. ``….qkv.…`` stands for three."""
    if _LEFT_OUT.search(name):
        return None
    for pattern, own in _RULES:
        found = pattern.match(name)
        if found:
            return found.expand(own) + name[found.end() :]
    return None


def translated(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that FLIP has, by its names, float32. Other tensors are left out; none is made up.

    Queries, keys and values that lie in one matrix are parted, the temperature becomes its logarithm, a CLIP tower's patch
    embedding takes pixels from -1 to 1. Raises ValueError where the file has no image tower of a known form.
    """
    kind = kind_of(weights)
    if kind is None:
        raise ValueError("it has no image tower under the names of BLIP, CLIP or FLIP's authors")
    own = {name: value for given, tensor in weights.items() for name, value in _parted(given, tensor)}
    for name in ("image.embeddings.cls_token", "image.embeddings.position_embeddings"):
        width = own[name].shape[-1]
        own[name] = own[name].reshape(1, -1, width)
    if kind == CLIP:
        _take_own_pixels(own)
    return own


def _parted(given: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    if given == _TEMPERATURE:
        yield "log_temperature", tensor.float().log().reshape(())
        return
    name = renamed(given)
    if name is None:
        return
    if _QKV not in name:
        yield name, tensor.float()
        return
    for part, value in zip(("query", "key", "value"), tensor.float().chunk(3), strict=True):
        yield name.replace(_QKV, f".{part}."), value.contiguous()


def _take_own_pixels(own: dict[str, Tensor]) -> None:
    """Fold CLIP's scaling of pixels into the patch embedding: with y = 2p − 1, (p − m) / s = y / 2s + (1/2 − m) / s."""
    name = "image.embeddings.patch_embeddings.projection"
    weight = own[f"{name}.weight"].double()
    mean, deviation = (
        torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (_CLIP_MEAN, _CLIP_DEVIATION)
    )
    shift = (weight * ((0.5 - mean) / deviation)).sum((1, 2, 3))
    before = own.get(f"{name}.bias")
    own[f"{name}.weight"] = (weight * (0.5 / deviation)).float()
    own[f"{name}.bias"] = (shift if before is None else shift + before.double()).float()
