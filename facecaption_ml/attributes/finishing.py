"""What makes trained weights a checkpoint: calibration, thresholds, scores on the test split, pictures, model card.

    python -m facecaption_ml.attributes.finishing CHECKPOINT --data CELEBA_FOLDER

does it anew for a checkpoint that is there, such as one of an earlier version, whose labels had no thresholds of their own.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from facecaption_ml import figures
from facecaption_ml.attributes.calibration import Calibration
from facecaption_ml.attributes.checkpoints import CONFIG, EVALUATION, RELIABILITY, THRESHOLDS, WEIGHTS
from facecaption_ml.attributes.data import AttributeData
from facecaption_ml.attributes.evaluation import Evaluation, evaluate
from facecaption_ml.attributes.labels import PAPER_THRESHOLD
from facecaption_ml.attributes.model_card import write_model_card
from facecaption_ml.attributes.pictures import reliability_diagram
from facecaption_ml.attributes.prediction import AttributePredictor
from facecaption_ml.attributes.thresholds import Thresholds
from facecaption_ml.pretrained import weights_version
from facecaption_ml.storage.local_files import atomic_write, write_file
from facecaption_ml.taxonomy import ATTRIBUTES

logger = logging.getLogger("facecaption")

REPORTED_PRECISIONS: Final = (0.8, 0.85, 0.9, 0.95)
"""The rules that the scores on the test split show; any other precision can be asked for as well."""
_BATCH: Final = 100


def finish_checkpoint(
    folder: Path,
    logits: Mapping[str, np.ndarray],
    data: AttributeData,
    config: Mapping[str, Any],
    threshold: float = PAPER_THRESHOLD,
) -> Evaluation:
    """Write all files of the checkpoint in ``folder`` beside its weights; the scores on the test split.

    ``logits``: uncalibrated, [N, 40], of the ``validation`` and the ``test`` split of ``data``. Temperatures and thresholds
    come from the first, the second is only counted. ``config``: what is known of the network (``preset``, ``seed`` …).
    """
    held = data.labels[data.rows["validation"]]
    version = weights_version(folder / WEIGHTS)
    calibration = Calibration.fit(logits["validation"], held)
    thresholds = Thresholds.fit(calibration.probabilities(logits["validation"]), held, version)
    result = evaluate(
        calibration.probabilities(logits["test"]),
        data.labels[data.rows["test"]],
        data.labels[data.rows["train"]].mean(0),
        data.name,
        version,
        threshold,
        [thresholds.rule(precision) for precision in REPORTED_PRECISIONS],
    )
    own = {
        "version": version,
        "temperatures": dict(zip(ATTRIBUTES, calibration.temperatures.tolist(), strict=True)),
        "offsets": dict(zip(ATTRIBUTES, calibration.offsets.tolist(), strict=True)),
        "trained_on": data.name,
    }
    with atomic_write(folder / CONFIG) as file:
        file.write(json.dumps({**config, **own}, indent=1).encode())
    thresholds.write(folder / THRESHOLDS)
    result.write(folder / EVALUATION)
    write_file(folder / RELIABILITY, figures.png(reliability_diagram(result)))
    write_model_card(folder)
    return result


def finish_again(folder: Path, data: AttributeData, threshold: float = PAPER_THRESHOLD) -> Evaluation:
    """:func:`finish_checkpoint` of a whole checkpoint, with the logits that its predictor gives for ``data``.

    ``data`` are the ones that it was trained on, or the test split is not one; the checkpoint keeps its name of them.
    """
    predictor = AttributePredictor.load(folder)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    logits = {split: predictor_logits(predictor, data, split) for split in ("validation", "test")}
    return finish_checkpoint(folder, logits, replace(data, name=config.get("trained_on", data.name)), config, threshold)


def predictor_logits(predictor: AttributePredictor, data: AttributeData, split: str) -> np.ndarray:
    """Uncalibrated float64 [N, 40] of a split's crops."""
    rows = data.rows[split]
    batches = [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
    return np.concatenate([predictor.logits(data.images.batch(batch, predictor.input)) for batch in batches])


def main() -> None:
    from facecaption_ml.attributes.celeba import read_celeba

    parser = argparse.ArgumentParser(
        prog="python -m facecaption_ml.attributes.finishing",
        description="Calibrate and measure a checkpoint anew on a folder with CelebA's layout.",
    )
    parser.add_argument(
        "checkpoint", type=Path, help="folder of the checkpoint; its files but the weights are replaced"
    )
    parser.add_argument("--data", required=True, help="folder with img_align_celeba and CelebA's two lists")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    result = finish_again(given.checkpoint, read_celeba(given.data, AttributePredictor.load(given.checkpoint).input))
    for score in result.label_scores:
        everyone = score.everyone
        logger.info(
            "test: %s: %.2f labels a face, %.1f%% of the faces with more than five, %.1f%% of the labels right",
            score.rule,
            everyone.per_face,
            100 * everyone.kept,
            100 * (everyone.precision or 0),
        )


if __name__ == "__main__":
    main()
