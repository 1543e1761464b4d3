"""The features of every face under one checkpoint, kept in the store so that a search encodes only its text.

They lie under ``face_features/<checkpoint version>/``, for each shard of ``face_crops``

    <shard>.npy    float16 [faces, D] unit rows, in the order of their face_id
    <shard>.json   the rows' face_ids, the crops that did not decode, and which version of the crops this is

The JSON is written last: a shard that has it is done, and is encoded again only where its crops have changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from facecaption_ml.decoding import as_rgb
from facecaption_ml.storage.store import Store, StoreError

FOLDER: Final = "face_features"
_CROPS: Final = "face_crops"
_ENCODED_AT_ONCE: Final = 32  # crops have their native size, so a few dozen may be some hundred MB


class FaceEncoder(Protocol):
    """What is needed of ``Flip``."""

    @property
    def version(self) -> str:
        """Names the weights."""

    def encode_images(self, images: Sequence[np.ndarray], /) -> npt.NDArray[np.float32]:
        """float32 [N, D] unit rows of RGB uint8 [H, W, 3] pictures of any sizes."""


@dataclass
class FeatureCounts:
    """What ``FaceFeatures.update`` found and did."""

    encoded: int = 0  # faces
    kept: int = 0  # faces encoded by an earlier update
    unreadable: int = 0  # faces whose crop did not decode, now or then
    removed_shards: int = 0  # their crops are gone, or the source no longer has them

    @property
    def searchable(self) -> int:
        return self.encoded + self.kept


@dataclass(frozen=True)
class ShardEntry:
    """The JSON beside a shard's features."""

    crops: str  # ``crops_version`` of what was encoded
    face_ids: list[str]
    unreadable: list[str]


