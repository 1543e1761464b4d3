"""What a data set says of itself before it is opened: its name, its benchmark, the folders it needs, and how it is opened.

A reader's module declares its data sets as ``DATA_SETS``; ``registry.py`` lists the modules. Neither opens anything nor
imports a heavy library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from facecaption_ml.benchmarks.datasets.data import Describe, EpisodeData, LabelData, PairData
from facecaption_ml.storage.store import Store

BenchmarkData = PairData | LabelData | EpisodeData


@dataclass(frozen=True)
class FolderSpec:
    """A folder or S3 prefix that a user supplies. ``description`` says what it holds; an optional one may be absent."""

    name: str
    description: str
    optional: bool = False


@dataclass(frozen=True)
class OpenOptions:
    """What opening may depend on beside the folders.

    ``describe`` writes captions of photos that have none. ``sample_pictures`` and ``sample_drawings`` are the sizes of the
    drawn data sets, all splits together; their pictures are kept in ``drawn``, so that they are drawn once, or nowhere.
    """

    seed: int = 0
    describe: Describe | None = None
    sample_pictures: int = 850
    sample_drawings: int = 160
    drawn: Store | None = None


@dataclass(frozen=True)
class DataSetSpec:
    """A data set of the benchmark ``task`` (retrieval, attributes, sketches).

    ``title`` heads its columns in the tables. ``folders``: the first is the one it stands or falls with; one that is made
    here has none. ``published``: whether papers report numbers on it. ``open`` gets a store for each folder by its name, but
    for optional ones that are absent, and raises BenchmarkDataError naming the folder for what is missing or malformed.
    """

    name: str
    task: str
    title: str
    folders: tuple[FolderSpec, ...]
    open: Callable[[Mapping[str, Store], OpenOptions], BenchmarkData]
    published: bool = True
