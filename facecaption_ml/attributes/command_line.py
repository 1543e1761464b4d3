"""Command line of the attribute predictor's training: ``python -m facecaption_ml.attributes``."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import torch

from facecaption_ml.attributes.celeba import read_celeba
from facecaption_ml.attributes.network import Preset
from facecaption_ml.attributes.training import logger, train_attributes
from facecaption_ml.errors import describe, is_mendable


def main() -> None:
    """Train on ``--data``, write to ``--out``, and say what came of it on the test split."""
    parser = argparse.ArgumentParser(
        prog="python -m facecaption_ml.attributes",
        description="Train the attribute predictor on a folder with CelebA's layout.",
    )
    parser.add_argument(
        "--data", required=True, help="folder with img_align_celeba, list_attr_celeba.txt, list_eval_partition.txt"
    )
    parser.add_argument("--out", required=True, type=Path, help="folder for the checkpoint")
    parser.add_argument("--preset", default="tiny", help="a preset of presets.toml (default: tiny)")
    parser.add_argument("--epochs", type=int, default=0, help="default: the preset's own number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="default: all cores")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument(
        "--adaptive", type=float, default=0.3, help="0: equal task weights, 1: the validation loss's trend"
    )
    parser.add_argument(
        "--init",
        type=Path,
        help="what to fine-tune: a checkpoint folder of the preset, or for face_resnet its .safetensors",
    )
    parser.add_argument("--teacher", type=Path, help="checkpoint folder whose probabilities make half of the labels")
    parser.add_argument(
        "--rate-share",
        type=float,
        default=0.0,
        help="of the preset's learning rate; default: 1, of a checkpoint's 0.25",
    )
    parser.add_argument("--mixup", type=float, help="in place of the preset's; 0: none")
    parser.add_argument("--fresh", action="store_true", help="restart instead of resuming a training found in --out")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if given.threads:
        torch.set_num_threads(given.threads)
    try:
        preset = Preset.named(given.preset)
        if given.mixup is not None:
            preset = replace(preset, mixup=given.mixup)
        data = read_celeba(given.data, preset.input)
        result = train_attributes(
            data,
            preset,
            given.out,
            epochs=given.epochs,
            seed=given.seed,
            device=given.device,
            resume=not given.fresh,
            adaptive=given.adaptive,
            init=given.init,
            teacher=given.teacher,
            rate_share=given.rate_share,
        )
    except Exception as error:
        if not is_mendable(error):
            raise
        parser.exit(1, f"error: {describe(error)}\n")
    logger.info(
        "test: mean accuracy %.4f, majority class %.4f, mean AP %.4f, precision above %g %s, right at %g–%g %s",
        result.mean_accuracy,
        result.majority_accuracy,
        result.mean_average_precision,
        result.threshold,
        result.precision_above,
        *result.band,
        result.share_right_in_band,
    )
