"""Every data set of the benchmarks. A new one is a module here that declares its ``DATA_SETS``, and its line in ``_MODULES``.

The order is that of the tables' columns. Partitions, settings, schedules, tables and the documentation follow from this list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from facecaption_ml.benchmarks.datasets import (
    celeba,
    celeba_caption,
    fs2k_sde,
    lfwa,
    mm_celeba_hq,
    photo_episodes,
    sample,
)
from facecaption_ml.benchmarks.datasets.spec import DataSetSpec, FolderSpec

_MODULES: Final = (
    celeba_caption,
    mm_celeba_hq,
    celeba,
    lfwa,
    fs2k_sde,
    sample,
    photo_episodes,
)
DATA_SETS: Final[Sequence[DataSetSpec]] = tuple(spec for module in _MODULES for spec in module.DATA_SETS)
FOLDERS: Final[Mapping[str, FolderSpec]] = {folder.name: folder for spec in DATA_SETS for folder in spec.folders}
"""Every folder that some data set is read from, by name."""


def data_sets(task: str) -> Mapping[str, DataSetSpec]:
    """The data sets of a task by name, in the order of the tables; none for a task that there is not."""
    return {spec.name: spec for spec in DATA_SETS if spec.task == task}
