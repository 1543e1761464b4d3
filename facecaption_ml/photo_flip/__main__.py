"""Command that trains and measures the FLIP for photographs: ``python -m facecaption_ml.photo_flip``.

    python -m facecaption_ml.photo_flip --data CELEBA_FOLDER --out FOLDER

The folder is a FLIP checkpoint with its card, as the bundled one is. Equal arguments give equal files on one machine.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import torch

from facecaption_ml.attributes import AttributePredictor
from facecaption_ml.attributes.celeba import read_celeba
from facecaption_ml.attributes.data import AttributeData
from facecaption_ml.errors import describe, is_mendable
from facecaption_ml.flip import Flip
from facecaption_ml.flip.model.presets import Preset
from facecaption_ml.photo_flip.evaluation import evaluate
from facecaption_ml.photo_flip.faces import SIDE, read_faces, read_stem
from facecaption_ml.photo_flip.publishing import history_of, write_card, write_model
from facecaption_ml.photo_flip.training import Plan, train

logger = logging.getLogger("facecaption")
PRESET: Final = "photos"
_PROGRESS_EVERY: Final = 1000


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure and write; 0, or 1 after one line that says what is wrong."""
    parser = _parser()
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(given.threads)
    chosen = {name: getattr(given, name) for name in asdict(Plan()) if getattr(given, name) != getattr(Plan(), name)}
    try:
        if given.measure:
            _measure(given.data, given.predictor, given.out)
        else:
            _make(given.data, given.predictor, given.out, Plan(**chosen), given.maps, _command(chosen))
    except Exception as error:
        if not is_mendable(error):
            raise
        logger.error("error: %s", describe(error))
        return 1
    return 0


def _make(data: str, predictor_name: str, out: Path, plan: Plan, maps: Path | None, command: str) -> None:
    stem, version = read_stem(predictor_name)
    faces = read_faces(data, stem, version, maps, _every_thousand)
    trained = train(
        faces,
        stem,
        Preset.named(PRESET),
        plan,
        on_epoch=lambda epoch, recall: logger.info("epoch %d of %d: %s", epoch, plan.epochs, recall),
    )
    flip = write_model(out, trained, faces, plan, version, command)
    _publish(out, flip, faces.data, data, predictor_name, [recall.values() for recall in trained.history])


def _measure(data: str, predictor_name: str, out: Path) -> None:
    """Again, such as beside another predictor."""
    flip = Flip.load(out, device="cpu", precision="fp32")
    history = history_of(out)
    _publish(out, flip, read_celeba(data, (SIDE, SIDE)), data, predictor_name, history)


def _publish(
    out: Path, flip: Flip, data: AttributeData, folder: str, predictor_name: str, history: list[dict[str, float]]
) -> None:
    evaluation = evaluate(flip, data, folder, AttributePredictor.load(predictor_name))
    write_card(out, flip, data, evaluation, history)
    for line in evaluation.lines():
        logger.info("%s", line)


def _every_thousand(done: int, total: int) -> None:
    if done % _PROGRESS_EVERY < 64 or done == total:
        logger.info("maps of %d of %d faces", done, total)


def _command(chosen: dict[str, object]) -> str:
    options = "".join(f" --{name.replace('_', '-')} {value}" for name, value in chosen.items())
    return f"python -m facecaption_ml.photo_flip --data CELEBA --out FOLDER{options}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m facecaption_ml.photo_flip",
        description="Train the FLIP for photographs on a folder with CelebA's layout, and measure it.",
    )
    parser.add_argument("--data", required=True, help="folder with CelebA's layout")
    parser.add_argument("--out", required=True, type=Path, help="folder for the checkpoint")
    parser.add_argument("--predictor", default="bundled", help="attribute checkpoint with a network tiny")
    parser.add_argument("--measure", action="store_true", help="do not train: measure the checkpoint in --out again")
    parser.add_argument("--maps", type=Path, help="file that keeps the stem's maps of the faces for the next run")
    parser.add_argument("--threads", type=int, default=1, help="of the processor (default: 1)")
    for name, value in asdict(Plan()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help=f"default: {value}")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
