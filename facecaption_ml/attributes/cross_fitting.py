"""What labels a rule gives that was not fitted on the faces it is counted on: cross-fitting on the validation split.

    python -m facecaption_ml.attributes.cross_fitting CHECKPOINT --data CELEBA_FOLDER

Temperatures and thresholds come from four fifths of the split, labels are counted on the fifth that is left, for each fifth
of several random orders. Settings of the rule are chosen by this; of the test split, what the checkpoint was measured to give
when it was finished is shown below.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from facecaption_ml.attributes.calibration import Calibration
from facecaption_ml.attributes.label_scores import LabelScore, score_labels
from facecaption_ml.attributes.labels import PAPER_THRESHOLD, LabelRule
from facecaption_ml.attributes.thresholds import Thresholds
from facecaption_ml.markdown import markdown_table

RuleOf = Callable[[np.ndarray, np.ndarray], LabelRule]
"""From calibrated probabilities [N, 40] and labels bool [N, 40] to a rule."""
_FOLDS: Final = 5
_ORDERS: Final = 6
_SHOWN: Final = (0.8, 0.85, 0.9, 0.95)


def at_precision(precision: float) -> RuleOf:
    """The rule of the project's own thresholds."""
    return lambda p, truth: Thresholds.fit(p, truth, "").rule(precision)


def at_threshold(threshold: float) -> RuleOf:
    """One threshold for all, whatever the data."""
    return lambda p, truth: LabelRule.plain(threshold)


def cross_fitted(logits: np.ndarray, labels: np.ndarray, rule_of: RuleOf) -> list[LabelScore]:
    """A score for each fold of each order, of ``logits`` [N, 40] and ``labels`` bool [N, 40]."""
    scores = []
    for order in range(_ORDERS):
        shuffled = np.random.default_rng(order).permutation(len(logits))
        for fold in range(_FOLDS):
            held = shuffled[fold::_FOLDS]
            rest = np.setdiff1d(shuffled, held)
            calibration = Calibration.fit(logits[rest], labels[rest])
            rule = rule_of(calibration.probabilities(logits[rest]), labels[rest])
            scores.append(score_labels(calibration.probabilities(logits[held]), labels[held], rule))
    return scores


def cross_fitting_table(logits: np.ndarray, labels: np.ndarray, rules: Sequence[RuleOf]) -> str:
    """Markdown: labels a face, kept share and precision of each rule, and the attributes that fall short of its target."""
    rows = []
    for rule_of in rules:
        scores = cross_fitted(logits, labels, rule_of)
        faces = sum(score.everyone.rows for score in scores)
        per_face, kept = (
            sum(getattr(score.everyone, name) * score.everyone.rows for score in scores) / faces
            for name in ("per_face", "kept")
        )
        asserted, right = np.array([list(score.asserted.values()) for score in scores]).sum(0).T
        said = asserted >= _ORDERS  # once an order at least
        precise = right[said] / asserted[said]
        short = int((precise < scores[0].target).sum())
        rows.append(
            (
                scores[0].rule,
                f"{per_face:.2f}",
                f"{100 * kept:.1f} %",
                f"{100 * right.sum() / max(asserted.sum(), 1):.1f} %",
                f"{int(said.sum())}",
                f"{short}" if scores[0].target else "–",
            )
        )
    columns = ("rule", "labels a face", "kept", "right", "attributes said", "of these short of it")
    return markdown_table(columns, rows, "lrrrrr", padded=True)


def main() -> None:
    from facecaption_ml.attributes.celeba import read_celeba
    from facecaption_ml.attributes.checkpoints import EVALUATION, checkpoint_folder
    from facecaption_ml.attributes.evaluation import Evaluation
    from facecaption_ml.attributes.finishing import predictor_logits
    from facecaption_ml.attributes.model_card import rule_table
    from facecaption_ml.attributes.prediction import AttributePredictor

    parser = argparse.ArgumentParser(
        prog="python -m facecaption_ml.attributes.cross_fitting",
        description="Labels of each rule on faces that it was not fitted on, within the validation split.",
    )
    parser.add_argument("checkpoint", help="folder of the checkpoint, or bundled")
    parser.add_argument("--data", required=True, help="folder with img_align_celeba and CelebA's two lists")
    given = parser.parse_args()
    predictor = AttributePredictor.load(given.checkpoint)
    data = read_celeba(given.data, predictor.input)
    rules = [at_threshold(PAPER_THRESHOLD), at_threshold(0.7), *map(at_precision, _SHOWN)]
    logits = predictor_logits(predictor, data, "validation")
    table = cross_fitting_table(logits, data.labels[data.rows["validation"]], rules)
    sys.stdout.write(f"Validation split, cross-fitted:\n\n{table}\n")
    scores = Evaluation.read(checkpoint_folder(given.checkpoint) / EVALUATION)
    if scores.label_scores:
        sys.stdout.write(f"\nTest split, as the checkpoint's evaluation has it:\n\n{rule_table(scores, padded=True)}\n")


if __name__ == "__main__":
    main()
