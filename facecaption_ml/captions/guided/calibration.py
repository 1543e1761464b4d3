"""What has been measured of a model under guidance: how likely its texts must be, and whether they are worth having.

A floor of fluency is a property of one model: another one spreads its probabilities otherwise, so a floor is kept with the
name of the weights that it was found for (``calibration.toml``) and holds for no others.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from facecaption_ml.captions.guided.constraint import VERSION

_LEAST_WINS: Final = 0.4  # of the pairs
_MOST_NONSENSE: Final = 0.03


@dataclass(frozen=True)
class Calibration:
    """``least_fluency``: lowest mean log-probability of a token; ``wins`` and ``nonsense`` of so many judged ``pairs``."""

    least_fluency: float
    pairs: int = 0
    wins: int = 0
    nonsense: int = 0

    @property
    def worth_having(self) -> bool:
        """Whether the rewrites, read blind beside their templates, count as better than nothing."""
        return self.wins >= _LEAST_WINS * self.pairs > 0 and self.nonsense <= _MOST_NONSENSE * self.pairs

    @property
    def told(self) -> str:
        """The judgement in a sentence."""
        judged = f"read blind beside their templates, its rewrites won {self.wins} of {self.pairs} pairs"
        return f"{judged}, {self.nonsense} of them nonsense"


def calibration_of(model_id: str) -> Calibration | None:
    """What was measured of the weights that ``model_id`` names, None where nothing was under today's rules."""
    measured = _measured()
    entry = measured.get(model_id.rpartition("/")[0] or model_id)
    return None if entry is None or measured["rules"] != VERSION else Calibration(**entry)


@cache
def _measured() -> dict:
    return tomllib.loads(Path(__file__).with_name("calibration.toml").read_text(encoding="utf-8"))
