"""From drawings and the photos they show to episodes: captions, what is excluded, and the version of it all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from facecaption_ml.benchmarks.datasets.assembly import blaming
from facecaption_ml.benchmarks.datasets.data import (
    Describe,
    Episode,
    EpisodeData,
    Pictures,
    Source,
)
from facecaption_ml.benchmarks.datasets.folder import DataFolder
from facecaption_ml.benchmarks.datasets.pictures import JoinedPictures, content_version, each_photo

SPLITS: Final = ("train", "test")
WITHOUT_CAPTIONS: Final = "no captions: only sketches can be asked with"


@dataclass(frozen=True, order=True)
class PhotoKey:
    """A photo by its key. ``with_sketches``: it lies in the folder of the sketches, not in that of the photos."""

    with_sketches: bool
    key: str


@dataclass(frozen=True)
class SketchFolders:
    """The two folders that a sketch data set is read from."""

    sketches: DataFolder
    photos: DataFolder

    def find_photo(self, keys: Sequence[str]) -> PhotoKey | None:
        """The first of the keys in the folder of the photos, else the first in that of the sketches."""
        for with_sketches, folder in ((False, self.photos), (True, self.sketches)):
            key = folder.find(*keys)
            if key is not None:
                return PhotoKey(with_sketches, key)
        return None

    def pictures_of(self, photos: Sequence[PhotoKey]) -> Pictures:
        """The photos by row, in the given order, which is ascending."""
        parts = ((False, self.photos), (True, self.sketches))
        return JoinedPictures(
            [
                folder.stored_pictures([photo.key for photo in photos if photo.with_sketches == with_sketches])
                for with_sketches, folder in parts
            ]
        )


@dataclass(frozen=True)
class Drawing:
    """The sketches of one photo, keys from the first strokes to the last; ``caption`` is empty where there is none."""

    split: str
    photo: PhotoKey
    sketches: tuple[str, ...]
    caption: str


@dataclass(frozen=True)
class Episodes:
    """An EpisodeData in the making, which may lack a split: ``splits`` has that of each episode."""

    photos: Pictures
    sketches: Pictures
    episodes: Sequence[Episode]
    splits: Sequence[str]
    captions: Sequence[str]
    excluded: Mapping[str, int]
    notes: Sequence[str]

    def as_data(self, name: str, folder: DataFolder) -> EpisodeData:
        """The finished data set. Raises BenchmarkDataError naming ``folder``, where EpisodeData does."""
        of_episode = np.array(self.splits, dtype=str)
        rows = {split: np.flatnonzero(of_episode == split).astype(np.int64) for split in SPLITS}
        parts = (f"{split} {e.photo} {e.sketches}" for split, e in zip(self.splits, self.episodes, strict=True))
        version = content_version([self.photos.version, self.sketches.version, *parts, "", *self.captions])
        source = Source(name, version, self.excluded, self.notes)
        with blaming(folder, self.excluded):
            return EpisodeData(source, self.photos, self.sketches, self.episodes, self.captions, rows)


def assemble(
    folders: SketchFolders, drawings: Sequence[Drawing], describe: Describe | None, excluded: Counter[str]
) -> Episodes:
    """The drawings whose photos have captions, or all of them where no photo has one. Adds the others to ``excluded``."""
    captions, lacking, notes = _captions(folders, drawings, describe)
    excluded.update(lacking[drawing.photo] for drawing in drawings if drawing.photo in lacking)
    kept = [drawing for drawing in drawings if drawing.photo not in lacking]
    photo_rows = {photo: row for row, photo in enumerate(sorted({drawing.photo for drawing in kept}))}
    keys = dict.fromkeys(key for drawing in kept for key in drawing.sketches)
    sketch_rows = {key: row for row, key in enumerate(keys)}
    return Episodes(
        photos=folders.pictures_of(list(photo_rows)),
        sketches=folders.sketches.stored_pictures(list(sketch_rows)),
        episodes=[Episode(photo_rows[d.photo], tuple(sketch_rows[key] for key in d.sketches)) for d in kept],
        splits=[drawing.split for drawing in kept],
        captions=[captions[photo] for photo in photo_rows] if captions else [],
        excluded={reason: count for reason, count in sorted(excluded.items()) if count},
        notes=notes,
    )


def _captions(
    folders: SketchFolders, drawings: Sequence[Drawing], describe: Describe | None
) -> tuple[dict[PhotoKey, str], dict[PhotoKey, str], list[str]]:
    """Captions by photo, the reasons why others have none, and what the tables say of them."""
    captions = {drawing.photo: drawing.caption for drawing in reversed(drawings) if drawing.caption}
    given = len(captions)
    missing = sorted({drawing.photo for drawing in drawings} - captions.keys())
    lacking = dict.fromkeys(missing, "no caption")
    if describe and missing:
        for key, (_, photo) in zip(missing, each_photo(folders.pictures_of(missing)), strict=True):
            if photo is None:
                lacking[key] = "photo does not decode"
            elif caption := describe(photo).strip():
                captions[key] = caption
                del lacking[key]
    if not captions and not describe:
        return {}, {}, [WITHOUT_CAPTIONS]
    notes = [f"captions: {given:,} from the data set's files, {len(captions) - given:,} written for the photos"]
    return captions, lacking, notes


def tested_on(trained_on: EpisodeData, test: Episodes) -> Episodes:
    """The train split of ``trained_on``, and all of ``test``."""
    train = [trained_on.episodes[row] for row in trained_on.splits["train"].tolist()]
    photos, sketches = len(trained_on.photos.names), len(trained_on.sketches.names)
    shifted = [Episode(e.photo + photos, tuple(row + sketches for row in e.sketches)) for e in test.episodes]
    with_captions = bool(trained_on.captions and test.captions)
    of_training = {f"{reason} ({trained_on.source.name})": n for reason, n in trained_on.source.excluded.items()}
    return Episodes(
        photos=JoinedPictures([trained_on.photos, test.photos]),
        sketches=JoinedPictures([trained_on.sketches, test.sketches]),
        episodes=[*train, *shifted],
        splits=["train"] * len(train) + ["test"] * len(shifted),
        captions=[*trained_on.captions, *test.captions] if with_captions else [],
        excluded={**test.excluded, **of_training},
        notes=[f"trained on {trained_on.source.name}", *(test.notes if with_captions else [WITHOUT_CAPTIONS])],
    )
