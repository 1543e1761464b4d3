"""The model card of a trained predictor, from its config and scores.

python -m facecaption_ml.attributes.model_card CHECKPOINT_FOLDER
"""

from __future__ import annotations

import json
from pathlib import Path
from string import Template

from facecaption_ml.attributes.checkpoints import CARD, CONFIG, EVALUATION, WEIGHTS
from facecaption_ml.attributes.evaluation import Evaluation
from facecaption_ml.attributes.network import AttributeNetwork, Preset
from facecaption_ml.markdown import markdown_table
from facecaption_ml.storage.local_files import write_file


def model_card(folder: Path) -> str:
    """Markdown for the checkpoint in ``folder``."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    scores = Evaluation.read(folder / EVALUATION)
    preset = Preset.from_dict(config["preset"])
    parameters = sum(p.numel() for p in AttributeNetwork(preset).parameters())
    template = Template((Path(__file__).parent / "model_card.md").read_text(encoding="utf-8"))
    return template.substitute(
        preset=preset.name,
        version=scores.version,
        data=scores.data,
        parameters=f"{parameters / 1e6:.2f}M",
        height=preset.input[0],
        width=preset.input[1],
        megabytes=f"{(folder / WEIGHTS).stat().st_size / 1e6:.1f}",
        seed=config["seed"],
        epoch=config["best_epoch"],
        rows=f"{scores.rows:,}",
        accuracy=_percent(scores.mean_accuracy),
        majority=_percent(scores.majority_accuracy),
        over=f"{100 * (scores.mean_accuracy - scores.majority_accuracy):.2f}",
        mean_ap=f"{scores.mean_average_precision:.3f}",
        precision=_percent(scores.precision_above),
        calibrated=_percent(scores.share_right_in_band),
        threshold=f"{scores.threshold:g}",
        upper=f"{scores.band[1]:g}",
        table=markdown_table(
            (
                "attribute",
                "positives",
                "accuracy",
                "majority class",
                "AP",
                "calibration error",
                f"right above {scores.threshold:g}",
            ),
            (
                (
                    s.name,
                    _percent(s.positives),
                    _percent(s.accuracy),
                    _percent(s.majority),
                    _number(s.average_precision),
                    _number(s.calibration_error),
                    _percent(s.precision_above),
                )
                for s in scores.scores
            ),
            "lrrrrrr",
        ),
    )


def write_model_card(folder: Path) -> None:
    write_file(folder / CARD, model_card(folder))


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    import sys

    write_model_card(Path(sys.argv[1]))
