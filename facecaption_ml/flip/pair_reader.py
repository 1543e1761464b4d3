"""Pairs read from the store: encoded crops of some row groups, and their captions."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np

from facecaption_ml.flip.pair_index import CROPS, DATASET, PairIndex

_TEXT_SHARDS: Final = 4  # whose captions are kept for the next row groups


@dataclass(frozen=True)
class Pair:
    """A face, its caption and its encoded crop."""

    face_id: str
    text: str
    data: bytes


class PairReader:
    """Reads the pairs of an index; only the columns needed, a row group once for each call."""

    def __init__(self, index: PairIndex) -> None:
        self._index = index
        self._texts: OrderedDict[int, dict[str, str]] = OrderedDict()

    def read(self, positions: np.ndarray) -> list[Pair]:
        """The pairs at ``positions`` int64 [N] of the index, in that order. Raises StoreError naming a shard it cannot read."""
        found: dict[int, Pair] = {}
        groups = np.searchsorted(self._index.starts, positions, side="right") - 1
        for group in np.unique(groups).tolist():
            places = np.flatnonzero(groups == group)
            texts = self._texts_of(int(self._index.owners[group]))
            rows = self._row_group(group, self._index.rows[positions[places]])
            found.update(
                (place, Pair(face_id, texts[face_id], data or b""))
                for place, (face_id, data) in zip(places.tolist(), rows, strict=True)
            )
        return [found[place] for place in range(len(positions))]

    def _row_group(self, group: int, rows: np.ndarray) -> list[tuple[str, bytes | None]]:
        """Face id and encoded crop of some rows of a row group."""
        source = self._index.source
        with source.store.open_table(CROPS, source.shards[int(self._index.owners[group])]) as parquet:
            table = parquet.read_row_group(int(self._index.numbers[group]), columns=["face_id", "image.bytes"])
        chosen = table.take(rows)
        images = chosen["image"].combine_chunks().field("bytes").to_pylist()
        return list(zip(chosen["face_id"].to_pylist(), images, strict=True))

    def _texts_of(self, owner: int) -> dict[str, str]:
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
    found = int.from_bytes(hashlib.blake2b(collapsed.encode(), digest_size=8).digest(), "big", signed=True)
    return found if found != -1 else 0
