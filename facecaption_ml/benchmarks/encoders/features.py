"""Frozen features, computed once for a model and a data set, kept in half precision and shared by all probes.

They lie under ``benchmark_features/<model>/<model version>/``:

    <pictures' version>/view-<v>/pooled-<chunk>.npz    readable bool [n], pooled float16 [n, D]
    <pictures' version>/view-<v>/layers-<chunk>.npz    readable bool [n], layers float16 [n, V, W]
    <pictures' version>/<name>.npz                     a number measured of pictures with texts
    texts/<texts' version>.npz                         texts float16 [n, D]

A chunk holds ``CHUNK`` rows of the pictures, whatever splits they are in, so that tasks with other splits of the same pictures
share them, memory stays bounded and an interrupted run resumes at the next chunk. View 0 is the plain picture; views 1, 2, …
are random ones by ``flip.augmentation.training_view``, drawn from the row and the view alone.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from facecaption_ml.benchmarks.datasets.data import Pictures, Rgb
from facecaption_ml.benchmarks.datasets.pictures import content_version
from facecaption_ml.benchmarks.encoders.models import FrozenModel, ImageFeatures
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.flip.pairs.augmentation import training_view
from facecaption_ml.storage.store import Store

FOLDER: Final = "benchmark_features"
CHUNK: Final = 2048
_TEXTS: Final = 16_384
_VIEW_STREAM: Final = 0x71E35
_AHEAD: Final = 4  # batches that are read while the model is at work
Half = npt.NDArray[np.float16]


class FeatureError(FaceCaptionError):
    """A model gave features that nothing can be learned from; one line that names the model and the picture or text."""


@dataclass(frozen=True)
class PictureFeatures:
    """Of some rows of the pictures, in the order asked for; rows that did not decode are False in ``readable`` and zero."""

    pooled: Half  # [N, D]
    layers: Half | None  # [N, V, W]
    readable: npt.NDArray[np.bool_]  # [N]


class FeatureCache:
    """Features of one model. ``encoded`` counts the pictures and texts that were not in the store yet.

    ``on_progress`` gets the number of rows done and to do of the current call.
    """

    def __init__(
        self,
        store: Store,
        model: FrozenModel,
        batch_size: int = 32,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.model, self.encoded, self.batch_size = model, 0, batch_size
        self._store, self._batch, self._on_progress = store, batch_size, on_progress
        self._folder = f"{FOLDER}/{model.name}/{model.version}"

    def pictures(self, pictures: Pictures, rows: Sequence[int], *, layers: bool, view: int = 0) -> PictureFeatures:
        """Features of ``rows``. With ``layers`` both kinds are computed in one pass, and both are kept.

        Raises FeatureError for a feature that is not finite in half precision, for a model without layers where they are
        wanted, and where none of the rows decodes.
        """
        if layers and not self.model.layer_names:
            raise FeatureError(
                f"{self.model.name} has no layers of tokens, so there is nothing to probe layer by layer"
            )
        if not len(rows):
            raise FeatureError("no rows were asked for")
        wanted = np.asarray(rows, np.int64)
        features: PictureFeatures | None = None
        for number in sorted({int(row) // CHUNK for row in wanted}):
            part = self._chunk(pictures, number, layers, view)
            if part.readable.any():  # else nobody knows how wide its features would be
                at = np.flatnonzero(wanted // CHUNK == number)
                if features is None:
                    features = _empty(len(wanted), part)
                own = wanted[at] - number * CHUNK
                features.pooled[at], features.readable[at] = part.pooled[own], part.readable[own]
                if features.layers is not None and part.layers is not None:
                    features.layers[at] = part.layers[own]
            if self._on_progress:
                self._on_progress(min((number + 1) * CHUNK, len(pictures.names)), len(pictures.names))
        if features is None or not features.readable.any():
            some = pictures.names[int(wanted[0])]
            raise FeatureError(f"not one of {len(wanted):,} pictures decodes, {some} among them: look at the data set")
        return features

    def texts(self, texts: Sequence[str]) -> Half:
        """float16 [N, D]; equal texts are encoded once. Raises FeatureError as ``pictures`` does."""
        if not len(texts):
            raise FeatureError("no texts were asked for")
        distinct = list(dict.fromkeys(texts))
        place = {text: at for at, text in enumerate(distinct)}
        parts = [self._text_chunk(distinct[at : at + _TEXTS]) for at in range(0, len(distinct), _TEXTS)]
        return np.concatenate(parts)[[place[text] for text in texts]]

    def number(self, pictures: Pictures, name: str, measure: Callable[[], float]) -> float:
        """What ``measure`` found of the pictures under that name, asked for once."""
        key = f"{self._folder}/{pictures.version}/{name}.npz"
        kept = self._read(key, ("value",), 1)
        if kept is None:
            kept = {"value": np.array([measure()], np.float64)}
            self._write(key, kept)
        return float(kept["value"][0])

    def _chunk(self, pictures: Pictures, number: int, layers: bool, view: int) -> PictureFeatures:
        rows = range(number * CHUNK, min((number + 1) * CHUNK, len(pictures.names)))
        folder = f"{self._folder}/{pictures.version}/view-{view}"
        keys = {name: f"{folder}/{name}-{number:05d}.npz" for name in ["pooled", *(["layers"] if layers else [])]}
        kept = {name: self._read(key, (name, "readable"), len(rows)) for name, key in keys.items()}
        pooled, by_layer = kept["pooled"], kept.get("layers")
        if pooled is None or (layers and by_layer is None):
            made = self._encode(pictures, rows, layers, view)
            for name, key in keys.items():
                self._write(key, {"readable": made.readable, name: getattr(made, name)})
            return made
        return PictureFeatures(pooled["pooled"], by_layer["layers"] if by_layer else None, pooled["readable"])

    def _encode(self, pictures: Pictures, rows: Sequence[int], layers: bool, view: int) -> PictureFeatures:
        """A chunk's features from its pictures; without width where not one of them decodes."""
        readable = np.zeros(len(rows), bool)
        parts: list[ImageFeatures] = []
        for start, images in self._read_ahead(pictures, rows, view):
            readable[start : start + len(images)] = [image is not None for image in images]
            seen = [image for image in images if image is not None]
            if seen:
                parts.append(self.model.encode_images(seen))
        self.encoded += int(readable.sum())
        if not parts:
            blank = np.zeros((len(rows), 0), np.float16)
            return PictureFeatures(blank, blank[..., None] if layers else None, readable)
        pooled = _spread([part.pooled for part in parts], readable)
        by_layer = [part.layers for part in parts if part.layers is not None] if layers else []
        features = PictureFeatures(pooled, _spread(by_layer, readable) if by_layer else None, readable)
        for values in (features.pooled, features.layers):
            if values is not None:
                self._require_finite(values, [pictures.names[row] for row in rows])
        return features

    def _read_ahead(self, pictures: Pictures, rows: Sequence[int], view: int) -> Iterator[tuple[int, list[Rgb | None]]]:
        """Batches of pictures with the place of their first; the next ones are read by threads meanwhile."""

        def read(batch: Sequence[int]) -> list[Rgb | None]:
            images = zip(batch, pictures.read(batch), strict=True)
            return [None if image is None else self._seen(image, row, view) for row, image in images]

        with ThreadPoolExecutor(_AHEAD) as pool:
            waiting: deque[tuple[int, Future[list[Rgb | None]]]] = deque()
            for start in range(0, len(rows), self._batch):
                waiting.append((start, pool.submit(read, rows[start : start + self._batch])))
                if len(waiting) > _AHEAD:
                    first, images = waiting.popleft()
                    yield first, images.result()
            for first, images in waiting:
                yield first, images.result()

    def _seen(self, image: Rgb, row: int, view: int) -> Rgb:
        if view == 0:
            return self.model.sized(image)
        return training_view(image, self.model.side, np.random.default_rng((_VIEW_STREAM, view, row)))

    def _text_chunk(self, texts: list[str]) -> Half:
        key = f"{self._folder}/texts/{content_version(texts)}.npz"
        kept = self._read(key, ("texts",), len(texts))
        if kept is not None:
            return kept["texts"]
        step = 2 * self._batch
        parts = [self.model.encode_texts(texts[at : at + step]) for at in range(0, len(texts), step)]
        with np.errstate(over="ignore"):
            encoded = np.concatenate(parts).astype(np.float16)
        self._require_finite(encoded, texts)
        self.encoded += len(texts)
        self._write(key, {"texts": encoded})
        return encoded

    def _require_finite(self, values: Half, names: Sequence[str]) -> None:
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if not finite.all():
            name = names[int(finite.argmin())]
            raise FeatureError(
                f"{self.model.name}, version {self.model.version}: a feature of {name!r} is NaN or beyond half precision"
            )

    def _read(self, key: str, names: Sequence[str], rows: int) -> dict[str, np.ndarray] | None:
        """The named arrays of an object, ``rows`` long; None where it is not there or damaged, and has to be made anew."""
        if not self._store.exists(key):
            return None
        data = self._store.read_bytes(key)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in names}
        except Exception:  # what damaged archives raise is of many types
            return None
        return arrays if all(len(array) == rows for array in arrays.values()) else None

    def _write(self, key: str, arrays: dict[str, np.ndarray]) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        self._store.write_bytes(key, buffer.getvalue())


def _empty(count: int, like: PictureFeatures) -> PictureFeatures:
    return PictureFeatures(
        np.zeros((count, *like.pooled.shape[1:]), np.float16),
        None if like.layers is None else np.zeros((count, *like.layers.shape[1:]), np.float16),
        np.zeros(count, bool),
    )


def _spread(parts: Sequence[npt.NDArray[np.float32]], readable: npt.NDArray[np.bool_]) -> Half:
    """The features of the readable rows at their places, zeros elsewhere."""
    with np.errstate(over="ignore"):
        values = np.concatenate(parts).astype(np.float16)
    spread = np.zeros((len(readable), *values.shape[1:]), np.float16)
    spread[readable] = values
    return spread
