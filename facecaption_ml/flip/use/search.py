"""Faces by description: the faces whose features are nearest to a text's, by exact search in bounded memory.

Stored features are read shard by shard and compared block by block, so that neither the number of faces nor that of queries
shows in the memory; nothing is approximated beyond the float16 of what is stored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from facecaption_ml.flip.use.face_features import FaceFeatures
from facecaption_ml.schemas import DATASET
from facecaption_ml.storage.store import Store

_FACES_AT_ONCE: Final = 4096
_QUERIES_AT_ONCE: Final = 1024


@dataclass(frozen=True)
class FoundFace:
    """A face and its cosine similarity to the query, −1 … 1; ``shard`` holds its crop."""

    face_id: str
    similarity: float
    shard: str


@dataclass(frozen=True)
class ShownFace:
    """A found face as a person sees it: its crop, encoded, and its caption, None where it is not in the data set."""

    found: FoundFace
    image: bytes
    caption: str | None


def nearest_faces(features: FaceFeatures, queries: npt.ArrayLike, k: int) -> list[list[FoundFace]]:
    """For each of ``queries`` (unit rows [Q, D]) the k most similar faces, nearest first; all where there are fewer.

    Equally similar faces stand in the order of their face_id. Products are summed in float64 and rounded to float32, so
    that equal features tie wherever they lie and the number of threads does not matter.
    Raises ValueError where queries are not finite or of another width than the faces, or k is below 1, and StoreError where
    stored features are damaged.
    """
    if k < 1:
        raise ValueError(f"k must be 1 or more faces, not {k}")
    wanted = np.atleast_2d(np.asarray(queries, np.float64))
    if wanted.ndim != 2 or not np.isfinite(wanted).all():
        raise ValueError(f"queries must be finite features [Q, D], here {list(wanted.shape)}")
    best = [_Nearest(k) for _ in wanted]
    for shard in features.shards():
        with features.open(shard) as stored:
            if len(stored) and stored.shape[1] != wanted.shape[1]:
                raise ValueError(
                    f"queries have {wanted.shape[1]} dimensions, but the faces of {shard} {stored.shape[1]}"
                )
            _search_shard(features, shard, stored, wanted, best)
    return [nearest.faces() for nearest in best]


def shown_faces(store: Store, faces: Sequence[FoundFace]) -> list[ShownFace]:
    """The crops and captions of found faces, in their order. Raises StoreError where a shard of crops is gone."""
    by_shard: defaultdict[str, list[str]] = defaultdict(list)
    for face in faces:
        by_shard[face.shard].append(face.face_id)
    images: dict[str, bytes] = {}
    captions: dict[str, str | None] = {}
    for shard, ids in by_shard.items():
        images.update(_images(store, shard, set(ids)))
        captions.update(_captions(store, shard))
    return [ShownFace(face, images[face.face_id], captions.get(face.face_id)) for face in faces]


class _Nearest:
    """The k nearest faces of one query so far."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.floor: float = -np.inf  # similarity that a face needs to be among them
        self._sorted: list[tuple[float, str, str]] = []  # negative similarity, face_id, shard

    def leading(self, similarities: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
        """Which of a block of faces, in the order of their face_ids, may be among the k nearest."""
        at = np.flatnonzero(similarities >= self.floor)
        return at[np.argsort(-similarities[at], kind="stable")[: self.k]]

    def add(self, similarities: npt.NDArray[np.float32], face_ids: Sequence[str], shard: str) -> None:
        new = ((-float(s), face_id, shard) for s, face_id in zip(similarities, face_ids, strict=True))
        self._sorted = sorted([*self._sorted, *new])[: self.k]
        if len(self._sorted) == self.k:
            self.floor = -self._sorted[-1][0]

    def faces(self) -> list[FoundFace]:
        return [FoundFace(face_id, -distance, shard) for distance, face_id, shard in self._sorted]


def _search_shard(
    features: FaceFeatures,
    shard: str,
    stored: npt.NDArray[np.float16],
    queries: npt.NDArray[np.float64],
    best: list[_Nearest],
) -> None:
    face_ids: list[str] = []
    for start, first_query, products in _products(stored, queries):
        floors = np.array([nearest.floor for nearest in best[first_query : first_query + len(products)]])
        for row in np.flatnonzero(products.max(axis=1) >= floors):
            # most shards have no face for most queries, and then their ids are never read
            face_ids = face_ids or features.entry(shard).face_ids
            nearest = best[first_query + row]
            at = nearest.leading(products[row])
            nearest.add(products[row, at], [face_ids[start + i] for i in at], shard)


def _products(
    stored: npt.NDArray[np.float16], queries: npt.NDArray[np.float64]
) -> Iterator[tuple[int, int, npt.NDArray[np.float32]]]:
    """Blocks of the products of queries and faces, with the first face and the first query of each."""
    buffer = np.empty((min(_FACES_AT_ONCE, len(stored)), stored.shape[1]))
    for start in range(0, len(stored), _FACES_AT_ONCE):
        faces = buffer[: len(stored) - start]
        faces[:] = stored[start : start + len(faces)]
        for first in range(0, len(queries), _QUERIES_AT_ONCE):
            yield start, first, (queries[first : first + _QUERIES_AT_ONCE] @ faces.T).astype(np.float32)


def _images(store: Store, shard: str, ids: set[str]) -> dict[str, bytes]:
    images: dict[str, bytes] = {}
    for batch in store.iter_table("face_crops", shard, columns=["face_id", "image"]):
        rows = batch.filter(batch["face_id"].is_in(list(ids)))
        images.update(zip(rows["face_id"], rows["image"].struct.field("bytes"), strict=True))
        if len(images) == len(ids):
            break
    return images


def _captions(store: Store, shard: str) -> dict[str, str | None]:
    if not store.has_table(DATASET, shard):
        return {}
    rows = store.read_table(DATASET, shard, columns=["face_id", "caption"])
    return dict(zip(rows["face_id"], rows["caption"], strict=True))