class FaceFeatures:
    """The features of all faces under the checkpoint ``version``. Raises ValueError where that is empty."""

    def __init__(self, store: Store, version: str) -> None:
        if not version:
            raise ValueError(
                "the checkpoint names no version (config.json), so its features cannot be told from others'"
            )
        self.store, self.version = store, version
        self._folder = f"{FOLDER}/{version}"

    def update(self, encoder: FaceEncoder, on_progress: Callable[[int, int], None] | None = None) -> FeatureCounts:
        """Encode the faces that are not encoded yet or whose crops have changed; forget shards without crops.

        A shard is kept as soon as it is done, so an update that was interrupted resumes where it stopped. ``on_progress``
        gets the number of faces encoded and to encode. Raises StoreError where there are no crops, ValueError where
        ``encoder`` is another checkpoint or a feature is not finite.
        """
        if encoder.version != self.version:
            raise ValueError(f"features of checkpoint {self.version} cannot come from checkpoint {encoder.version}")
        shards = self.store.registered_shards(_CROPS)
        if not shards:
            raise StoreError(f"no faces under {self.store.uri(_CROPS)}: materialize {_CROPS!r} first")
        counts = FeatureCounts()
        pending: dict[str, str] = {}
        present = set(self.shards())
        for shard in shards:
            version = crops_version(self.store, shard)
            entry = self.entry(shard) if shard in present else None
            if entry is not None and entry.crops == version:
                counts.kept += len(entry.face_ids)
                counts.unreadable += len(entry.unreadable)
            else:
                pending[shard] = version
        for shard in present.difference(shards):
            self._remove(shard)
            counts.removed_shards += 1
        self._encode(pending, encoder, counts, on_progress)
        return counts

    def shards(self) -> list[str]:
        """The shards that are encoded, sorted."""
        names = (key.removeprefix(f"{self._folder}/") for key in self.store.keys(f"{self._folder}/"))
        return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))

    def entry(self, shard: str) -> ShardEntry:
        """What is known of an encoded shard's rows. Raises StoreError where it is absent or damaged."""
        with self._naming(f"{shard}.json"):
            return ShardEntry(**json.loads(self.store.read_bytes(f"{self._folder}/{shard}.json")))

    @contextlib.contextmanager
    def open(self, shard: str) -> Iterator[npt.NDArray[np.float16]]:
        """The features of an encoded shard, float16 [faces, D], mapped and not read. Raises StoreError as ``entry`` does."""
        with self.store.reading_file(f"{self._folder}/{shard}.npy") as path:
            with self._naming(f"{shard}.npy"):
                features = np.load(path, mmap_mode="r")
                if features.dtype != np.float16 or features.ndim != 2:
                    raise ValueError(f"{features.dtype} {list(features.shape)}")
            yield features

    def _encode(
        self,
        pending: dict[str, str],
        encoder: FaceEncoder,
        counts: FeatureCounts,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        """``pending`` gives each shard with the version of its crops."""
        total = sum(self.store.row_count(_CROPS, shard) for shard in pending)
        done = 0
        for shard, version in pending.items():
            self._remove(shard)  # first, so that its JSON never stands beside newer features
            features: dict[str, npt.NDArray[np.float16]] = {}
            unreadable: list[str] = []
            for batch in self.store.iter_table(
                _CROPS, shard, columns=["face_id", "image"], batch_rows=_ENCODED_AT_ONCE
            ):
                pictures = dict(_decoded(batch, unreadable))
                features.update(zip(pictures, _features_of(encoder, pictures), strict=True))
                done += len(batch)
                if on_progress:
                    on_progress(done, total)
            self._write(shard, ShardEntry(version, sorted(features), sorted(unreadable)), features)
            counts.encoded += len(features)
            counts.unreadable += len(unreadable)

    def _write(self, shard: str, entry: ShardEntry, features: dict[str, npt.NDArray[np.float16]]) -> None:
        rows = [features[face_id] for face_id in entry.face_ids]
        data = io.BytesIO()
        np.save(data, np.stack(rows) if rows else np.zeros((0, 0), np.float16))
        self.store.write_bytes(f"{self._folder}/{shard}.npy", data.getvalue())
        self.store.write_bytes(f"{self._folder}/{shard}.json", json.dumps(asdict(entry)).encode())

    def _remove(self, shard: str) -> None:
        self.store.delete(f"{self._folder}/{shard}.json")
        self.store.delete(f"{self._folder}/{shard}.npy")

    @contextlib.contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """What a damaged file raises becomes a StoreError that names it."""
        try:
            yield
        except (ValueError, TypeError, EOFError) as error:
            where = self.store.uri(f"{self._folder}/{name}")
            raise StoreError(f"cannot read {where}: delete the folder, the faces are then encoded again") from error


def crops_version(store: Store, shard: str) -> str:
    """A hash of everything in a shard of ``face_crops`` but its pixels, which would take as long to read as to encode.

    Crops of another detector, margin or source image differ in it; the same crops written at another JPEG quality do not.
    """
    columns = ["face_id", "width", "height", "box", "landmarks", "score", "roll_degrees"]
    crops = store.read_table(_CROPS, shard, columns=columns).sort("face_id")
    digest = hashlib.blake2b(json.dumps(crops["face_id"].to_list()).encode(), digest_size=8)
    for name in columns[1:]:
        digest.update(np.ascontiguousarray(crops[name].to_numpy()).tobytes())
    return digest.hexdigest()


def _decoded(crops: pl.DataFrame, unreadable: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """The faces whose crop decodes, RGB uint8 [H, W, 3]; the others' ids go to ``unreadable``."""
    for face_id, image in zip(crops["face_id"], crops["image"].struct.field("bytes"), strict=True):
        try:
            yield face_id, as_rgb(image)
        except ValueError:  # UndecodableImage, or a crop that is null
            unreadable.append(face_id)


def _features_of(encoder: FaceEncoder, pictures: dict[str, np.ndarray]) -> npt.NDArray[np.float16]:
    """float16 [N, D]. Raises ValueError naming the face whose feature is not finite."""
    if not pictures:
        return np.zeros((0, 0), np.float16)
    features = encoder.encode_images(list(pictures.values())).astype(np.float16)
    for face_id, feature in zip(pictures, features, strict=True):
        if not np.isfinite(feature).all():
            raise ValueError(f"checkpoint {encoder.version}: the feature of face {face_id} is not finite")
    return features
