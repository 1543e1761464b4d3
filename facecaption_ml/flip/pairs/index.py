"""The faces that are pairs of a split, and in which row group of which shard they lie: a few bytes a pair."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from facecaption_ml.schemas import DATASET
from facecaption_ml.storage.store import Store, StoreError

CROPS: Final = "face_crops"
_SHARDS_AT_ONCE: Final = 4  # on S3 most of the time is waiting


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
    the rows in it that are pairs. ``counts``: pairs, and what was excluded by reason (other_split, no_text, no_crop in
    pairs; shards_missing in shards). ``version`` is a hash of ids and texts in their order.
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
        rows: list[npt.NDArray[np.uint32]] = []
        numbers: list[int] = []
        counts: Counter[str] = Counter(pairs=0)
        digest = hashlib.blake2b(source.text_column.encode(), digest_size=6)
        pool = ThreadPoolExecutor(_SHARDS_AT_ONCE, "index")
        try:
            for owner, shard in enumerate(pool.map(lambda name: _shard_pairs(source, name), source.shards)):
                owners += [owner] * len(shard.rows)
                numbers += range(len(shard.rows))
                rows += shard.rows
                counts.update(shard.counts)
                digest.update(shard.digest)
                if on_progress:
                    on_progress(owner + 1, len(source.shards))
        finally:
            pool.shutdown(cancel_futures=True)
        starts = np.concatenate([[0], np.cumsum([len(of_group) for of_group in rows], dtype=np.int64)]).astype(np.int64)
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
        with np.load(io.BytesIO(packed)) as arrays:
            counts = Counter(dict(zip(arrays["reasons"].tolist(), arrays["counts"].tolist(), strict=True)))
            owners, numbers, starts, rows = (arrays[name] for name in ("owners", "numbers", "starts", "rows"))
            return cls(source, owners, numbers, starts, rows, counts, str(arrays["version"]))


@dataclass(frozen=True)
class _ShardPairs:
    """``rows`` of each row group of a shard's crops that are pairs; ``digest`` of their ids and texts, in order."""

    rows: list[npt.NDArray[np.uint32]]
    counts: Counter[str]
    digest: bytes


def _shard_pairs(source: PairSource, shard: str) -> _ShardPairs:
    store = source.store
    if not (store.has_table(DATASET, shard) and store.has_table(CROPS, shard)):
        return _ShardPairs([], Counter(shards_missing=1), b"")
    texts = store.read_table(DATASET, shard, columns=["face_id", "split", source.text_column])
    of_split = texts.filter(pl.col("split") == source.split)
    written = of_split.select("face_id", text=source.text_column).filter(
        pl.col("text").str.contains(r"\S").fill_null(False)
    )
    faces = store.read_table(CROPS, shard, columns=["face_id"])
    joined = faces.join(written, on="face_id", how="left", maintain_order="left")
    is_pair = joined["text"].is_not_null().to_numpy()
    pairs = int(is_pair.sum())
    with store.open_table(CROPS, shard) as parquet:
        sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
    if sum(sizes) != len(is_pair):
        raise StoreError(f"shard {shard} of {CROPS} or {DATASET} has changed while it was read, or holds a face twice")
    counts = Counter(
        pairs=pairs,
        other_split=len(texts) - len(of_split),
        no_text=len(of_split) - len(written),
        no_crop=len(written) - pairs,
    )
    # The order belongs to it: a training resumes at a batch number, and batches follow the order.
    lines = joined.select(pl.concat_str("face_id", pl.col("text").fill_null(""), separator="\0")).to_series()
    digest = hashlib.blake2b(repr(sizes).encode(), digest_size=16)
    digest.update("\n".join(lines.to_list()).encode())
    rows = (
        [np.flatnonzero(part).astype(np.uint32) for part in np.split(is_pair, np.cumsum(sizes)[:-1])] if sizes else []
    )
    return _ShardPairs(rows, counts, digest.digest())
