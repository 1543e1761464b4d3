"""Two trained networks as one checkpoint: their logits are averaged.

    python -m facecaption_ml.attributes.joining ONE OTHER --data CELEBA_FOLDER --out FOLDER

``ONE`` and ``OTHER`` are checkpoint folders. The share of each is chosen by the log loss on the validation split; then the
checkpoint is finished as any other.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from facecaption_ml.attributes.calibration import Calibration
from facecaption_ml.attributes.celeba import read_celeba
from facecaption_ml.attributes.checkpoints import CONFIG, WEIGHTS, CheckpointError, read_weights, write_weights
from facecaption_ml.attributes.commands import COMMANDS, commands_of, joining_command, merged
from facecaption_ml.attributes.ensemble import MEMBERS, network_of
from facecaption_ml.attributes.finishing import finish_checkpoint, predictor_logits
from facecaption_ml.attributes.network import Preset
from facecaption_ml.attributes.prediction import AttributePredictor
from facecaption_ml.errors import describe, is_mendable
from facecaption_ml.pretrained import weights_version
from facecaption_ml.taxonomy import ATTRIBUTES

logger = logging.getLogger("facecaption")

_SHARES: Final = tuple(round(0.3 + 0.05 * i, 2) for i in range(9))  # 0.3 … 0.7
_TEMPERATURES: Final = tuple(np.geomspace(0.5, 2, 25).tolist())


def join(one: Path, other: Path, out: Path, share: float, one_view: bool = False) -> dict[str, Any]:
    """Write the weights of both checkpoints to ``out``; the config of the ensemble, without calibration.

    ``share`` is that of ``one``, whose input size is the ensemble's. The other's weights are kept in eight bits too.
    ``one_view``: neither network sees the mirror image too. Raises CheckpointError where a folder is no checkpoint of one
    network.
    """
    configs, state = [], {}
    for number, folder in enumerate((one, other)):
        for name in (CONFIG, WEIGHTS):
            if not (folder / name).is_file():
                raise CheckpointError(f"attribute checkpoint {folder}: {name} is missing")
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if MEMBERS in config:
            raise CheckpointError(
                f"attribute checkpoint {folder}: is an ensemble already; name the networks it is made of"
            )
        config["preset"] = asdict(Preset.from_dict(config["preset"])) | ({"mirrored": False} if one_view else {})
        configs.append(config)
        state.update({f"networks.{number}.{name}": value for name, value in read_weights(folder / WEIGHTS).items()})
    out.mkdir(parents=True, exist_ok=True)
    write_weights(out / WEIGHTS, state, eight_bits=True)
    members = [
        {
            "preset": config["preset"],
            "share": round(part, 4),
            **{key: config[key] for key in ("seed", "best_epoch", "init") if key in config},
        }
        for config, part in zip(configs, (share, 1 - share), strict=True)
    ]
    own = joining_command(one, other, weights_version(out / WEIGHTS), one_view)
    return {
        **{key: configs[0][key] for key in ("preset", "best_epoch", "seed") if key in configs[0]},
        MEMBERS: members,
        COMMANDS: merged(commands_of(configs[0]), commands_of(configs[1]), [own]),
    }


def best_share(one: np.ndarray, other: np.ndarray, labels: np.ndarray) -> float:
    """The share of ``one`` that gives the least log loss, of 0.3 to 0.7, at the temperature that suits it best.

    Logits [N, 40], ``labels`` bool.
    """
    sign = np.where(labels, -1.0, 1.0)
    losses = []
    for share in _SHARES:
        joint = sign * (share * one + (1 - share) * other)
        losses.append(min(float(np.logaddexp(0.0, joint / temperature).mean()) for temperature in _TEMPERATURES))
    return _SHARES[int(np.argmin(losses))]


def main() -> None:
    """Join two checkpoints, calibrate and measure the ensemble on ``--data``."""
    parser = argparse.ArgumentParser(
        prog="python -m facecaption_ml.attributes.joining",
        description="Join two trained networks into one checkpoint.",
    )
    parser.add_argument("one", type=Path, help="checkpoint folder; its input size is the ensemble's")
    parser.add_argument("other", type=Path, help="another")
    parser.add_argument("--data", required=True, help="folder with img_align_celeba and CelebA's two lists")
    parser.add_argument("--out", required=True, type=Path, help="folder for the joint checkpoint")
    parser.add_argument("--one-view", action="store_true", help="no mirror images: twice as fast")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        _join_and_finish(given.one, given.other, given.data, given.out, given.one_view)
    except Exception as error:
        if not is_mendable(error):
            raise
        parser.exit(1, f"error: {describe(error)}\n")


def _join_and_finish(one: Path, other: Path, celeba: str, out: Path, one_view: bool) -> None:
    first, second = AttributePredictor.load(one), AttributePredictor.load(other)
    data, small = read_celeba(celeba, first.input), read_celeba(celeba, second.input)
    labels = data.labels[data.rows["validation"]]
    alone = predictor_logits(first, data, "validation"), predictor_logits(second, small, "validation")
    share = best_share(*alone, labels)
    config = join(one, other, out, share, one_view)
    network = network_of(config)
    network.load_state_dict(read_weights(out / WEIGHTS))
    uncalibrated = Calibration(np.ones(len(ATTRIBUTES)), np.zeros(len(ATTRIBUTES)))
    joint = AttributePredictor(network, Preset.from_dict(config["preset"]), uncalibrated, "", "cpu")
    logits = {split: predictor_logits(joint, data, split) for split in ("validation", "test")}
    result = finish_checkpoint(out, logits, data, config)
    logger.info(
        "share of the first: %g; test: mean accuracy %.4f, majority class %.4f",
        share,
        result.mean_accuracy,
        result.majority_accuracy,
    )


if __name__ == "__main__":
    main()
