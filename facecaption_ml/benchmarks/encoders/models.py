"""The frozen models of the benchmarks behind one small interface: features of pictures, by layer too, and of texts.

Features are what a new linear layer is put on (paper §5.2–5.4): before a model's own projections, [CLS] or what the model
takes in its place. A model without a ViT (ALIGN) has no features by layer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from facecaption_ml.benchmarks.datasets.data import Rgb
from facecaption_ml.devices import autocast, compute_dtype
from facecaption_ml.flip.pairs.augmentation import plain_view

if TYPE_CHECKING:
    from facecaption_ml.flip import Flip

_DEPTHS: Final = (4 / 12, 6 / 12, 8 / 12, 12 / 12)  # layers 4, 6, 8 and 12 of 12 (paper §5.3)
POOLS: Final = ("[CLS]", "mean", "max")


@dataclass(frozen=True)
class ImageFeatures:
    """Of N pictures: ``pooled`` float32 [N, D]; ``layers`` float32 [N, V, W] or None.

    The V vectors are, layer by layer of ``probe_layers``, [CLS], the mean and the maximum over the patch tokens.
    """

    pooled: npt.NDArray[np.float32]
    layers: npt.NDArray[np.float32] | None


@dataclass(frozen=True)
class PretrainedHeads:
    """A model's own projections into its shared space, and the temperature that it learned there."""

    image: nn.Linear
    text: nn.Linear
    temperature: float


class FrozenModel(Protocol):
    """A model whose weights stay as they are."""

    @property
    def name(self) -> str:
        """For people, and for the folder of its features."""

    @property
    def version(self) -> str:
        """Names the weights, and how they are used."""

    @property
    def side(self) -> int:
        """Of a picture as the model sees it, in pixels."""

    @property
    def layer_names(self) -> Sequence[str]:
        """One for each vector of ``ImageFeatures.layers``; none where there are none."""

    def sized(self, image: Rgb) -> Rgb:
        """RGB uint8 [H, W, 3] as ``encode_images`` would first bring it to size, or as it is; called by many threads."""

    def encode_images(self, images: Sequence[Rgb]) -> ImageFeatures:
        """Features of RGB uint8 [H, W, 3] pictures of any sizes; one forward pass for all that is asked for."""

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 [N, D]. Texts longer than the model's tokens lose their end."""


def probe_layers(depth: int) -> list[int]:
    """The layers, counted from 1, whose tokens the attribute probe sees in a ViT of ``depth`` layers: 4, 6, 8, 12 of 12,
    and the same depths of a shallower one, each layer once."""
    return sorted({max(1, round(share * depth + 1e-9)) for share in _DEPTHS})


def layer_names(depth: int) -> list[str]:
    """What the vectors of ``layer_vectors`` are, in order."""
    return [f"layer {layer} {pool}" for layer in probe_layers(depth) for pool in POOLS]


def layer_vectors(hidden_states: Sequence[Tensor], last: Tensor) -> Tensor:
    """float32 [N, V, W] of a ViT's states [N, 1 + patches, W]: those of the embeddings and of each layer, as transformers
    gives them, and ``last``, the last layer's as the model itself uses it (layer-normed in most)."""
    depth = len(hidden_states) - 1
    vectors = []
    for layer in probe_layers(depth):
        tokens = (last if layer == depth else hidden_states[layer]).float()
        patches = tokens[:, 1:]
        vectors += [tokens[:, 0], patches.mean(1), patches.amax(1)]
    return torch.stack(vectors, 1)


class FlipEncoder:
    """A FLIP checkpoint: [CLS] of both towers, before the projections (paper Figure 6b)."""

    def __init__(self, flip: Flip, name: str) -> None:
        depth = flip.preset.image.layers
        self.name, self.side = name, flip.preset.image.size
        self.version = f"{flip.version or weights_version(flip.model)}-{_short(flip.dtype)}"
        self.layer_names = layer_names(depth)
        self._flip = flip

    @property
    def heads(self) -> PretrainedHeads:
        """The projections that the checkpoint was trained with."""
        model = self._flip.model
        return PretrainedHeads(model.image_projection, model.text_projection, float(model.temperature.detach()))

    def sized(self, image: Rgb) -> Rgb:
        return plain_view(image, self.side)

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Rgb]) -> ImageFeatures:
        flip = self._flip
        pixels = np.stack([plain_view(image, self.side) for image in images])
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(flip.device)
        with autocast(flip.dtype, flip.device):
            states = flip.model.image_states(batch)
        return ImageFeatures(
            _numbers(states.last_hidden_state[:, 0]),
            _numbers(layer_vectors(states.hidden_states, states.last_hidden_state)),
        )

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        flip = self._flip
        tokens = flip.tokenizer(list(texts)).to(flip.device)
        with autocast(flip.dtype, flip.device):
            return _numbers(flip.model.text_tokens(tokens.ids, tokens.mask)[:, 0])

    @torch.inference_mode()
    def picture_tokens(self, images: Sequence[Rgb]) -> Tensor:
        """The image tower's tokens of N pictures, float16 [N, 1 + patches, W] on the CPU, for ``match``."""
        flip = self._flip
        pixels = np.stack([plain_view(image, self.side) for image in images])
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(flip.device)
        with autocast(flip.dtype, flip.device):
            return flip.model.image_tokens(batch).half().cpu()

    @torch.inference_mode()
    def match(self, texts: Sequence[str], tokens: Tensor) -> npt.NDArray[np.float32]:
        """float32 [N, 2]: the matching head's logits that text i does not belong, and belongs, to the picture with ``tokens``
        [i, 1 + patches, W]."""
        flip = self._flip
        words = flip.tokenizer(list(texts)).to(flip.device)
        with autocast(flip.dtype, flip.device):
            ids = flip.tokenizer.multimodal(words.ids)
            return _numbers(flip.model.match_logits(ids, words.mask, tokens.to(flip.device).float()))


@dataclass(frozen=True)
class HubModel:
    """CLIP, BLIP or ALIGN of ``transformers``, with its own preprocessing (``hub_models.load``)."""

    name: str
    version: str
    side: int
    layer_names: Sequence[str]
    model: Any
    processor: Any
    text_length: int
    image_states: Callable[[Any, Tensor], tuple[Tensor, Any]]
    text_states: Callable[[Any, Any], Tensor]
    precision: str = "auto"

    def sized(self, image: Rgb) -> Rgb:
        return image  # its processor does that, with its own interpolation

    @torch.inference_mode()
    def encode_images(self, images: Sequence[Rgb]) -> ImageFeatures:
        pixels = self.processor.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
        with self._autocast():
            pooled, states = self.image_states(self.model, pixels.to(self.model.device))
        layers = layer_vectors(states.hidden_states, states.last_hidden_state) if self.layer_names else None
        return ImageFeatures(_numbers(pooled), None if layers is None else _numbers(layers))

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        tokens = self.processor.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.text_length, return_tensors="pt"
        ).to(self.model.device)
        with self._autocast():
            return _numbers(self.text_states(self.model, tokens))

    def _autocast(self) -> Any:
        device = torch.device(self.model.device)
        return autocast(compute_dtype(self.precision, device), device)


def weights_version(model: torch.nn.Module) -> str:
    """12 hex digits of a model's weights, whatever files they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def _numbers(values: Tensor) -> npt.NDArray[np.float32]:
    numbers: npt.NDArray[np.float32] = values.float().cpu().numpy()
    return numbers


def _short(dtype: torch.dtype) -> str:
    return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "fp32")
