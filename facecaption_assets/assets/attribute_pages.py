"""What the page of ``attribute_model`` shows of its labels: reliability, and precision by attribute, gender and age."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from facecaption_assets.factories import previews

if TYPE_CHECKING:
    from facecaption_ml.attributes.evaluation import Evaluation
    from facecaption_ml.attributes.label_scores import LabelScore


def label_metadata(evaluation: "Evaluation") -> dict[str, Any]:
    """Tables and pictures of the labels on the test pictures; nothing of an evaluation that did not measure them."""
    from facecaption_ml.attributes.model_card import shown_rules
    from facecaption_ml.attributes.pictures import precision_by_attribute, reliability_diagram

    if not evaluation.label_scores:
        return {}
    shown = shown_rules(evaluation)
    return {
        "labels on the test pictures, by rule": _by_rule(evaluation.label_scores),
        "labels on the test pictures, by gender and age": _by_group(evaluation, shown),
        "reliability of the probabilities": previews.figure(
            reliability_diagram(evaluation), "what the probabilities claim against what is true"
        ),
        "precision by attribute": previews.figure(
            precision_by_attribute(shown), "of each attribute's labels the share that is right, and how many there are"
        ),
    }


def _by_rule(scores: "Sequence[LabelScore]") -> Any:
    found = [(score.rule, score.everyone) for score in scores]
    return previews.rows(
        ["rule", "labels a face", "faces with more than five", "labels that are right"],
        [(rule, figures.per_face, figures.kept, figures.precision) for rule, figures in found],
    )


def _by_group(evaluation: "Evaluation", shown: "Sequence[LabelScore]") -> Any:
    """Side by side for the rules of the model card."""
    names = [f"precision {score.target:g}" if score.target else score.rule for score in shown]
    columns = [f"{what}, {name}" for name in names for what in ("kept", "right")]
    rows: list[tuple[Any, ...]] = []
    for group, accuracy in evaluation.group_accuracy.items():
        figures = [score.groups[group] for score in shown]
        cells = [cell for found in figures for cell in (found.kept, found.precision)]
        rows.append((group, figures[0].rows, accuracy, *cells))
    return previews.rows(["faces", "pictures", "accuracy", *columns], rows)
