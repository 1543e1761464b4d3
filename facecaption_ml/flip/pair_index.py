"""Which faces are pairs of a split, and in which row group of which shard they lie: a few bytes a pair."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from facecaption_ml.store import Store

CROPS: Final = "face_crops"
DATASET: Final = "facecaption_dataset"


@dataclass(frozen=True)
class PairSource:
    """Where pairs come from: crops of ``face_crops`` joined with ``text_column`` of ``facecaption_dataset`` on face_id.

    ``text_column`` is caption, template_caption or alt_text; only rows of ``split`` with a text count.
    """

    store: Store
    shards: tuple[str, ...]
    text_column: str
    split: str = "train"


@dataclass(frozen=True)
class PairIndex:
    """The pairs of a source, row group by row group.

    Row group g is number ``numbers[g]`` of shard ``source.shards[owners[g]]``; ``rows[starts[g] : starts[g + 1]]`` are
    the rows in it that are pairs. ``counts``: pairs, and what was left out by reason. ``version`` is a hash of their ids and
    texts.
    """

    source: PairSource
    owners: npt.NDArray[np.int32]
    numbers: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    rows: npt.NDArray[np.uint32]
    counts: Counter[str]
    version: str

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def build(cls, source: PairSource, on_progress: Callable[[int, int], None] | None = None) -> PairIndex:
        """Read ids, splits and texts shard by shard; pictures stay where they are. Raises StoreError naming a damaged shard."""
        owners: list[int] = []
        numbers: list[int] = []
        rows: list[npt.NDArray[np.uint32]] = []
        counts: Counter[str] = Counter(pairs=0)
        digest = hashlib.blake2b(source.text_column.encode(), digest_size=6)
        for owner, shard in enumerate(source.shards):
            for number, found in enumerate(_shard_rows(source, shard, counts, digest)):
                owners.append(owner)
                numbers.append(number)
                rows.append(found)
            if on_progress:
                on_progress(owner + 1, len(source.shards))
        starts = np.concatenate([[0], np.cumsum([len(found) for found in rows], dtype=np.int64)]).astype(np.int64)
        return cls(
            source,
            np.array(owners, np.int32),
            np.array(numbers, np.int32),
            starts,
            np.concatenate([np.zeros(0, np.uint32), *rows]),
            counts,
            digest.hexdigest(),
        )

    def to_bytes(self) -> bytes:
        """Without the source, for other processes."""
        packed = io.BytesIO()
        np.savez(
            packed,
            owners=self.owners,
            numbers=self.numbers,
            starts=self.starts,
            rows=self.rows,
            reasons=np.array(list(self.counts), np.str_),
            counts=np.array(list(self.counts.values()), np.int64),
            version=np.array(self.version),
        )
        return packed.getvalue()

    @classmethod
    def from_bytes(cls, packed: bytes, source: PairSource) -> PairIndex:
        """From what ``to_bytes`` gave, for the same source."""
        with np.load(io.BytesIO(packed)) as found:
            counts = Counter(dict(zip(found["reasons"].tolist(), found["counts"].tolist(), strict=True)))
            owners, numbers, starts, rows = (found[name] for name in ("owners", "numbers", "starts", "rows"))
            return cls(source, owners, numbers, starts, rows, counts, str(found["version"]))


def _shard_rows(
    source: PairSource, shard: str, counts: Counter[str], digest: hashlib.blake2b
) -> list[npt.NDArray[np.uint32]]:
    """For each row group of the shard's crops, the rows that are pairs."""
    store = source.store
    if not (store.has_table(DATASET, shard) and store.has_table(CROPS, shard)):
        counts["shards_missing"] += 1
        return []
    texts = store.read_table(DATASET, shard, columns=["face_id", "split", source.text_column])
    counts["other_split"] += int((texts["split"] != source.split).sum())
    of_split = texts.filter(pl.col("split") == source.split)
    written = of_split.filter(pl.col(source.text_column).fill_null("").str.strip_chars() != "")
    counts["no_text"] += len(of_split) - len(written)
    crops = store.read_table(CROPS, shard, columns=["face_id"])
    is_pair = crops["face_id"].is_in(written["face_id"].implode()).to_numpy()
    counts["pairs"] += int(is_pair.sum())
    counts["no_crop"] += len(written) - int(is_pair.sum())
    for line in written.sort("face_id").select("face_id", source.text_column).iter_rows():
        digest.update("\0".join(line).encode() + b"\n")
    with store.open_table(CROPS, shard) as parquet:
        sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
    return [np.flatnonzero(part).astype(np.uint32) for part in np.split(is_pair, np.cumsum(sizes)[:-1])]
