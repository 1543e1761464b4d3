"""FLIP (paper §5.1, Figure 6a): a ViT, a BERT with a multimodal mode, two projections and a matching head.

The towers are those of ``transformers``. One BERT serves as unimodal text encoder and, with cross-attention to the picture's
tokens between self-attention and feed-forward, as image-grounded text encoder whose first token is [ENC]; the two modes
share every parameter but cross-attention's (spec §3; the form of BLIP, Li et al., ICML 2022).
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertModel, ViTConfig, ViTModel

from facecaption_ml.flip.model import attention
from facecaption_ml.flip.model.presets import MAP_CHANNELS, MAP_GRID, Preset
from facecaption_ml.flip.model.stem import ResidualStem

TEMPERATURE_RANGE: Final = (0.001, 0.5)
"""Where the learned temperature is kept (ALBEF's public code)."""
_PIXEL_MEAN: Final = 0.5  # ViT's own normalisation: pixels to -1 … 1
_PIXEL_SCALE: Final = 0.5
_RANGE_WIDTH: Final = 768
_CLIP_EPS: Final = 1e-5


class FlipModel(nn.Module):
    """The model of a preset with random weights; ``towers`` brings pretrained ones in (see initialisation.py).

    Pictures are uint8 [B, 3, S, S] RGB, token ids int64 [B, L], masks bool [B, L] (true: a token, false: padding).
    """

    def __init__(
        self,
        preset: Preset,
        vocabulary: int,
        image: ViTModel | None = None,
        text: BertModel | None = None,
        stem: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.preset = preset
        self.stem: nn.Module = stem or (ResidualStem() if preset.image.form == "hybrid" else nn.Identity())
        self.image = image if image is not None else image_tower(preset)
        self.text = text if text is not None else BertModel(bert_config(preset, vocabulary), add_pooling_layer=False)
        self.image_projection = nn.Linear(preset.image.width, preset.projection)
        self.text_projection = nn.Linear(preset.text.width, preset.projection)
        self.match_head = nn.Linear(preset.text.width, 2)
        # its logarithm is learned, as CLIP does (Radford et al., ICML 2021, §2.3): a step changes it by a share of itself
        self.log_temperature = nn.Parameter(torch.tensor(math.log(preset.temperature)))

    def image_tokens(self, pixels: Tensor) -> Tensor:
        """Tokens of the last layer, layer-normed: [B, 1 + patches, width]; the first is [CLS].

        ``pixels`` may be float maps that ``stem`` has made of pictures before.
        """
        return self.image(self._seen(pixels)).last_hidden_state

    def image_states(self, pixels: Tensor) -> Any:
        """The image tower's record: ``last_hidden_state`` as ``image_tokens`` gives it, and ``hidden_states``, a tuple of the
        embeddings and every layer's tokens, [B, 1 + patches, width] each."""
        return self.image(self._seen(pixels), output_hidden_states=True)

    def _seen(self, pixels: Tensor) -> Tensor:
        """What the ViT looks at: pictures in −1 … 1, or a stem's maps of them."""
        return pixels.float() if pixels.is_floating_point() else self.stem(normalised(pixels))

    def text_tokens(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Tokens of the unimodal text encoder [B, L, width]; the first is [CLS]."""
        return self.text(ids, attention_mask=mask[:, None, None, :], use_cache=False).last_hidden_state

    def image_features(self, tokens: Tensor) -> Tensor:
        """Unit rows in the shared space, float32 [B, D]."""
        return _unit_rows(self.image_projection(tokens[:, 0]))

    def text_features(self, tokens: Tensor) -> Tensor:
        """Unit rows in the shared space, float32 [B, D]."""
        return _unit_rows(self.text_projection(tokens[:, 0]))

    def match_logits(self, ids: Tensor, mask: Tensor, image_tokens: Tensor, image_rows: Tensor | None = None) -> Tensor:
        """Logits of (no match, match), [N, 2], of N captions that begin with [ENC].

        ``image_rows`` int64 [N] says which of the ``image_tokens`` [M, T, width] each caption looks at; without it, caption i
        looks at picture i.
        """
        tokens = self.text(
            ids,
            attention_mask=mask[:, None, None, :],
            encoder_hidden_states=image_tokens,
            use_cache=False,
            image_rows=image_rows,
        ).last_hidden_state
        return self.match_head(tokens[:, 0])

    @property
    def temperature(self) -> Tensor:
        """What similarities are divided by in the contrastive loss, a scalar."""
        return self.log_temperature.exp()

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        self.log_temperature.clamp_(*(math.log(limit) for limit in TEMPERATURE_RANGE))

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def image_tower(preset: Preset) -> ViTModel:
    """The image tower with random weights.

    One of CLIP's form has a norm behind its embeddings and none behind its last layer, whose tokens are taken as they are
    (``transformers``' CLIP and FLIP's authors do so).
    """
    tower = ViTModel(vit_config(preset), add_pooling_layer=False)
    if preset.image.form == "clip":
        norm = nn.LayerNorm(preset.image.width, eps=_CLIP_EPS)
        tower.embeddings.add_module("dropout", nn.Sequential(norm, tower.embeddings.dropout))
        tower.add_module("layernorm", nn.Identity())
    return tower


def initializer_range(width: int) -> float:
    """The deviation of random weights: BERT's and ViT's 0.02 at their width of 768, larger for narrower towers.

    A sum over ``width`` random weights grows with the root of the width. With 0.02 at a width of 96, two captions differ by
    0.4 % of their mean feature, half of which bfloat16 rounds away; with this it is the 4 % that it is at 768.
    """
    return 0.02 * math.sqrt(_RANGE_WIDTH / width)


def vit_config(preset: Preset) -> ViTConfig:
    """The image tower's configuration."""
    shape = preset.image
    form: dict[str, Any] = {"hidden_act": "quick_gelu", "layer_norm_eps": _CLIP_EPS} if shape.form == "clip" else {}
    return ViTConfig(  # type: ignore[call-arg]
        image_size=MAP_GRID if shape.form == "hybrid" else shape.size,
        patch_size=1 if shape.form == "hybrid" else shape.patch,
        num_channels=MAP_CHANNELS if shape.form == "hybrid" else 3,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.mlp_width,
        hidden_dropout_prob=shape.dropout,
        attention_probs_dropout_prob=shape.dropout,
        initializer_range=initializer_range(shape.width),
        attn_implementation="sdpa",
        **form,
    )


def bert_config(preset: Preset, vocabulary: int) -> BertConfig:
    """The text tower's configuration. The library lets only decoders have cross-attention; masks given as [B, 1, 1, L] are
    taken as they are, so that nothing becomes causal."""
    shape = preset.text
    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.mlp_width,
        hidden_dropout_prob=shape.dropout,
        attention_probs_dropout_prob=shape.dropout,
        initializer_range=initializer_range(shape.width),
        max_position_embeddings=max(shape.max_tokens, 512),  # BERT's
        **text_mode(),
    )


def text_mode() -> dict[str, Any]:
    """What makes a BERT FLIP's text tower, for configurations and ``from_pretrained`` alike."""
    return {"is_decoder": True, "add_cross_attention": True, "attn_implementation": attention.NAME, "use_cache": False}


def normalised(pixels: Tensor) -> Tensor:
    """uint8 pictures as float32 in -1 … 1."""
    return (pixels.float() / 255 - _PIXEL_MEAN) / _PIXEL_SCALE


def _unit_rows(x: Tensor) -> Tensor:
    return F.normalize(x.float(), dim=-1)
