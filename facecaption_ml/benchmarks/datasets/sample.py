"""Drawn people (``facecaption_ml.sample``) as data of all three tasks: nothing has to be fetched, and the labels are true.

Pictures are drawn when they are read; labels, captions and splits are known without drawing. A picture follows from its
split, its number in it and the seed alone, so that other counts or another order change none. The people are nobody whom a
scene shows or the attribute predictor trains on: their numbers start where those of both end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Final

import numpy as np

from facecaption_ml.benchmarks.datasets.data import (
    SPLITS,
    Episode,
    EpisodeData,
    LabelData,
    PairData,
    Pictures,
    Rgb,
    Rows,
    Source,
)
from facecaption_ml.benchmarks.datasets.photo_episodes import as_rgb_page, code_version
from facecaption_ml.benchmarks.datasets.pictures import KeptPictures, content_version
from facecaption_ml.benchmarks.datasets.spec import DataSetSpec, OpenOptions
from facecaption_ml.captions.template.grammar import bundled_grammar
from facecaption_ml.captions.template.template import caption_seed
from facecaption_ml.storage.store import Store
from facecaption_ml.taxonomy import ATTRIBUTES

Counts = tuple[int, int, int]
"""Pictures, or episodes, for training, validation and test."""

NAME: Final = "sample"
CAPTIONS_NOTE: Final = "captions: template captions of the labels that the people are drawn from"
_FIRST_PERSON: Final = 2**61  # scenes and labelled portraits have the numbers below
_CROP_STREAM: Final = 0xBE4C1
_EPISODE_STREAM: Final = 0xBE4C2
_CROP_SIDE: Final = 112
_PORTRAIT_SIDE: Final = 256
_PAGE_SIDE: Final = 224
_STEPS_SPREAD: Final = 2


def sample_labels_data(seed: int = 0, counts: Counts = (900, 150, 450)) -> LabelData:
    """Face crops of 112 × 112 pixels, framed like the pipeline's own, with the 40 attributes that they are drawn from."""
    pictures = DrawnCrops(seed, counts)
    labels = np.array([[name in held for name in ATTRIBUTES] for held in pictures.labels], np.bool_)
    source = Source(NAME, pictures.version, notes=("drawn people",))
    return LabelData(source, pictures, labels.reshape(-1, len(ATTRIBUTES)), _splits(counts))


def sample_pairs(seed: int = 0, counts: Counts = (900, 150, 450)) -> PairData:
    """The pictures of ``sample_labels_data`` with a template caption each, made from the true labels."""
    pictures = DrawnCrops(seed, counts)
    captions = _captions(pictures.names, pictures.labels, seed)
    source = Source(NAME, content_version([pictures.version, *captions]), notes=("drawn people", CAPTIONS_NOTE))
    return PairData(source, pictures, [(caption,) for caption in captions], _splits(counts))


def sample_episodes(seed: int = 0, counts: Counts = (120, 30, 80), steps: int = 10) -> EpisodeData:
    """Portraits, framed as crops, and their strokes drawn one after the other in ``steps`` ± 2 sketches (at least one).

    Photos and sketches are 224 × 224 pixels and lie over each other; captions are made from the true labels.
    """
    photos = DrawnPortraits(seed, counts)
    sketches = DrawnSketches(photos, steps)
    ends = np.cumsum(sketches.lengths).tolist()
    episodes = [Episode(row, tuple(range(end - sketches.lengths[row], end))) for row, end in enumerate(ends)]
    captions = _captions(photos.names, photos.labels, seed)
    version = content_version([photos.version, sketches.version, *captions])
    source = Source(NAME, version, notes=("drawn people", CAPTIONS_NOTE))
    return EpisodeData(source, photos, sketches, episodes, captions, _splits(counts))


class _DrawnPeople:
    """People by row: ``person`` is the number each one is drawn from, ``labels`` the attributes. Draws nothing."""

    def __init__(self, stream: int, seed: int, counts: Counts) -> None:
        from facecaption_ml.sample.attribute_sampling import sample_labels

        rows = [(split, number) for split, count in enumerate(counts) for number in range(count)]
        self.names: Sequence[str] = [f"{SPLITS[split]}-{number:05d}" for split, number in rows]
        self._keys = [(stream, seed, split, number) for split, number in rows]
        self.persons = [_FIRST_PERSON + int(self.stream(row).integers(2**60)) for row in range(len(rows))]
        self.labels = [sample_labels(person) for person in self.persons]
        self.version = content_version([f"{stream} {seed}", *self.names, _drawing_version()])

    def stream(self, row: int) -> np.random.Generator:
        """What is random about a row beside its person; the first number drawn is the person's."""
        return np.random.default_rng(self._keys[row])


