"""Where a model starts: pretrained towers by hub name or folder (the paper: ViT-B and BERT-base), or random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from transformers import AutoTokenizer, BertModel, ViTModel

from facecaption_ml.errors import naming
from facecaption_ml.flip.model.model import FlipModel, text_mode
from facecaption_ml.flip.model.presets import FROM_SCRATCH, Preset
from facecaption_ml.flip.model.tokenization import CaptionTokenizer
from facecaption_ml.pretrained import load_weights

_VIT: Final = "google/vit-base-patch16-224-in21k"
_BERT: Final = "google-bert/bert-base-uncased"
_RANDOM: Final = (FROM_SCRATCH, "")
_OWN: Final = ("crossattention", "mask_token")  # what pretrained towers lack and FLIP trains anew, or does without


def build(preset: Preset, tokenizer: CaptionTokenizer, seed: int, image_init: str, text_init: str) -> FlipModel:
    """A model whose words are the tokenizer's; equal arguments give equal weights, and the caller's random numbers stay.

    ``image_init``, ``text_init``: hub names, folders, or ``none`` or empty for random weights. Raises
    WeightsNotReachable naming the argument where weights cannot be had or are of another shape.
    """
    with _seeded(seed):
        image = None if image_init in _RANDOM else _image_tower(preset, image_init)
        text = None if text_init in _RANDOM else _text_tower(preset, text_init, tokenizer.vocabulary)
        model = FlipModel(preset, tokenizer.vocabulary, image, text)
        if text is not None:  # one more row, for [ENC]
            model.text.resize_token_embeddings(tokenizer.vocabulary, mean_resizing=False)
    return model


def tokenizer_of(preset: Preset, text_init: str, texts: Callable[[], Iterable[str]]) -> CaptionTokenizer:
    """The tokenizer of the weights ``text_init``; without those, one learned from ``texts()``."""
    if text_init in _RANDOM:
        return CaptionTokenizer.trained(texts(), preset.text.vocabulary, preset.text.max_tokens)

    def load(local: bool) -> CaptionTokenizer:
        backend = AutoTokenizer.from_pretrained(text_init, local_files_only=local).backend_tokenizer
        tokenizer = CaptionTokenizer(backend, preset.text.max_tokens)
        if not tokenizer.has_words:  # what a folder without tokenizer files gives
            raise ValueError("it has no vocabulary")
        return tokenizer

    with naming("text_init"):
        return load_weights(load, text_init, _BERT)


def _image_tower(preset: Preset, name: str) -> ViTModel:
    def load(local: bool) -> ViTModel:
        loaded: Any = ViTModel.from_pretrained(
            name, add_pooling_layer=False, attn_implementation="sdpa", **_loading(preset.image.dropout, local)
        )
        tower, report = loaded
        _require_whole(report)
        _require_shape(
            {"image_size": preset.image.size, "patch_size": preset.image.patch, **_widths(preset.image)}, tower.config
        )
        return tower

    with naming("image_init"):
        return load_weights(load, name, _VIT)


def _text_tower(preset: Preset, name: str, vocabulary: int) -> BertModel:
    def load(local: bool) -> BertModel:
        loaded: Any = BertModel.from_pretrained(
            name, add_pooling_layer=False, **text_mode(), **_loading(preset.text.dropout, local)
        )
        tower, report = loaded
        _require_whole(report)
        _require_shape(_widths(preset.text), tower.config)
        if tower.config.max_position_embeddings < preset.text.max_tokens:
            places = tower.config.max_position_embeddings
            raise ValueError(
                f"it takes {places} tokens at most, the preset's captions have up to {preset.text.max_tokens}"
            )
        if tower.config.vocab_size < vocabulary - 1:  # all but [ENC]
            raise ValueError(f"it knows {tower.config.vocab_size} tokens, its tokenizer {vocabulary - 1}")
        return tower

    with naming("text_init"):
        return load_weights(load, name, _BERT)


def _loading(dropout: float, local: bool) -> dict[str, Any]:
    """The preset's dropout, and weights in float32 whatever they were saved in: the optimiser's steps are small."""
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return {**rates, "dtype": torch.float32, "local_files_only": local, "output_loading_info": True}


def _widths(shape: Any) -> dict[str, int]:
    return {
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.mlp_width,
    }


def _require_shape(wanted: dict[str, int], config: Any) -> None:
    for name, value in wanted.items():
        if getattr(config, name) != value:
            raise ValueError(f"its {name} is {getattr(config, name)}, the preset's {value}")


def _require_whole(report: dict[str, Any]) -> None:
    absent = [key for key in report["missing_keys"] if not any(part in key for part in _OWN)]
    if absent:
        raise ValueError(f"it has no weight {sorted(absent)[0]!r}")


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
