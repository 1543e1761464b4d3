"""The faces of a data set scored by their stored probabilities, shard by shard, alone or with the features of a FLIP."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from facecaption_ml.flip.use.face_features import FaceFeatures
from facecaption_ml.flip.use.search import FoundFace
from facecaption_ml.search.query import Query, Scores, best, combined
from facecaption_ml.storage.store import Store, StoreError
from facecaption_ml.taxonomy import ATTRIBUTES

_ATTRIBUTES = "face_attributes"
_CROPS = "face_crops"


def has_labels(store: Store) -> bool:
    """Whether any face of the data set has probabilities."""
    return bool(_shards(store))


def labelled_faces(
    store: Store,
    query: Query,
    k: int,
    features: FaceFeatures | None = None,
    text: npt.NDArray[np.float32] | None = None,
    weight: float = 1.0,
) -> tuple[list[FoundFace], int]:
    """The ``k`` faces that fit the query best, and among how many.

    ``features`` with the ``text``'s own [D] add the similarity that FLIP sees, times
    ``weight``: faces that have both are searched then. A face's
    ``similarity`` is its score. Memory holds a number a face; names are read of the shards with a face found. Raises
    StoreError where no face has probabilities.
    """
    shards = _shards(store)
    by_label: list[Scores] = []
    by_flip: list[Scores] = []
    places: list[tuple[str, npt.NDArray[np.int64]]] = []
    encoded = set(features.shards()) if features else set()
    for shard in shards:
        if features is not None and shard not in encoded:
            continue
        table = store.read_table(_ATTRIBUTES, shard, columns=["face_id", *ATTRIBUTES])
        rows = np.arange(len(table))
        if features is not None and text is not None:
            rows, similarity = _similarities(features, shard, table["face_id"].to_list(), text)
            by_flip.append(similarity)
        by_label.append(query.scores(table.select(ATTRIBUTES).to_numpy()[rows]))
        places.append((shard, rows))
    if not sum(map(len, by_label)):
        raise StoreError(f"no face under {store.uri(_ATTRIBUTES)} has probabilities: materialize {_ATTRIBUTES!r} first")
    scores = np.concatenate(by_label)
    if by_flip:
        scores = combined(scores, np.concatenate(by_flip), weight)
    return _named(store, places, scores, best(scores, k)), len(scores)


def _shards(store: Store) -> list[str]:
    return [shard for shard in store.registered_shards(_CROPS) if store.has_table(_ATTRIBUTES, shard)]


def _similarities(
    features: FaceFeatures, shard: str, face_ids: Sequence[str], text: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], Scores]:
    """The rows of ``face_ids`` that have features, and those faces' similarities to the text."""
    at = {face_id: place for place, face_id in enumerate(features.entry(shard).face_ids)}
    rows = np.array([row for row, face_id in enumerate(face_ids) if face_id in at], np.int64)
    own = [at[face_ids[row]] for row in rows.tolist()]
    if not own:
        return rows, np.zeros(0, np.float32)
    with features.open(shard) as stored:
        return rows, (np.asarray(stored, np.float32)[own] @ text).astype(np.float32)


def _named(
    store: Store, places: Sequence[tuple[str, npt.NDArray[np.int64]]], scores: Scores, chosen: npt.NDArray[np.int64]
) -> list[FoundFace]:
    starts = np.cumsum([0, *(len(rows) for _, rows in places)])
    names: dict[str, list[str]] = {}
    found = []
    for place in chosen.tolist():
        number = int(np.searchsorted(starts, place, side="right")) - 1
        shard, rows = places[number]
        if shard not in names:
            names[shard] = store.read_table(_ATTRIBUTES, shard, columns=["face_id"])["face_id"].to_list()
        face_id = names[shard][int(rows[place - starts[number]])]
        found.append(FoundFace(face_id, float(scores[place]), shard))
    return found
