"""CLIP-IQA: how much more a picture resembles "Good photo." than "Bad photo."; higher is better.

Wang, Chan, Loy, "Exploring CLIP for Assessing the Look and Feel of Images", AAAI 2023: the softmax over the scaled cosine
similarities of a picture with two opposite prompts. Any CLIP checkpoint of ``transformers`` serves. The paper takes
CLIP's ResNet-50 without its position embedding, so that a picture keeps its size; here each picture is resized and
cropped as its checkpoint's own processor does it, so scores are comparable only between data sets scored by one
checkpoint.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from facecaption_ml.decoding import as_rgb
from facecaption_ml.pretrained import load_checkpoint

if TYPE_CHECKING:
    import torch

EXAMPLE: Final = "openai/clip-vit-base-patch16"


@dataclass(frozen=True)
class PromptPair:
    """Two opposite descriptions; the score is the probability of ``better``."""

    name: str
    better: str
    worse: str


@lru_cache(maxsize=1)
def prompt_pairs() -> tuple[PromptPair, ...]:
    """The pairs of ``clip_iqa_prompts.toml``, "quality" first."""
    text = files("facecaption_ml.statistics").joinpath("clip_iqa_prompts.toml").read_text("utf-8")
    return tuple(PromptPair(**pair) for pair in tomllib.loads(text)["pair"])


class ClipIqa:
    """Scores pictures against pairs of prompts, whose text features are computed once."""

    def __init__(
        self, model: Any, processor: Any, pairs: Sequence[PromptPair] | None = None, batch_size: int = 16
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: {batch_size} is less than 1")
        self.pairs = tuple(prompt_pairs() if pairs is None else pairs)
        self.batch_size = batch_size
        self._model = model
        self._processor = processor
        self._texts = self._text_features()

    @classmethod
    def load(
        cls,
        name: str | Path,
        device: str = "cpu",
        pairs: Sequence[PromptPair] | None = None,
        batch_size: int = 16,
    ) -> ClipIqa:
        """A CLIP checkpoint by folder or hub name. Raises WeightsNotReachable in one line."""
        return cls(*load_checkpoint("CLIPModel", name, EXAMPLE, device), pairs=pairs, batch_size=batch_size)

    @property
    def metrics(self) -> tuple[str, ...]:
        """One name per pair: clip_iqa_quality, clip_iqa_sharpness, …"""
        return tuple(f"clip_iqa_{pair.name}" for pair in self.pairs)

    def score(self, images: Sequence[np.ndarray | bytes]) -> npt.NDArray[np.float32]:
        """float32 [N, pairs], each 0 … 1: the probability of the pair's better prompt.

        ``images`` are RGB uint8 [H, W, 3] or encoded bytes. Raises UndecodableImage for bytes that hold no picture.
        """
        scores = [self._score(images[at : at + self.batch_size]) for at in range(0, len(images), self.batch_size)]
        return np.concatenate([np.empty((0, len(self.pairs)), np.float32), *scores])

    def _score(self, images: Sequence[np.ndarray | bytes]) -> npt.NDArray[np.float32]:
        import torch

        pixels = self._processor(images=[as_rgb(image) for image in images], return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            states = self._model.get_image_features(pixel_values=pixels.to(self._model.device))
            features = torch.nn.functional.normalize(states.pooler_output.float(), dim=-1)
            similarity = self._model.logit_scale.float().exp() * features @ self._texts.T
            probabilities = similarity.reshape(len(images), len(self.pairs), 2).softmax(-1)[..., 0]
        return probabilities.cpu().numpy().astype(np.float32)

    def _text_features(self) -> torch.Tensor:
        """[2 · pairs, D] unit rows: better, worse, better, worse, …"""
        import torch

        prompts = [prompt for pair in self.pairs for prompt in (pair.better, pair.worse)]
        tokens = self._processor(text=prompts, padding=True, return_tensors="pt").to(self._model.device)
        with torch.inference_mode():
            states = self._model.get_text_features(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            )
        return torch.nn.functional.normalize(states.pooler_output.float(), dim=-1)
