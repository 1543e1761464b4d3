"""Pictures whose right features are known: 4 × 4 blocks of grey, captions that name the tones, drawings that fill them in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from facecaption_ml.benchmarks.datasets.data import Episode, EpisodeData, LabelData, PairData, Pictures, Source
from facecaption_ml.benchmarks.datasets.pictures import StoredPictures
from facecaption_ml.benchmarks.encoders.features import FeatureCache
from facecaption_ml.benchmarks.encoders.models import FrozenModel, ImageFeatures, layer_names
from facecaption_ml.benchmarks.result import Measurement
from facecaption_ml.flip.pairs.augmentation import plain_view
from facecaption_ml.storage.store import Store
from png_files import png

BLOCKS = 16
PAPER = 128  # of a block that is not drawn yet
Tones = npt.NDArray[np.uint8]


def tones_of(count: int, seed: int = 0) -> Tones:
    """uint8 [count, 16]."""
    return np.random.default_rng(seed).integers(0, 256, (count, BLOCKS), np.uint8)


def picture_of(tones: Tones) -> bytes:
    """A PNG of 16 × 16 px."""
    image = np.repeat(np.repeat(tones.reshape(4, 4), 4, axis=0), 4, axis=1)
    return png(np.stack([image] * 3, axis=-1))


def caption_of(tones: Tones) -> str:
    return " ".join(str(tone) for tone in tones.tolist())


def stored(store: Store, folder: str, tones: Tones, damaged: Sequence[int] = ()) -> StoredPictures:
    """The pictures of ``tones`` as files; the ``damaged`` rows hold no picture."""
    files = {f"{folder}/{row:04d}.png": picture_of(own) for row, own in enumerate(tones)}
    for row in damaged:
        files[f"{folder}/{row:04d}.png"] = b"no picture"
    for key, data in files.items():
        store.write_bytes(key, data)
    return StoredPictures(store, list(files), [len(data) for data in files.values()])


def splits_of(*counts: int) -> dict[str, npt.NDArray[np.int64]]:
    """So many rows for train, test and, as a third, validation, one after the other."""
    bounds = np.cumsum([0, *counts])
    names = ("train", "test", "validation")[: len(counts)]
    return {name: np.arange(bounds[i], bounds[i + 1]) for i, name in enumerate(names)}


def pairs(store: Store, *counts: int, captions: int = 1, damaged: Sequence[int] = ()) -> PairData:
    """Pictures with so many ``captions`` each: the tones, then the tones made a little lighter."""
    tones = tones_of(sum(counts))
    texts = [tuple(caption_of(np.minimum(own, 250) + n) for n in range(captions)) for own in tones]
    return PairData(Source("tones", f"{counts}"), stored(store, "pairs", tones, damaged), texts, splits_of(*counts))


def labelled(store: Store, *counts: int, damaged: Sequence[int] = ()) -> LabelData:
    """Attribute i is whether the blocks i and i + 5 together are lighter than the paper."""
    tones = tones_of(sum(counts))
    first, second = np.arange(40) % BLOCKS, (np.arange(40) + 5) % BLOCKS
    labels = tones[:, first].astype(int) + tones[:, second] > 2 * PAPER
    return LabelData(Source("tones", f"{counts}"), stored(store, "labels", tones, damaged), labels, splits_of(*counts))


def drawings(
    store: Store,
    *counts: int,
    stages: Sequence[int] = (4,),
    captions: bool = True,
    damaged_photos: Sequence[int] = (),
    damaged_sketches: Sequence[int] = (),
) -> EpisodeData:
    """One drawing of each photo, block after block; drawing i has ``stages[i % len(stages)]`` stages."""
    tones = tones_of(sum(counts))
    episodes, pages = [], []
    for row, own in enumerate(tones):
        steps = stages[row % len(stages)]
        episodes.append(Episode(row, tuple(range(len(pages), len(pages) + steps))))
        for stage in range(1, steps + 1):
            drawn = np.arange(BLOCKS) < round(BLOCKS * stage / steps)
            pages.append(np.where(drawn, own, PAPER).astype(np.uint8))
    return EpisodeData(
        Source("tones", f"{counts} {stages}"),
        photos=stored(store, "photos", tones, damaged_photos),
        sketches=stored(store, "sketches", np.stack(pages), damaged_sketches),
        episodes=episodes,
        captions=[caption_of(own) for own in tones] if captions else [],
        splits=splits_of(*counts),
    )


class ToneModel:
    """A frozen model that reads the tones: features are turned tones, other turns for pictures, texts and layers.

    ``seen`` and ``read`` count the pictures and texts that it was given; ``spoilt`` is put in place of the features of
    pictures whose first block is black.
    """

    def __init__(
        self, name: str = "tones", version: str = "1", *, layers: int = 2, spoilt: float | None = None
    ) -> None:
        self.name, self.version, self.side = name, version, BLOCKS
        self.layer_names: Sequence[str] = layer_names(layers) if layers else []
        self.seen, self.read = 0, 0
        self._spoilt = spoilt
        turns = np.random.default_rng(0).normal(size=(2 + len(self.layer_names), BLOCKS, BLOCKS))
        self._turns = np.linalg.qr(turns)[0]

    def sized(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        return image

    def encode_images(self, images: Sequence[npt.NDArray[np.uint8]]) -> ImageFeatures:
        self.seen += len(images)
        views = np.stack([plain_view(image, BLOCKS)[..., 0] for image in images]).astype(np.float64)
        tones = views.reshape(-1, 4, 4, 4, 4).mean(axis=(2, 4)).reshape(-1, BLOCKS)
        values = (tones - PAPER) / 64
        pooled = (values @ self._turns[0]).astype(np.float32)
        if self._spoilt is not None:
            pooled[tones[:, 0] == 0, 3] = self._spoilt
        if not self.layer_names:
            return ImageFeatures(pooled, None)
        layers = np.stack([values @ turn for turn in self._turns[2:]], axis=1)
        return ImageFeatures(pooled, layers.astype(np.float32))

    def encode_texts(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.read += len(texts)
        tones = np.full((len(texts), BLOCKS), PAPER, np.float64)  # of blocks that a text does not name
        for own, text in zip(tones, texts, strict=True):
            words = text.split()
            own[: len(words)] = [int(word) for word in words]
        return ((tones - PAPER) / 64 @ self._turns[1]).astype(np.float32)


def values(measurements: Iterable[Measurement]) -> dict[tuple[str, str], float | None]:
    """By setting and metric."""
    return {(m.setting, m.metric): m.value for m in measurements}


def encoded_anew(model: FrozenModel, pictures: Pictures, rows: Sequence[int]) -> ImageFeatures:
    """The slow way, as a probe's training would go without a cache; every picture has to decode."""
    return model.encode_images([image for image in pictures.read(rows) if image is not None])


def cache_of(store: Store, model: ToneModel | None = None, batch_size: int = 32) -> FeatureCache:
    return FeatureCache(store, model or ToneModel(), batch_size)