class DrawnCrops(_DrawnPeople):
    """Crops as the attribute predictor is trained on, RGB uint8 [112, 112, 3], of other people."""

    def __init__(self, seed: int, counts: Counts) -> None:
        super().__init__(_CROP_STREAM, seed, counts)

    def read(self, rows: Sequence[int]) -> list[Rgb | None]:
        """Draws them; never None."""
        from facecaption_ml.sample.labelled import draw_crop

        return [draw_crop(self.stream(row).spawn(1)[0], self.persons[row], _CROP_SIDE) for row in rows]


class DrawnPortraits(_DrawnPeople):
    """Portraits framed as crops, RGB uint8 [224, 224, 3]."""

    def __init__(self, seed: int, counts: Counts) -> None:
        super().__init__(_EPISODE_STREAM, seed, counts)

    def read(self, rows: Sequence[int]) -> list[Rgb | None]:
        """Draws them; never None."""
        from facecaption_ml.sample.labelled import framed
        from facecaption_ml.sample.portraits import draw_portrait

        portraits = (draw_portrait(self.labels[row], self.persons[row], _PORTRAIT_SIDE) for row in rows)
        return [framed(portrait, _PAGE_SIDE).image for portrait in portraits]


class DrawnSketches:
    """The sketches of portraits, one episode after the other, RGB uint8 [224, 224, 3]; ``lengths`` are the episodes'."""

    def __init__(self, portraits: DrawnPortraits, steps: int) -> None:
        if steps < 1:
            raise ValueError(f"steps is {steps}; an episode has at least one")
        self._portraits = portraits
        self.lengths = [
            max(1, steps + int(portraits.stream(row).spawn(1)[0].integers(-_STEPS_SPREAD, _STEPS_SPREAD + 1)))
            for row in range(len(portraits.names))
        ]
        self._pages = [(row, page) for row, length in enumerate(self.lengths) for page in range(length)]
        self.names: Sequence[str] = [f"{portraits.names[row]}/{page + 1:02d}" for row, page in self._pages]
        self.version = content_version([portraits.version, *self.names])

    def read(self, rows: Sequence[int]) -> list[Rgb | None]:
        """Draws them, each person once; never None."""
        from facecaption_ml.sample.episodes import sketch_episode
        from facecaption_ml.sample.labelled import framed
        from facecaption_ml.sample.portraits import draw_portrait

        by_row: dict[int, Rgb] = {}
        for person in dict.fromkeys(self._pages[row][0] for row in rows):
            people = self._portraits
            portrait = draw_portrait(people.labels[person], people.persons[person], _PORTRAIT_SIDE)
            pages = sketch_episode(framed(portrait, _PAGE_SIDE), self.lengths[person], _PAGE_SIDE)
            own = (row for row in rows if self._pages[row][0] == person)
            by_row.update((row, as_rgb_page(pages[self._pages[row][1]])) for row in own)
        return [by_row[row] for row in rows]


def _captions(names: Sequence[str], labels: Sequence[frozenset[str]], seed: int) -> list[str]:
    """The labels of a drawn person do not contradict each other (``sample_labels``), and tell the gender."""
    grammar = bundled_grammar()
    return [
        grammar.caption(sorted(held), "male" if "Male" in held else "female", caption_seed(name, grammar.version, seed))
        for name, held in zip(names, labels, strict=True)
    ]


def _splits(counts: Counts) -> dict[str, Rows]:
    ends = np.cumsum(counts).tolist()
    rows = {split: np.arange(end - count, end) for split, count, end in zip(SPLITS, counts, ends, strict=True)}
    return {split: own for split, own in rows.items() if len(own)}


def _drawing_version() -> str:
    names = sorted(file.name for file in files("facecaption_ml.sample").iterdir())
    return code_version([f"sample/{name}" for name in names if name.endswith((".py", ".toml"))])


def split_counts(count: int) -> Counts:
    """Of ``count``: for training, validation (an eighth) and test (three eighths)."""
    validation, test = max(1, count // 8), max(1, 3 * count // 8)
    return count - validation - test, validation, test


def _kept(pictures: Pictures, options: OpenOptions) -> Pictures:
    return KeptPictures(pictures, options.drawn) if options.drawn else pictures


def _open_pairs(_: Mapping[str, Store], options: OpenOptions) -> PairData:
    data = sample_pairs(options.seed, split_counts(options.sample_pictures))
    return dataclasses.replace(data, pictures=_kept(data.pictures, options))


def _open_labels(_: Mapping[str, Store], options: OpenOptions) -> LabelData:
    data = sample_labels_data(options.seed, split_counts(options.sample_pictures))
    return dataclasses.replace(data, pictures=_kept(data.pictures, options))


def _open_episodes(_: Mapping[str, Store], options: OpenOptions) -> EpisodeData:
    data = sample_episodes(options.seed, split_counts(options.sample_drawings))
    return dataclasses.replace(data, photos=_kept(data.photos, options), sketches=_kept(data.sketches, options))


DATA_SETS: Final = tuple(
    DataSetSpec(name=NAME, task=task, title="Drawn sample", folders=(), open=opens, published=False)
    for task, opens in (("retrieval", _open_pairs), ("attributes", _open_labels), ("sketches", _open_episodes))
)
