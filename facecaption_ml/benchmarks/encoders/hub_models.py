"""CLIP, BLIP and ALIGN, the baselines of the paper (§5.2), by hub name or folder. Imports no heavy library by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from torch import Tensor

    from facecaption_ml.benchmarks.encoders.models import HubModel


@dataclass(frozen=True)
class HubModelSpec:
    """A baseline: ``title`` names its row in the tables, ``checkpoint`` is the hub name of the paper's.

    ``model_class`` is a class of ``transformers``; the two functions say where it has what the benchmarks want.
    ``has_layers``: whether it has tokens to probe layer by layer.
    """

    title: str
    checkpoint: str
    model_class: str
    image_states: Callable[[Any, Tensor], tuple[Tensor, Any]]
    text_states: Callable[[Any, Any], Tensor]
    has_layers: bool = True


def _clip_vision(model: Any, pixels: Tensor) -> tuple[Tensor, Any]:
    """[CLS] of the last layer, layer-normed, and the states of every layer."""
    states = model.vision_model(pixel_values=pixels, output_hidden_states=True)
    return states.pooler_output, states


def _blip_vision(model: Any, pixels: Tensor) -> tuple[Tensor, Any]:
    """As CLIP's. ``pooler_output`` would be layer-normed twice; BLIP's own projection starts from this."""
    states = model.vision_model(pixel_values=pixels, output_hidden_states=True)
    return states.last_hidden_state[:, 0], states


def _clip_text(model: Any, tokens: Any) -> Tensor:
    """The state at the end-of-text token."""
    return model.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).pooler_output


def _blip_text(model: Any, tokens: Any) -> Tensor:
    """[CLS] of the unimodal text encoder: no picture is looked at."""
    states = model.text_encoder(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    return states.last_hidden_state[:, 0]


def _align_vision(model: Any, pixels: Tensor) -> tuple[Tensor, Any]:
    """The EfficientNet's pooled map: there are no tokens."""
    return model.vision_model(pixel_values=pixels).pooler_output, None


def _align_text(model: Any, tokens: Any) -> Tensor:
    states = model.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    return states.last_hidden_state[:, 0]


HUB_MODELS: Final[Mapping[str, HubModelSpec]] = {
    "clip": HubModelSpec("CLIP", "openai/clip-vit-base-patch16", "CLIPModel", _clip_vision, _clip_text),
    "blip": HubModelSpec(
        "BLIP", "Salesforce/blip-itm-base-coco", "BlipForImageTextRetrieval", _blip_vision, _blip_text
    ),
    # An EfficientNet: nothing to probe layer by layer.
    "align": HubModelSpec("ALIGN", "kakaobrain/align-base", "AlignModel", _align_vision, _align_text, has_layers=False),
}
"""By name, in the order of the tables' rows."""


def load(name: str, checkpoint: str | Path, device: str = "cpu", precision: str = "auto") -> HubModel:
    """The model ``name`` of ``HUB_MODELS`` with the weights of ``checkpoint``, a folder or hub name.

    Raises WeightsNotReachable, in one line, where there are none or they are of another class.
    """
    import torch

    from facecaption_ml.benchmarks.encoders.models import HubModel, layer_names, weights_version
    from facecaption_ml.devices import compute_dtype
    from facecaption_ml.pretrained import load_checkpoint

    spec = HUB_MODELS[name]
    model, processor = load_checkpoint(spec.model_class, checkpoint, spec.checkpoint, device)
    vision, text = model.config.vision_config, model.config.text_config
    dtype = str(compute_dtype(precision, torch.device(device))).removeprefix("torch.")
    pixels = processor.image_processor  # ALIGN's configuration says 600 pixels, but its preprocessing cuts out 289
    return HubModel(
        name=name,
        version=f"{weights_version(model)}-{dtype}",
        side=int((pixels.crop_size if pixels.do_center_crop else pixels.size)["height"]),
        layer_names=layer_names(vision.num_hidden_layers) if spec.has_layers else [],
        model=model,
        processor=processor,
        # A tokenizer without a limit of its own gives a number beyond all sense.
        text_length=min(int(text.max_position_embeddings), int(processor.tokenizer.model_max_length), 512),
        image_states=spec.image_states,
        text_states=spec.text_states,
        precision=precision,
    )
