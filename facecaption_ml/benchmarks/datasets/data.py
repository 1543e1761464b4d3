"""What a benchmark is measured on: pictures by row, and what belongs to them, with the data set's own splits.

A reader (``datasets/``) gives ``PairData`` (retrieval), ``LabelData`` (attributes) or ``EpisodeData`` (sketches). Nothing is
decoded before it is asked for. What a list names and the folder lacks, or the other way round, is left out and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from facecaption_ml.errors import FaceCaptionError

SPLITS: Final = ("train", "validation", "test")
Rows = npt.NDArray[np.int64]
Rgb = npt.NDArray[np.uint8]
Describe = Callable[[Rgb], str]
"""The caption of a photo, RGB uint8 [H, W, 3]; empty where there is none."""


class BenchmarkDataError(FaceCaptionError):
    """A data set cannot be used; one line that names the folder, file, line or split that is wrong, and what to do.

    ``folder``: the name of the folder at fault (``registry.FOLDERS``), where there is one. The message begins with it.
    """

    def __init__(self, message: str, folder: str | None = None) -> None:
        super().__init__(f"{folder}: {message}" if folder else message)
        self.folder = folder


class Pictures(Protocol):
    """Pictures by row."""

    @property
    def names(self) -> Sequence[str]:
        """One for each row."""

    @property
    def version(self) -> str:
        """Differs where a name or a picture does."""

    def read(self, rows: Sequence[int]) -> list[Rgb | None]:
        """RGB uint8 [H, W, 3] for each of the rows, None where a file is absent or does not decode."""


@dataclass(frozen=True)
class Source:
    """What a data set says of itself, and what was left out of it.

    ``excluded`` counts rows by reason; ``notes`` are lines that a table carries with the numbers, such as where captions
    come from. ``version`` differs where anything that a number depends on does.
    """

    name: str
    version: str
    excluded: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class PairData:
    """Pictures with captions, one or several each: ``captions[row]`` belongs to ``pictures.names[row]``.

    ``splits`` maps ``train``, ``test`` and, where the data set has one, ``validation`` to rows. Raises BenchmarkDataError
    for an empty train or test split, a row in two splits, and a picture without caption.
    """

    source: Source
    pictures: Pictures
    captions: Sequence[tuple[str, ...]]
    splits: Mapping[str, Rows]

    def __post_init__(self) -> None:
        _require_splits(self.source.name, self.splits, len(self.pictures.names))
        if len(self.captions) != len(self.pictures.names) or not all(self.captions):
            raise BenchmarkDataError(f"{self.source.name}: every picture needs a caption")


@dataclass(frozen=True)
class LabelData:
    """Pictures with CelebA's 40 attributes, bool [N, 40] in the order of ``taxonomy.ATTRIBUTES``. Raises as PairData does."""

    source: Source
    pictures: Pictures
    labels: npt.NDArray[np.bool_]
    splits: Mapping[str, Rows]

    def __post_init__(self) -> None:
        _require_splits(self.source.name, self.splits, len(self.pictures.names))
        if self.labels.shape != (len(self.pictures.names), 40):
            raise BenchmarkDataError(f"{self.source.name}: labels are {self.labels.shape}, not one row a picture")


@dataclass(frozen=True)
class Episode:
    """One drawing of a photo: rows of its partial sketches, from the first strokes to the whole sketch."""

    photo: int
    sketches: tuple[int, ...]


@dataclass(frozen=True)
class EpisodeData:
    """Drawings of photos. ``captions`` has a text for each photo, or is empty: then only sketches can be asked with.

    ``splits`` maps to rows of ``episodes``; the gallery of a split is the photos of its episodes, each once. Raises
    BenchmarkDataError for an empty train or test split, an episode in two, and an episode without sketches.
    """

    source: Source
    photos: Pictures
    sketches: Pictures
    episodes: Sequence[Episode]
    captions: Sequence[str]
    splits: Mapping[str, Rows]

    def __post_init__(self) -> None:
        _require_splits(self.source.name, self.splits, len(self.episodes), "episodes")
        if self.captions and len(self.captions) != len(self.photos.names):
            raise BenchmarkDataError(
                f"{self.source.name}: {len(self.captions)} captions, {len(self.photos.names)} photos"
            )
        for number, episode in enumerate(self.episodes):
            if not episode.sketches:
                raise BenchmarkDataError(f"{self.source.name}: episode {number} has no sketches")


def _require_splits(name: str, splits: Mapping[str, Rows], count: int, what: str = "pictures") -> None:
    for split in ("train", "test"):
        if not len(splits.get(split, ())):
            raise BenchmarkDataError(f"{name}: the {split} split has no {what}")
    unknown = sorted(set(splits) - set(SPLITS))
    if unknown:
        raise BenchmarkDataError(f"{name}: there is no split {unknown[0]!r}; the splits are {', '.join(SPLITS)}")
    rows = np.concatenate(list(splits.values()))
    if rows.min() < 0 or rows.max() >= count:
        raise BenchmarkDataError(f"{name}: a split names row {int(rows.max())} of {count} {what}")
    if len(np.unique(rows)) < len(rows):
        raise BenchmarkDataError(f"{name}: {what} stand in two splits, or twice in one")
