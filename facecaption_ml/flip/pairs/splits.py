"""The pairs of a training: an index of the training split, and the held-out pairs it is judged by."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from facecaption_ml.flip.errors import PairsError
from facecaption_ml.flip.pairs.index import PairIndex, PairSource
from facecaption_ml.flip.pairs.loader import PairBatch, PairLoader
from facecaption_ml.schemas import DATASET

HELD_OUT_COLUMN: Final = "caption"
"""Held-out captions are the data set's own for every variant, so that variants compare (Table 2 does so too)."""
_VOCABULARY_ROWS: Final = 200_000
_FIRST_SHARDS: Final = 16


@dataclass(frozen=True)
class TrainingPairs:
    """``train`` on every process; ``held_out`` batches (without augmentation) by split, on the main process only."""

    train: PairIndex
    held_out: Mapping[str, list[PairBatch]]

    @property
    def version(self) -> str:
        return self.train.version

    def texts(self) -> Iterator[str]:
        """Texts that a vocabulary is learned from: every kind of text of the training split's first rows, so that all
        variants share one vocabulary."""
        store, columns = self.train.source.store, [HELD_OUT_COLUMN, "template_caption", "alt_text"]
        rows = itertools.chain.from_iterable(
            frame.rows()
            for shard in self.train.source.shards
            if store.has_table(DATASET, shard)
            for frame in store.iter_table(DATASET, shard, columns=[*columns, "split"], batch_rows=10_000)
        )
        train = (row[:-1] for row in rows if row[-1] == "train")
        for texts in itertools.islice(train, _VOCABULARY_ROWS):
            yield from (text for text in texts if text)


def read_pairs(
    source: PairSource,
    *,
    image_size: int,
    held_out_pairs: int,
    seed: int,
    is_main_process: bool = True,
    broadcast: Callable[[Any], Any] = lambda value: value,
) -> TrainingPairs:
    """Index the pairs of ``source`` once, on the main process, which ``broadcast`` brings to the others.

    Of validation and test split at most ``held_out_pairs`` are decoded. Raises PairsError where there are no pairs.
    """
    train = PairIndex.from_bytes(broadcast(PairIndex.build(source).to_bytes() if is_main_process else None), source)
    if not len(train):
        raise PairsError(
            f"no training pairs with a {source.text_column} in {len(source.shards)} shards of {source.store.uri(DATASET)}: "
            f"{', '.join(f'{count} {reason}' for reason, count in train.counts.items()) or f'materialize {DATASET}'}"
        )
    held_out: dict[str, list[PairBatch]] = {}
    if is_main_process:
        for split in ("validation", "test"):
            judged = dataclasses.replace(source, split=split, text_column=HELD_OUT_COLUMN)
            held_out[split] = _held_out(judged, image_size, held_out_pairs, seed)
    return TrainingPairs(train, held_out)


def _held_out(source: PairSource, image_size: int, most: int, seed: int) -> list[PairBatch]:
    """At most ``most`` pairs of a split, one a batch, the same whatever the number of processes."""
    index = _index_of(source, most)
    wanted = min(len(index), most)
    if not wanted:
        return []
    loader = PairLoader(index, batch_size=1, image_size=image_size, seed=seed, augment=False)
    with contextlib.closing(loader), contextlib.closing(loader.epoch(0)) as batches:
        decoded = (batch for batch in batches if not batch.undecodable)  # else a pair would stand there twice
        return list(itertools.islice(decoded, wanted))


def _index_of(source: PairSource, pairs: int) -> PairIndex:
    """Of as many shards as it takes for that many pairs; thousands of shards need not be read for a thousand pairs."""
    shards = _FIRST_SHARDS
    while True:
        index = PairIndex.build(dataclasses.replace(source, shards=source.shards[:shards]))
        if len(index) >= pairs or shards >= len(source.shards):
            return index
        shards *= 4
