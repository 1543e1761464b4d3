"""Any folder of photos as sketch episodes: each photo's edges, drawn line by line (``contours.py``)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from typing import Final

import numpy as np

from facecaption_ml.benchmarks.datasets.assembly import exclusions
from facecaption_ml.benchmarks.datasets.data import (
    BenchmarkDataError,
    Describe,
    Episode,
    EpisodeData,
    Pictures,
    Rgb,
    Rows,
    Source,
)
from facecaption_ml.benchmarks.datasets.pictures import StoredPictures, content_version, each_photo, is_picture
from facecaption_ml.benchmarks.datasets.sketch_assembly import WITHOUT_CAPTIONS
from facecaption_ml.benchmarks.datasets.spec import DataSetSpec, FolderSpec
from facecaption_ml.storage.store import Store, StoreError

PHOTOS: Final = FolderSpec("photos", "any photos, to be turned into sketches by their contours")
_DRAWN_BY: Final = ("benchmarks/datasets/contours.py", "sample/episodes.py")
_SHARES: Final = {"validation": 0.1, "test": 0.2}
_LEAST_PHOTOS: Final = 3  # one for each split


def photo_episodes(store: Store, describe: Describe | None, steps: int = 20, seed: int = 0) -> EpisodeData:
    """The pictures under a store's root, each with an episode of ``steps`` sketches that are drawn when they are read.

    A photo's place in the order of a hash of ``seed`` and its file name decides its split: 70 % train, 10 % validation,
    20 % test, at least one each. ``describe`` gives a photo's caption; without it there are none. Each photo is looked at
    once: those that do not decode, have no edge to draw or get no caption are left out and counted.
    Raises BenchmarkDataError where fewer than 3 photos remain, ValueError for fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; an episode has at least one")
    sizes = _listing(store)
    captions, excluded = _look_at(StoredPictures(store, list(sizes), list(sizes.values())), describe)
    if len(captions) < _LEAST_PHOTOS:
        raise BenchmarkDataError(
            f"{len(captions)} of the {len(sizes)} photos under {store.root} can be used, {_LEAST_PHOTOS} or more"
            f" are needed{exclusions(excluded)}",
            PHOTOS.name,
        )
    photos = StoredPictures(store, list(captions), [sizes[key] for key in captions])
    sketches = SketchedPhotos(photos, steps)
    episodes = [Episode(row, tuple(range(row * steps, (row + 1) * steps))) for row in range(len(captions))]
    texts = list(captions.values()) if describe else []
    parts = [photos.version, sketches.version, str(seed), *texts]
    notes = ("sketches: edges of the photos", *(() if describe else (WITHOUT_CAPTIONS,)))
    source = Source("photos", content_version(parts), dict(excluded), notes)
    return EpisodeData(source, photos, sketches, episodes, texts, _hashed_splits(photos.names, seed))


class SketchedPhotos:
    """The sketches of photos: row ``photo * steps + step``. ``size`` is a sketch's side in pixels."""

    def __init__(self, photos: Pictures, steps: int, size: int = 256) -> None:
        self.names: Sequence[str] = [f"{name}#{step + 1}" for name in photos.names for step in range(steps)]
        self.version = content_version([photos.version, str(steps), str(size), code_version(_DRAWN_BY)])
        self._photos, self._steps, self._size = photos, steps, size

    def read(self, rows: Sequence[int]) -> list[Rgb | None]:
        """RGB uint8 [size, size, 3] for each of the rows, None where the photo is absent or does not decode."""
        from facecaption_ml.benchmarks.datasets.contours import photo_sketches

        by_row: dict[int, Rgb | None] = {}
        for number in dict.fromkeys(row // self._steps for row in rows):
            (photo,) = self._photos.read([number])
            pages = photo_sketches(photo, self._steps, self._size) if photo is not None else None
            for row in (row for row in rows if row // self._steps == number):
                by_row[row] = as_rgb_page(pages[row % self._steps]) if pages else None
        return [by_row[row] for row in rows]


def as_rgb_page(page: Rgb) -> Rgb:
    """A grey sketch, uint8 [H, W], as RGB uint8 [H, W, 3]."""
    return np.repeat(page[:, :, None], 3, axis=2)


def code_version(paths: Sequence[str]) -> str:
    """16 hex digits of source files of this package: pictures that they draw differ where one of them does."""
    package = files("facecaption_ml")
    return content_version(package.joinpath(path).read_text("utf-8") for path in paths)


def _listing(store: Store) -> dict[str, int]:
    try:
        return {key: size for key, size in store.sizes().items() if is_picture(key)}
    except (StoreError, OSError) as error:
        raise BenchmarkDataError(" ".join(str(error).splitlines()), PHOTOS.name) from error


def _look_at(photos: Pictures, describe: Describe | None) -> tuple[dict[str, str], Counter[str]]:
    """The caption of each photo that can be used, empty where nothing describes them; and the others counted by reason."""
    from facecaption_ml.benchmarks.datasets.contours import photo_curves

    captions: dict[str, str] = {}
    excluded: Counter[str] = Counter()
    for name, photo in each_photo(photos):
        if photo is None:
            excluded["photo does not decode"] += 1
        elif not photo_curves(photo):
            excluded["photo without edges"] += 1
        else:
            caption = describe(photo).strip() if describe else ""
            if describe and not caption:
                excluded["no caption"] += 1
            else:
                captions[name] = caption
    return captions, excluded


def _hashed_splits(names: Sequence[str], seed: int) -> dict[str, Rows]:
    order = sorted(range(len(names)), key=lambda row: hashlib.sha256(f"{seed}\n{names[row]}".encode()).digest())
    sizes = {split: max(1, round(share * len(names))) for split, share in _SHARES.items()}
    sizes["train"] = len(names) - sum(sizes.values())
    splits, first = {}, 0
    for split in ("test", "validation", "train"):
        splits[split] = np.sort(np.array(order[first : first + sizes[split]], np.int64))
        first += sizes[split]
    return splits


DATA_SETS: Final = (
    DataSetSpec(
        name="photos",
        task="sketches",
        title="Photos",
        folders=(PHOTOS,),
        open=lambda folders, options: photo_episodes(folders[PHOTOS.name], options.describe, seed=options.seed),
        published=False,
    ),
)
