"""How well a score tells true pairs of a picture and a text from mismatched ones: the area under the ROC curve (AUC)."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

MISMATCHED: Final = 4
"""Wrong captions that each picture is shown with."""
_STREAM: Final = 0xA0C


def area_under_curve(true: npt.ArrayLike, false: npt.ArrayLike) -> float:
    """The share 0 … 1 of all pairs of a true and a false score where the true one is higher; equal ones count half.

    0.5 is what scores without meaning reach, 1 a perfect order. Raises ValueError where either is empty or not finite.
    """
    right, wrong = np.asarray(true, np.float64).ravel(), np.sort(np.asarray(false, np.float64).ravel())
    if not len(right) or not len(wrong):
        raise ValueError(f"{len(right)} true and {len(wrong)} false scores: there must be some of both")
    if not (np.isfinite(right).all() and np.isfinite(wrong).all()):
        raise ValueError("scores must be finite")
    below = np.searchsorted(wrong, right, "left") + np.searchsorted(wrong, right, "right")
    return float(below.sum() / (2 * len(right) * len(wrong)))


def mismatched(
    groups: npt.ArrayLike, each: int = MISMATCHED, seed: int = 0
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows of pictures and of texts, int64 [M] each, that do not belong together, drawn with the seed.

    ``groups`` int64 [N] numbers the texts of N pairs: equal texts have equal numbers, and neither is wrong for the other's
    picture. Every row gets ``each`` texts of other groups, with repetition; one whose group is the only one gets none.
    """
    own = np.asarray(groups, np.int64)
    draw = np.random.default_rng((_STREAM, seed))
    pictures, texts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for row, group in enumerate(own.tolist()):
        others = np.flatnonzero(own != group)
        if len(others):
            texts.append(draw.choice(others, each))
            pictures.append(np.full(each, row, np.int64))
    return np.concatenate(pictures), np.concatenate(texts)
