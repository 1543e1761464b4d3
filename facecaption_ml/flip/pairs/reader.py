"""Pairs read from the store: encoded crops of some row groups, and their captions."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from facecaption_ml.flip.pairs.index import CROPS, DATASET, PairIndex
from facecaption_ml.storage.store import StoreError

_TEXT_SHARDS: Final = 4  # whose captions are kept for the next row groups


@dataclass(frozen=True, slots=True)
class Pair:
    """A face, its caption and its encoded crop (empty where the table has none)."""

    face_id: str
    text: str
    data: bytes


class PairReader:
    """Reads the pairs of an index; only the columns needed, a row group once for each call. For one thread at a time."""

    def __init__(self, index: PairIndex) -> None:
        self._index = index
        self._texts: OrderedDict[int, dict[str, str | None]] = OrderedDict()

    def read(self, positions: np.ndarray) -> list[Pair]:
        """The pairs at ``positions`` int64 [N] of the index, in that order.

        Raises StoreError naming a shard that cannot be read, or that is no longer the one the index was built from.
        """
        by_place: dict[int, Pair] = {}
        groups = np.searchsorted(self._index.starts, positions, side="right") - 1
        for group in np.unique(groups).tolist():
            places = np.flatnonzero(groups == group)
            by_place.update(zip(places.tolist(), self._pairs(group, positions[places]), strict=True))
        return [by_place[place] for place in range(len(positions))]

    def _pairs(self, group: int, positions: np.ndarray) -> list[Pair]:
        """Some pairs of a row group."""
        owner = int(self._index.owners[group])
        texts = self._texts_of(owner)
        try:
            table = self._row_group(group).take(self._index.rows[positions])
            images = table["image"].combine_chunks().field("bytes").to_pylist()
            faces = table["face_id"].to_pylist()
            pairs = [Pair(face, texts[face] or "", data or b"") for face, data in zip(faces, images, strict=True)]
        except (KeyError, IndexError):
            pairs = []
        if not all(pair.text for pair in pairs) or len(pairs) != len(positions):
            raise StoreError(
                f"shard {self._index.source.shards[owner]} of {CROPS} or {DATASET} has changed since its pairs were "
                "counted: start the training again"
            )
        return pairs

    def _row_group(self, group: int) -> pa.Table:
        """Face ids and encoded crops."""
        source, number = self._index.source, int(self._index.numbers[group])
        with source.store.open_table(CROPS, source.shards[int(self._index.owners[group])]) as parquet:
            if number >= parquet.num_row_groups:
                raise IndexError(number)
            return parquet.read_row_group(number, columns=["face_id", "image.bytes"])

    def _texts_of(self, owner: int) -> dict[str, str | None]:
        """Captions by face id of a shard; those of the last few shards are kept."""
        if owner in self._texts:
            self._texts.move_to_end(owner)
            return self._texts[owner]
        source = self._index.source
        frame = source.store.read_table(DATASET, source.shards[owner], columns=["face_id", source.text_column])
        self._texts[owner] = dict(frame.iter_rows())
        if len(self._texts) > _TEXT_SHARDS:
            self._texts.popitem(last=False)
        return self._texts[owner]


def caption_id(text: str) -> int:
    """The same number for texts that are equal but for case and white space; never −1."""
    collapsed = " ".join(text.lower().split())
    number = int.from_bytes(hashlib.blake2b(collapsed.encode(), digest_size=8).digest(), "big", signed=True)
    return number if number != -1 else 0
