"""A FLIP of the micro preset with random weights, as a training leaves it in the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

_CAPTIONS: Final = [
    "A smiling man with black hair wears eyeglasses.",
    "She is young and has wavy blond hair and bangs.",
]


def save_flip(folder: Path, seed: int = 0) -> Path:
    import torch

    from facecaption_ml.flip.model.files import CONFIG, MODEL, save_weights
    from facecaption_ml.flip.model.model import FlipModel
    from facecaption_ml.flip.model.presets import Preset
    from facecaption_ml.flip.model.tokenization import CaptionTokenizer
    from facecaption_ml.pretrained import weights_version

    folder.mkdir(parents=True)
    preset = Preset.named("micro")
    tokenizer = CaptionTokenizer.trained(_CAPTIONS, preset.text.vocabulary, preset.text.max_tokens)
    torch.manual_seed(seed)
    save_weights(FlipModel(preset, tokenizer.vocabulary).state_dict(), folder / MODEL)
    tokenizer.save(folder)
    config = {"version": weights_version(folder / MODEL), "preset": preset.as_dict()}
    (folder / CONFIG).write_text(json.dumps(config))
    return folder
