"""The probability above which each attribute is right often enough: a bound of the precision for every threshold.

A rare attribute has a handful of positives among held-out pictures. Their count alone bounds its precision so loosely (Clopper
and Pearson, Biometrika 1934: 29 labels without a fault for 0.9) that a bald head would never be called one; trusting the
calibrated probabilities alone would not notice where they are wrong. Both are joined: the labels above a threshold are taken
to be right with a probability that has a Beta distribution, whose prior says what the calibrated probabilities claim, with the
weight of ``CLAIM_ROWS`` labels, and which the held-out labels then correct. The bound is its lower quantile, and never above
what the held-out labels alone still allow: three faults among six refute any claim.

A threshold is found from the top down and the search ends at the first one whose bound is too low (fixed-sequence testing;
Angelopoulos et al., "Learn then Test", 2021), so that trying many thresholds does not find one that holds by luck. Hence
the bounds never fall with the threshold, and a higher precision never has a lower threshold.

The weight, the confidence and ``LEAST_PROBABILITY`` were chosen by cross-fitting on the validation split: temperatures and
thresholds from four fifths of it, labels counted on the fifth (``python -m facecaption_ml.attributes.cross_fitting``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from facecaption_ml.attributes.labels import LabelRule
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.storage.local_files import write_file
from facecaption_ml.taxonomy import ATTRIBUTES, NAMES

GRID: Final = (*(round(0.5 + 0.01 * step, 2) for step in range(50)), 0.995, 0.998, 0.999)
"""The thresholds that are tried."""
CONFIDENCE: Final = 0.9
"""Of the bound, to one side."""
CLAIM_ROWS: Final = 100.0
"""As many held-out labels do the calibrated probabilities count as; of temperatures, the other attributes count as many."""
REFUTED: Final = 0.95
"""The confidence of the counts' own upper limit, which no bound exceeds."""
LEAST_PROBABILITY: Final = 0.65
"""However often an attribute's labels are right together, one that is wrong every second time is not said."""
LEAST_PRECISION: Final = 0.5
MOST_PRECISION: Final = 0.99
_NEVER: Final = 1.0
_MALE: Final = ATTRIBUTES.index("Male")


class PrecisionError(FaceCaptionError):
    """No thresholds for the precision that was asked for; the message says why."""


@dataclass(frozen=True)
class Thresholds:
    """What ``thresholds.json`` of a checkpoint holds.

    ``bounds``: for each of ``taxonomy.NAMES`` the precision that its labels have at least, at ``confidence``, by threshold in
    the order of ``grid``. ``version`` is that of the weights, ``rows`` the number of held-out pictures.
    """

    version: str
    rows: int
    grid: tuple[float, ...]
    bounds: Mapping[str, tuple[float, ...]]
    confidence: float = CONFIDENCE
    claim_rows: float = CLAIM_ROWS

    @classmethod
    def fit(cls, probabilities: np.ndarray, labels: np.ndarray, version: str) -> Thresholds:
        """From held-out calibrated ``probabilities`` [N, 40] and ``labels`` bool [N, 40]."""
        p, truth = with_female(probabilities, labels)
        found = np.floor(precision_bounds(p, truth) * 1e4) / 1e4  # never above what was found
        bounds = {name: tuple(found[i].tolist()) for i, name in enumerate(NAMES)}
        return cls(version, len(labels), GRID, bounds)

    def rule(self, precision: float) -> LabelRule:
        """The thresholds above which labels are right in at least ``precision`` (0.5–0.99) of the cases.

        An attribute that reaches it nowhere has the threshold 1 and is never a label. Raises PrecisionError.
        """
        require_precision(precision)
        floor = min(LEAST_PROBABILITY, precision)
        chosen = {name: max(self._lowest(name, precision), floor) for name in NAMES}
        return LabelRule(precision_in_words(precision), chosen, precision)

    def _lowest(self, name: str, precision: float) -> float:
        pairs = zip(self.grid, self.bounds[name], strict=True)
        return min((threshold for threshold, bound in pairs if bound >= precision), default=_NEVER)

    def write(self, path: Path) -> None:
        """One line an attribute."""
        head = {name: value for name, value in vars(self).items() if name != "bounds"}
        lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
        bounds = ",\n".join(f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in self.bounds.items())
        write_file(path, "{\n" + ",\n".join(lines) + ',\n "bounds": {\n' + bounds + "\n }\n}\n")

    @classmethod
    def read(cls, path: Path) -> Thresholds:
        """Raises PrecisionError where the file is not one that ``write`` makes."""
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            grid = tuple(float(threshold) for threshold in values.pop("grid"))
            bounds = {name: tuple(map(float, values["bounds"][name])) for name in NAMES}
            found = cls(**{**values, "grid": grid, "bounds": bounds})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PrecisionError(f"{path}: not a table of thresholds: {type(error).__name__} {error}") from error
        if any(len(row) != len(grid) for row in bounds.values()):
            raise PrecisionError(f"{path}: not a table of thresholds: each attribute should have {len(grid)} bounds")
        return found


def require_precision(precision: float) -> None:
    """Raises PrecisionError where there are no thresholds for such a precision."""
    if not LEAST_PRECISION <= precision <= MOST_PRECISION:
        raise PrecisionError(
            f"a precision of {precision:g} cannot be had: choose {LEAST_PRECISION} to {MOST_PRECISION}"
        )


def precision_in_words(precision: float) -> str:
    """The name of a rule for a precision, wherever its labels are shown."""
    return f"per-attribute thresholds for a precision of {precision:g}"


def with_female(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with a column more, [N, 41] in the order of ``taxonomy.NAMES``: Female, 1 − p(Male) and not Male."""
    p, truth = np.asarray(probabilities, np.float64), np.asarray(labels, bool)
    return np.c_[p, 1 - p[:, _MALE]], np.c_[truth, ~truth[:, _MALE]]


def precision_bounds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The lower bound of the precision of ``probabilities`` [N, T] above each threshold, float64 [T, len(GRID)].

    Along the grid it never falls. It is 0 throughout for an attribute without a positive among ``labels`` bool [N, T].
    """
    from scipy.special import betaincinv

    count, right, claimed = counts_above(probabilities, labels)
    alpha = CLAIM_ROWS * claimed + right
    beta = CLAIM_ROWS * (1 - claimed) + count - right
    bounds = betaincinv(alpha, np.maximum(beta, 1e-9), 1 - CONFIDENCE)
    allowed = betaincinv(right + 1, np.maximum(count - right, 1e-9), REFUTED)  # Clopper and Pearson's upper limit
    bounds = np.where(right < count, np.minimum(bounds, allowed), bounds)
    bounds[~labels.any(0)] = 0.0
    return np.minimum.accumulate(bounds[:, ::-1], axis=1)[:, ::-1]


def counts_above(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the probabilities above each threshold, [T, len(GRID)] each: how many, how many are right, and what they claim.

    They claim their mean; above a threshold that none exceeds, the threshold itself.
    """
    grid = np.array(GRID)
    above = probabilities[:, :, None] > grid
    count = above.sum(0).astype(float)
    right = (above & labels[:, :, None]).sum(0).astype(float)
    total = (above * probabilities[:, :, None]).sum(0)
    return count, right, np.where(count > 0, total / np.maximum(count, 1), grid)
