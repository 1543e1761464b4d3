"""BLIP as a matcher: the image-text matching head of Li et al., "BLIP", ICML 2022, through ``transformers``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from facecaption_ml.decoding import as_rgb
from facecaption_ml.pretrained import load_checkpoint

EXAMPLE: Final = "Salesforce/blip-itm-base-coco"


class BlipMatcher:
    """Scores pairs of picture and text. A picture that stands several times in a batch (the same object) is encoded once."""

    def __init__(self, model: Any, processor: Any, batch_size: int = 32) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: {batch_size} is less than 1")
        self.batch_size = batch_size
        self._model = model
        self._processor = processor

    @classmethod
    def load(cls, name: str | Path, device: str = "cpu", batch_size: int = 32) -> BlipMatcher:
        """A BLIP retrieval checkpoint by folder or hub name.

        Raises WeightsNotReachable, in one line, also where the checkpoint has no matching head.
        """
        return cls(*load_checkpoint("BlipForImageTextRetrieval", name, EXAMPLE, device), batch_size=batch_size)

    def match(self, images: Sequence[np.ndarray | bytes], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 [N], 0 … 1: the probability that ``images[i]`` and ``texts[i]`` match.

        ``images`` are RGB uint8 [H, W, 3] or encoded bytes. A text longer than the model's positions is cut. Raises
        ValueError where there are not as many texts as images, UndecodableImage for bytes that hold no picture.
        """
        if len(images) != len(texts):
            raise ValueError(f"texts: {len(texts)} for {len(images)} images")
        import torch

        probabilities = np.empty(len(images), np.float32)
        with torch.inference_mode():
            for start in range(0, len(images), self.batch_size):
                batch = slice(start, start + self.batch_size)
                probabilities[batch] = self._match(images[batch], texts[batch])
        return probabilities

    def _match(self, images: Sequence[np.ndarray | bytes], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        distinct = {id(image): image for image in images}
        row = {key: at for at, key in enumerate(distinct)}
        pictures = [as_rgb(image) for image in distinct.values()]
        pixels = self._processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
        seen = self._model.vision_model(pixel_values=pixels.to(self._model.device)).last_hidden_state
        tokenizer = self._processor.tokenizer
        tokens = tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self._model.device)
        read = self._model.text_encoder(
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
            encoder_hidden_states=seen[[row[id(image)] for image in images]],
            encoder_attention_mask=seen.new_ones((len(images), seen.shape[1]), dtype=tokens["attention_mask"].dtype),
        ).last_hidden_state
        probabilities = self._model.itm_head(read[:, 0]).float().softmax(-1)[:, 1]
        return probabilities.cpu().numpy()
