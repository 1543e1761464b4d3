"""A description as labels that a face should have and labels that it should not, and how well faces fit them.

The reader is that which judges captions, so a query understands whatever a caption may say, negations among it. A face's
score is the logarithm of the probability that the predictor gives to all of it, each label taken by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from facecaption_ml.captions.faithful.lexicon import bundled_lexicon
from facecaption_ml.captions.faithful.parser import parse
from facecaption_ml.captions.labels import BIT, names_of
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.taxonomy import ATTRIBUTES, FEMALE
from facecaption_ml.texts import shortened

SHOWN: Final = 120
"""Characters of a description that a message repeats."""
_LEAST: Final = 1e-4  # so that one label of which the predictor is certain does not outweigh all others
_NO_BEARD: Final = BIT["No_Beard"]
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Query:
    """Names of attributes, ``FEMALE`` among them: ``wanted`` and ``unwanted``."""

    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing that a label could answer."""
        return not (self.wanted or self.unwanted)

    def __str__(self) -> str:
        """For people: ``Bald, Male, not Smiling``."""
        return ", ".join([*self.wanted, *(f"not {name}" for name in self.unwanted)]) or "no label"

    def scores(self, probabilities: npt.ArrayLike) -> Scores:
        """float32 [N], at most 0: the log probability of the query for each face of ``probabilities`` [N, 40]."""
        p = np.clip(np.asarray(probabilities, np.float64), _LEAST, 1 - _LEAST)
        if p.ndim != 2 or p.shape[1] != len(ATTRIBUTES):
            raise ValueError(f"probabilities must be [N, {len(ATTRIBUTES)}], here {list(p.shape)}")
        total = np.zeros(len(p))
        for names, asked in ((self.wanted, True), (self.unwanted, False)):
            for name in names:
                own = 1 - p[:, _MALE] if name == FEMALE else p[:, ATTRIBUTES.index(name)]
                total += np.log(own if asked else 1 - own)
        return total.astype(np.float32)


_MALE: Final = ATTRIBUTES.index("Male")


def read_query(text: str) -> Query:
    """What the description says of the 40 attributes and of the gender; a query that says nothing of them is empty.

    Raises FaceCaptionError for an empty text, and for one that wants a label and its opposite.
    """
    if not text.strip():
        raise FaceCaptionError("the description is empty: say what to look for, such as 'a smiling woman with glasses'")
    said = parse(text, bundled_lexicon())
    denied = said.denied | said.ruled_out
    if said.facial_hair:
        denied |= _NO_BEARD
    both = said.asserted & said.denied
    if both:
        raise FaceCaptionError(f"{shortened(text, SHOWN)!r} wants {names_of(both)[0]} and does not: say one of them")
    return Query(names_of(said.asserted), names_of(denied & ~said.asserted))


def combined(labels: Scores, flip: Scores, weight: float = 1.0) -> Scores:
    """Scores of the same faces [N] by labels and by FLIP as one: each with mean 0 and deviation 1 over the faces, FLIP's times
    ``weight``, added up."""
    total = np.zeros(len(labels), np.float64)
    for one, share in ((labels, 1.0), (flip, weight)):
        spread = float(np.std(one))
        total += share * (np.asarray(one, np.float64) - float(np.mean(one))) / spread if spread else 0.0
    return total.astype(np.float32)


def best(scores: Scores, k: int) -> npt.NDArray[np.int64]:
    """The places of the ``k`` best scores, best first, of equals the first."""
    return np.argsort(-scores, kind="stable")[:k]
