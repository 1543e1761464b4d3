"""A trained FLIP in use: features of pictures and texts in one space, and the probability that a pair matches."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file

from facecaption_ml.decoding import as_rgb
from facecaption_ml.devices import autocast, compute_dtype, resolve_device
from facecaption_ml.eight_bits import unpacked
from facecaption_ml.errors import FaceCaptionError, first_line
from facecaption_ml.flip.model.bundled_towers import checkpoint_folder
from facecaption_ml.flip.model.files import CONFIG, MODEL, TOKENIZER, require_finite, sha256_of
from facecaption_ml.flip.model.model import FlipModel
from facecaption_ml.flip.model.presets import Preset
from facecaption_ml.flip.model.tokenization import CaptionTokenizer
from facecaption_ml.flip.model.weight_names import load_stable
from facecaption_ml.flip.pairs.augmentation import plain_view

_BATCH: Final = 32
_DIGEST: Final = re.compile(r"[0-9a-f]{12}|[0-9a-f]{64}")  # a version, the first digits of the SHA-256, or all of it


class FlipError(FaceCaptionError):
    """A checkpoint cannot be used; the message names the folder or file and what to do."""


class Flip:
    """A model with its tokenizer, for encoding. ``config`` is the checkpoint's ``config.json``."""

    def __init__(
        self,
        model: FlipModel,
        tokenizer: CaptionTokenizer,
        config: dict[str, Any],
        device: str = "cpu",
        precision: str = "auto",
    ) -> None:
        self.device = torch.device(device)
        self.model, self.tokenizer, self.config = model.to(self.device).eval(), tokenizer, config
        self.preset = model.preset
        self.dtype = compute_dtype(precision, self.device)

    @classmethod
    def load(cls, path: str | Path, device: str = "auto", precision: str = "auto") -> Flip:
        """From a checkpoint's folder (``config.json``, ``model.safetensors``, ``tokenizer.json``), or ``bundled``.

        The bundled one was trained on photographs of faces; its card lies beside it in ``facecaption_ml/flip/bundled``.

        ``device``: auto, cpu or cuda. ``precision``: auto, bf16, fp16 or fp32. Raises FlipError naming the file that is
        missing, damaged or of another model.
        """
        folder = checkpoint_folder(path)
        for name in (CONFIG, MODEL, TOKENIZER):
            if not (folder / name).is_file():
                raise FlipError(
                    f"{folder} is no FLIP checkpoint: {name} is missing (materialize flip_checkpoint first)"
                )
        with _reading(folder / CONFIG):
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            preset = Preset.from_dict(config["preset"])
        with _reading(folder / TOKENIZER):
            tokenizer = CaptionTokenizer.from_file(folder / TOKENIZER, preset.text.max_tokens)
        with _reading(folder / MODEL):
            _require_hash(folder / MODEL, config)
            model = FlipModel(preset, tokenizer.vocabulary)
            weights = unpacked(load_file(folder / MODEL))
            require_finite(weights)
            load_stable(model, weights)
        return cls(model, tokenizer, config, resolve_device(device), precision)

    @property
    def version(self) -> str:
        """Names the weights."""
        return str(self.config.get("version", ""))

    @torch.inference_mode()
    def encode_images(self, images: Sequence[np.ndarray | bytes], batch_size: int = _BATCH) -> npt.NDArray[np.float32]:
        """Unit rows float32 [N, D] of RGB uint8 [H, W, 3] arrays or encoded pictures of any size.

        Raises UndecodableImage for bytes that hold no picture and ValueError for an array of another shape or type.
        """
        features = [
            self.model.image_features(self._image_tokens(images[rows])).cpu().numpy()
            for rows in _slices(len(images), batch_size)
        ]
        return np.concatenate([np.zeros((0, self.preset.projection), np.float32), *features])

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str], batch_size: int = 2 * _BATCH) -> npt.NDArray[np.float32]:
        """Unit rows float32 [N, D]. Texts longer than the model's tokens lose their end.

        Raises ValueError for a single string, each of whose letters would count as a text, and naming the row for None, an
        empty text and whatever else is none.
        """
        _require_texts(texts)
        features = []
        for rows in _slices(len(texts), batch_size):
            tokens = self.tokenizer(texts[rows]).to(self.device)
            with autocast(self.dtype, self.device):
                features.append(self.model.text_features(self.model.text_tokens(tokens.ids, tokens.mask)).cpu().numpy())
        return np.concatenate([np.zeros((0, self.preset.projection), np.float32), *features])

    @torch.inference_mode()
    def match(
        self, images: Sequence[np.ndarray | bytes], texts: Sequence[str], batch_size: int = _BATCH
    ) -> npt.NDArray[np.float32]:
        """float32 [N], 0 … 1: the matching head's probability that ``images[i]`` and ``texts[i]`` belong together.

        Raises ValueError for lists of unequal length and for texts as encode_texts does, UndecodableImage as encode_images
        does.
        """
        _require_texts(texts)
        if len(images) != len(texts):
            raise ValueError(f"{len(images)} images and {len(texts)} texts: a pair needs one of each")
        probabilities = [np.zeros(0, np.float32)]
        for rows in _slices(len(texts), batch_size):
            tokens = self.tokenizer(texts[rows]).to(self.device)
            image_tokens = self._image_tokens(images[rows])
            with autocast(self.dtype, self.device):
                logits = self.model.match_logits(self.tokenizer.multimodal(tokens.ids), tokens.mask, image_tokens)
            probabilities.append(logits.float().softmax(1)[:, 1].cpu().numpy())
        return np.concatenate(probabilities)

    def _image_tokens(self, images: Sequence[np.ndarray | bytes]) -> torch.Tensor:
        side = self.preset.image.size
        pixels = np.stack([plain_view(as_rgb(image), side) for image in images])
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device)
        with autocast(self.dtype, self.device):
            return self.model.image_tokens(batch)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Readers of three formats; each fault is one line to the user that names the file."""
    try:
        yield
    except Exception as error:
        said = first_line(error).removeprefix(f"{path}: ")
        said = f"no entry {said}" if isinstance(error, KeyError) else said
        raise FlipError(f"{path} cannot be used ({said}): materialize flip_checkpoint again") from error


def _require_hash(path: Path, config: Mapping[str, Any]) -> None:
    """Raises ValueError where the weights are not those that the configuration speaks of: a flipped bit loads as well."""
    expected = str(config.get("sha256") or config.get("version", ""))
    if _DIGEST.fullmatch(expected) and not sha256_of(path).startswith(expected):
        raise ValueError(f"its SHA-256 is not the one that {CONFIG} gives")


def _require_texts(texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise ValueError("texts is one string: give a list of texts")
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"texts[{row}] is {text!r}: each should be a text of a word or more")


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, count, size))
