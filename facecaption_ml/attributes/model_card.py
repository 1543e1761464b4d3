"""The model card of a trained predictor, from its config and scores: its labels, per attribute and per group of faces.

python -m facecaption_ml.attributes.model_card CHECKPOINT_FOLDER
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, Final

from facecaption_ml.attributes.checkpoints import CARD, CONFIG, EVALUATION, RELIABILITY, WEIGHTS
from facecaption_ml.attributes.commands import commands_of
from facecaption_ml.attributes.ensemble import MEMBERS
from facecaption_ml.attributes.evaluation import Evaluation
from facecaption_ml.attributes.label_scores import LabelScore
from facecaption_ml.attributes.network import AttributeNetwork, Preset
from facecaption_ml.markdown import markdown_table
from facecaption_ml.storage.local_files import write_file
from facecaption_ml.taxonomy import FEMALE

_TRUNK: Final = "dlib's face recognition network (dlib-models, `dlib_face_recognition_resnet_model_v1`, CC0 1.0)"
SHOWN_PRECISION: Final = 0.9
"""The precision whose rule stands beside the plain threshold's."""


def model_card(folder: Path) -> str:
    """Markdown for the checkpoint in ``folder``."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    scores = Evaluation.read(folder / EVALUATION)
    preset = Preset.from_dict(config["preset"])
    template = Template((Path(__file__).parent / "model_card.md").read_text(encoding="utf-8"))
    return template.substitute(
        name=" and ".join(member["preset"]["name"] for member in _members(config)),
        version=scores.version,
        data=scores.data,
        networks="<br>".join(map(_network, _members(config))),
        commands="\n".join(commands_of(config)),
        trunk=_TRUNK if any(member["preset"]["trunk"] == "face_resnet" for member in _members(config)) else "none",
        height=preset.input[0],
        width=preset.input[1],
        megabytes=f"{(folder / WEIGHTS).stat().st_size / 1e6:.1f}",
        bits="eight" if preset.eight_bits or MEMBERS in config else "sixteen",
        epoch=" and ".join(str(member.get("best_epoch", "unknown")) for member in _members(config)),
        rows=f"{scores.rows:,}",
        accuracy=_percent(scores.mean_accuracy),
        majority=_percent(scores.majority_accuracy),
        over=f"{100 * (scores.mean_accuracy - scores.majority_accuracy):.2f}",
        mean_ap=f"{scores.mean_average_precision:.3f}",
        precision=_percent(scores.precision_above),
        calibrated=_percent(scores.share_right_in_band),
        threshold=f"{scores.threshold:g}",
        upper=f"{scores.band[1]:g}",
        picture=_picture(folder),
        rules=rule_table(scores),
        groups=group_table(scores),
        table=attribute_table(scores),
    )


def _members(config: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The networks of a checkpoint: one, or an ensemble's."""
    return config.get(MEMBERS) or [config]


def _network(member: Mapping[str, Any]) -> str:
    preset = Preset.from_dict(member["preset"])
    count = sum(p.numel() for p in AttributeNetwork(preset).parameters())
    share = f", {100 * member['share']:.0f} % of the mean of the logits" if "share" in member else ""
    size = f"input {preset.input[0]} × {preset.input[1]}"
    mirror = "with its mirror image" if preset.mirrored else "without its mirror image"
    return f"`{preset.name}`: {count / 1e6:.2f}M parameters, {size}, each crop {mirror}{share}"


def shown_rules(scores: Evaluation) -> list[LabelScore]:
    """The two whose figures are shown side by side: the plain threshold, and the one for the default precision."""
    plain = [score for score in scores.label_scores if not score.target]
    precise = [score for score in scores.label_scores if score.target == SHOWN_PRECISION]
    return [*plain[:1], *precise[:1]]


def rule_table(scores: Evaluation, *, padded: bool = False) -> str:
    """Markdown: what labels each rule gives on the test pictures."""
    return markdown_table(
        ("rule", "labels a face", "faces with more than five", "labels that are right", "attributes that it ever says"),
        (
            (
                score.rule,
                f"{score.everyone.per_face:.2f}",
                _percent(score.everyone.kept),
                _percent(score.everyone.precision),
                f"{sum(count > 0 for count, _ in score.asserted.values())}",
            )
            for score in scores.label_scores
        ),
        "lrrrr",
        padded=padded,
    )


def group_table(scores: Evaluation) -> str:
    """Markdown: accuracy, kept share and precision of the labels for each group of faces, under the rules shown."""
    rules = shown_rules(scores)
    columns = [f"{what}, {_short(score)}" for score in rules for what in ("labels a face", "kept", "right")]
    return markdown_table(
        ("faces", "pictures", "accuracy", *columns),
        (
            (
                name,
                f"{rules[0].groups[name].rows:,}",
                _percent(accuracy),
                *(cell for score in rules for cell in _figures(score, name)),
            )
            for name, accuracy in scores.group_accuracy.items()
        ),
        "l" + "r" * (2 + len(columns)),
    )


def _figures(score: LabelScore, group: str) -> tuple[str, str, str]:
    found = score.groups[group]
    return f"{found.per_face:.2f}", _percent(found.kept), _percent(found.precision)


def attribute_table(scores: Evaluation) -> str:
    """Markdown: every attribute, with how often each of the rules shown says it and how often that is right."""
    rules = shown_rules(scores)
    columns = [f"{what}, {_short(score)}" for score in rules for what in ("said", "right")]
    rows = [
        (
            s.name,
            _percent(s.positives),
            _percent(s.accuracy),
            _percent(s.majority),
            _number(s.average_precision),
            _number(s.calibration_error),
            *(cell for score in rules for cell in _said(score, s.name)),
        )
        for s in scores.scores
    ]
    if rules:
        rows.append((FEMALE, *["–"] * 5, *(cell for score in rules for cell in _said(score, FEMALE))))
    return markdown_table(
        ("attribute", "positives", "accuracy", "majority class", "AP", "calibration error", *columns),
        rows,
        "l" + "r" * (5 + len(columns)),
    )


def _said(score: LabelScore, name: str) -> tuple[str, str]:
    return f"{score.asserted[name][0]:,}", _percent(score.precision_of(name))


def _short(score: LabelScore) -> str:
    return f"precision {score.target:g}" if score.target else score.rule


def _picture(folder: Path) -> str:
    if not (folder / RELIABILITY).is_file():
        return ""
    return (
        f"![What the probabilities claim against what is true, and how many answers there are of each]({RELIABILITY})"
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
