"""Where a model starts: pretrained towers by hub name or folder (the paper: ViT-B and BERT-base), or random weights.

A tower may be that of a FLIP checkpoint, a CLIP, a BLIP or a file under BLIP's or the authors' names as well, and a whole
model may start from one of those that have all of it (starting_weights.py). An image tower may be one that comes with the
package (bundled_towers.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AutoTokenizer, BertModel, ViTModel

from facecaption_ml.errors import naming
from facecaption_ml.flip.model.bundled_towers import located, own_folder
from facecaption_ml.flip.model.files import TOKENIZER
from facecaption_ml.flip.model.model import FlipModel, text_mode
from facecaption_ml.flip.model.presets import FROM_SCRATCH, Preset
from facecaption_ml.flip.model.starting_weights import is_checkpoint, is_file, is_foreign, read, with_words
from facecaption_ml.flip.model.tokenization import CaptionTokenizer
from facecaption_ml.flip.model.weight_names import load_stable, stable_state
from facecaption_ml.pretrained import load_weights

_VIT: Final = "google/vit-base-patch16-224-in21k"
_BERT: Final = "google-bert/bert-base-uncased"
_BLIP: Final = "Salesforce/blip-itm-base-coco"
_RANDOM: Final = (FROM_SCRATCH, "")
_HEADS: Final = ("image_projection", "text_projection", "match_head", "log_temperature")
_TOKEN_TYPES: Final = "text.embeddings.token_type_embeddings.weight"
_FEWEST_WORDS: Final = 8  # of a text tower that is thrown away
_OWN: Final = ("crossattention", "mask_token")  # what pretrained towers lack and FLIP trains anew, or does without


def build(
    preset: Preset, tokenizer: CaptionTokenizer, seed: int, image_init: str, text_init: str, init: str = ""
) -> FlipModel:
    """A model whose words are the tokenizer's; equal arguments give equal weights, and the caller's random numbers stay.

    ``image_init``, ``text_init``: hub names, folders or files, or ``none`` or empty for random weights; ``image_init`` also the
    name of a bundled tower. ``init``: a FLIP checkpoint, a BLIP or a file of one, of which everything is taken; the other two
    then have no say. The model's preset is the given one with the form of image tower that came in. A stem that came in is
    not to be trained. Raises WeightsNotReachable naming the argument where weights
    cannot be had or are of another shape.
    """
    with seeded(seed):
        if init not in _RANDOM:
            return _whole_model(preset, tokenizer, init)
        image, stem = None, None
        if image_init not in _RANDOM:
            image, stem, form = _image_tower(preset, image_init)
            preset = _of_form(preset, form)
        text = None if text_init in _RANDOM else _text_tower(preset, text_init, tokenizer)
        model = FlipModel(preset, tokenizer.vocabulary, image, text, stem)
        if model.text.config.vocab_size != tokenizer.vocabulary:  # one more row, for [ENC]
            model.text.resize_token_embeddings(tokenizer.vocabulary, mean_resizing=False)
    return model


def tokenizer_of(
    preset: Preset, text_init: str, texts: Callable[[], Iterable[str]], init: str = ""
) -> CaptionTokenizer:
    """The tokenizer of the weights ``init`` or ``text_init``; without those, one learned from ``texts()``."""
    name, argument = (init, "init") if init not in _RANDOM else (text_init, "text_init")
    if name in _RANDOM:
        return CaptionTokenizer.trained(texts(), preset.text.vocabulary, preset.text.max_tokens)

    def load(local: bool) -> CaptionTokenizer:
        words = _words_of(preset, name, local)
        if words.endswith(TOKENIZER):
            return CaptionTokenizer.from_file(Path(words), preset.text.max_tokens)
        backend = AutoTokenizer.from_pretrained(words, local_files_only=local).backend_tokenizer
        tokenizer = CaptionTokenizer(backend, preset.text.max_tokens)
        if not tokenizer.has_words:  # what a folder without tokenizer files gives
            raise ValueError("it has no vocabulary")
        return tokenizer

    with naming(argument):
        return load_weights(load, name, _BERT, is_file=is_file(name))


def _words_of(preset: Preset, name: str, local: bool) -> str:
    """Where the words of the weights ``name`` are; of a file without any beside it, the preset's own."""
    if not is_file(name) and not is_checkpoint(name):
        return name
    words = read(name, local).tokenizer or preset.text_init
    if not words:
        raise ValueError(f"there is no {TOKENIZER} or vocab.txt beside it")
    return words


def _whole_model(preset: Preset, tokenizer: CaptionTokenizer, name: str) -> FlipModel:
    def load(local: bool) -> FlipModel:
        start = read(name, local)
        model = FlipModel(_of_form(preset, start.form), tokenizer.vocabulary)
        weights = with_words(dict(start.weights), tokenizer.vocabulary, tokenizer.cls_id)
        if _TOKEN_TYPES not in weights:  # BLIP's code has none: every token is of kind 0, which then adds nothing
            weights[_TOKEN_TYPES] = torch.zeros_like(stable_state(model)[_TOKEN_TYPES])
        _put(model, weights, ("log_temperature",))  # which transformers' BLIP leaves out
        model.stem.requires_grad_(False)
        return model

    with naming("init"):
        name = own_folder(name)
        return load_weights(load, name, _BLIP, is_file=is_file(name))


def _put(model: FlipModel, weights: Mapping[str, Tensor], own: Iterable[str] = ()) -> None:
    """All of the model's tensors but those whose names hold one of ``own``, which keep their values."""
    state = stable_state(model)
    kept = {name: value for name, value in state.items() if any(part in name for part in own)}
    load_stable(model, {**kept, **{name: value for name, value in weights.items() if name in state}})


def _of_form(preset: Preset, form: str) -> Preset:
    return replace(preset, image=replace(preset.image, form=form))


def _image_tower(preset: Preset, name: str) -> tuple[ViTModel, torch.nn.Module, str]:
    """The tower, the stem before it and the form of both."""

    def load(local: bool) -> tuple[ViTModel, torch.nn.Module, str]:
        if is_file(name) or is_checkpoint(name) or is_foreign(name, local):
            start = read(name, local)
            model = FlipModel(_of_form(preset, start.form), _FEWEST_WORDS)
            _put(model, start.part("image"), ("text.", *_HEADS))
            return model.image, model.stem.requires_grad_(False), start.form
        loaded: Any = ViTModel.from_pretrained(
            name, add_pooling_layer=False, attn_implementation="sdpa", **_loading(preset.image.dropout, local)
        )
        tower, report = loaded
        _require_whole(report)
        _require_shape(
            {"image_size": preset.image.size, "patch_size": preset.image.patch, **_widths(preset.image)}, tower.config
        )
        return tower, torch.nn.Identity(), "vit"

    with naming("image_init"):
        name = located(name, preset.name)
        return load_weights(load, name, _VIT, is_file=is_file(name))


def _text_tower(preset: Preset, name: str, tokenizer: CaptionTokenizer) -> BertModel:
    vocabulary = tokenizer.vocabulary

    def load(local: bool) -> BertModel:
        if is_file(name) or is_checkpoint(name) or is_foreign(name, local):
            model = FlipModel(preset, vocabulary)
            weights = with_words(read(name, local).part("text"), vocabulary, tokenizer.cls_id)
            weights.setdefault(_TOKEN_TYPES, torch.zeros_like(stable_state(model)[_TOKEN_TYPES]))
            _put(model, weights, ("image.", "stem.", "crossattention", *_HEADS))
            return model.text
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
        name = own_folder(name)
        return load_weights(load, name, _BERT, is_file=is_file(name))


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
def seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
