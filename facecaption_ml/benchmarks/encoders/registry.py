"""Every model of the benchmarks, in the order of the tables' rows: FLIP's variants, then the baselines of ``hub_models.py``.

A new baseline is an entry of ``HUB_MODELS``; partitions, settings and tables follow. Imports no heavy library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from facecaption_ml.benchmarks.encoders.hub_models import HUB_MODELS

FLIP_VARIANTS: Final[Mapping[str, str]] = {"flip": "FLIP", "flip_template": "FLIP*", "flip_alt_text": "FLIP†"}
"""What a FLIP checkpoint learned from, with the paper's name of it."""
MODEL_TITLES: Final[Mapping[str, str]] = {**FLIP_VARIANTS, **{name: spec.title for name, spec in HUB_MODELS.items()}}
"""The name of every model in the tables."""
_PROBES_LAYERS: Final = "attributes"


def models_of(task: str) -> Sequence[str]:
    """The models that can take part in a task: the attribute probe needs features layer by layer."""
    baselines = (name for name, spec in HUB_MODELS.items() if spec.has_layers or task != _PROBES_LAYERS)
    return [*FLIP_VARIANTS, *baselines]
