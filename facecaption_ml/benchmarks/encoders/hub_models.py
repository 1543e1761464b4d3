"""CLIP, BLIP and ALIGN, the baselines of the paper (§5.2), by hub name or folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from facecaption_ml.benchmarks.encoders.models import HubModel, layer_names, weights_version
from facecaption_ml.devices import compute_dtype
from facecaption_ml.pretrained import load_checkpoint


@dataclass(frozen=True)
class _Kind:
    """Where a class of ``transformers`` has what the benchmarks want."""

    model_class: str
    example: str
    image_states: Callable[[Any, Tensor], tuple[Tensor, Any]]
    text_states: Callable[[Any, Any], Tensor]
    has_layers: bool


def _clip_vision(model: Any, pixels: Tensor) -> tuple[Tensor, Any]:
    """[CLS] of the last layer, layer-normed, and the states of every layer."""
    states = model.vision_model(pixel_values=pixels, output_hidden_states=True)
    return states.pooler_output, states


def _blip_vision(model: Any, pixels: Tensor) -> tuple[Tensor, Any]:
    """As CLIP's. ``pooler_output`` would be layer-normed twice; BLIP's own projection goes on from this."""
    states = model.vision_model(pixel_values=pixels, output_hidden_states=True)
    return states.last_hidden_state[:, 0], states


def _clip_text(model: Any, tokens: Any) -> Tensor:
    """The state at the end-of-text token."""
    found = model.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    return found.pooler_output


def _blip_text(model: Any, tokens: Any) -> Tensor:
    """[CLS] of the unimodal text encoder: no picture is looked at."""
    found = model.text_encoder(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    return found.last_hidden_state[:, 0]


def _align_vision(model: Any, pixels: Tensor) -> tuple[Tensor, Any]:
    """The EfficientNet's pooled map: there are no tokens."""
    return model.vision_model(pixel_values=pixels).pooler_output, None


def _align_text(model: Any, tokens: Any) -> Tensor:
    found = model.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    return found.last_hidden_state[:, 0]


_KINDS: Final[Mapping[str, _Kind]] = {
    "clip": _Kind("CLIPModel", "openai/clip-vit-base-patch16", _clip_vision, _clip_text, True),
    "blip": _Kind("BlipForImageTextRetrieval", "Salesforce/blip-itm-base-coco", _blip_vision, _blip_text, True),
    "align": _Kind("AlignModel", "kakaobrain/align-base", _align_vision, _align_text, False),
}
HUB_MODELS: Final = tuple(_KINDS)


def load(kind: str, name: str | Path, setting: str, device: str = "cpu", precision: str = "auto") -> HubModel:
    """The checkpoint ``name`` (folder or hub name) of a ``kind``: clip, blip or align.

    Raises WeightsNotReachable, in one line that names ``setting``, where there is none or it is of another kind.
    """
    known = _KINDS[kind]
    model, processor = load_checkpoint(known.model_class, name, setting, known.example, device)
    vision, text = model.config.vision_config, model.config.text_config
    names = layer_names(vision.num_hidden_layers) if known.has_layers else []
    dtype = str(compute_dtype(precision, torch.device(device))).removeprefix("torch.")
    return HubModel(
        name=kind,
        version=f"{weights_version(model)}-{dtype}",
        side=_side(processor.image_processor),
        layer_names=names,
        model=model,
        processor=processor,
        text_length=min(int(text.max_position_embeddings), _own_length(processor.tokenizer)),
        image_states=known.image_states,
        text_states=known.text_states,
        precision=precision,
    )


def _side(preprocessing: Any) -> int:
    """Of what the preprocessing leaves of a picture: ALIGN's configuration says 600, but its own cuts out 289."""
    return int((preprocessing.crop_size if preprocessing.do_center_crop else preprocessing.size)["height"])


def _own_length(tokenizer: Any) -> int:
    """The tokenizer's limit; without one, transformers gives a number beyond all sense."""
    return min(int(tokenizer.model_max_length), 512)
