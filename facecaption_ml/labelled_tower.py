"""Command that trains an image tower on labels, for FLIP to start from: ``python -m facecaption_ml.labelled_tower``.

    python -m facecaption_ml.labelled_tower --data drawn --preset tiny --out FOLDER          # drawn portraits
    python -m facecaption_ml.labelled_tower --data CELEBA_FOLDER --preset tiny --out FOLDER  # CelebA's layout

``FACECAPTION_FLIP_IMAGE_INIT=FOLDER`` then starts a FLIP of the same preset from it.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from facecaption_ml.attributes.celeba import read_celeba
from facecaption_ml.errors import describe, is_mendable
from facecaption_ml.flip.model.presets import Preset
from facecaption_ml.flip.training.labelled_tower import LabelledFaces, train_labelled_tower
from facecaption_ml.taxonomy import ATTRIBUTES

logger = logging.getLogger("facecaption")
DRAWN: Final = "drawn"
_HELD_OUT: Final = 0.1  # of drawn portraits, for validation and for the test each
DRAWING_SEED: Final = 90_011
"""Of portraits that no other part of the project draws."""


def labelled_faces(data: str, side: int, portraits: int) -> LabelledFaces:
    """Faces with their 40 labels at ``side`` × ``side``: of a folder with CelebA's layout, or so many drawn ones.

    Raises AttributeDataError where the folder cannot be used.
    """
    if data != DRAWN:
        celeba = read_celeba(data, (side, side))
        everyone = np.arange(len(celeba.images))
        pixels = np.concatenate([celeba.images.batch(part, (side, side)) for part in np.array_split(everyone, 64)])
        return LabelledFaces(pixels, celeba.labels, celeba.rows, f"{celeba.name}, 40 labels of its annotators")
    from facecaption_ml.sample.labelled import labelled_portraits

    pixels, labels = labelled_portraits(portraits, seed=DRAWING_SEED, size=side)
    rows = np.arange(len(pixels))
    held = max(1, int(_HELD_OUT * len(pixels)))
    splits = {"train": rows[2 * held :], "validation": rows[:held], "test": rows[held : 2 * held]}
    return LabelledFaces(pixels, labels, splits, f"{portraits:,} drawn portraits with their true labels")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and write; 0, or 1 after one line that says what is wrong."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        preset = Preset.named(given.preset)
        faces = labelled_faces(given.data, preset.image.size, given.portraits)
        result = train_labelled_tower(
            faces,
            preset,
            given.out,
            epochs=given.epochs,
            batch_size=given.batch_size,
            peak_learning_rate=given.learning_rate,
            seed=given.seed,
            device=given.device,
            on_epoch=lambda epoch, accuracy: logger.info("epoch %d: validation accuracy %.4f", epoch, accuracy),
        )
    except Exception as error:
        if not is_mendable(error):
            raise
        logger.error("error: %s", describe(error))
        return 1
    logger.info("test: mean accuracy %.4f over %d labels, majority class %.4f; %s", result.accuracy, len(ATTRIBUTES),
                result.majority, given.out)  # fmt: skip
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m facecaption_ml.labelled_tower",
        description="Train an image tower of a FLIP preset on labels of faces, for FLIP to start from.",
    )
    parser.add_argument("--data", required=True, help=f"folder with CelebA's layout, or {DRAWN}: drawn portraits")
    parser.add_argument("--out", required=True, type=Path, help="folder for the tower")
    parser.add_argument("--preset", default="tiny", help="whose image tower (default: tiny)")
    parser.add_argument("--portraits", type=int, default=8000, help="drawn portraits")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="at the end of the warm-up")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
