"""The pairs of a training: an index of the training split, and the held-out pairs it is judged by."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from facecaption_ml.flip.model.presets import Preset
from facecaption_ml.flip.pairs.loader import PairBatch, PairIndex, PairLoader, PairSource
from facecaption_ml.flip.training.config import TrainingConfig, TrainingError
from facecaption_ml.flip.training.distributed import Processes
from facecaption_ml.schemas import DATASET
from facecaption_ml.storage.store import Store

HELD_OUT_COLUMN: Final = "caption"
"""Held-out captions are the data set's own for every variant, so that variants compare (Table 2 does so too)."""
_VOCABULARY_ROWS: Final = 200_000
_FIRST_SHARDS: Final = 16


@dataclass(frozen=True)
class TrainingPairs:
    """``train`` on every process; ``held_out`` batches (without augmentation) by split, on the first process only."""

    train: PairIndex
    held_out: Mapping[str, list[PairBatch]]
    store: Store
    shards: tuple[str, ...]

    @property
    def version(self) -> str:
        return self.train.version

    def texts(self) -> Iterator[str]:
        """Texts that a vocabulary is learned from: every kind of text of the training split's first rows, so that all
        variants share one vocabulary."""
        columns = [HELD_OUT_COLUMN, "template_caption", "alt_text"]
        rows = itertools.chain.from_iterable(
            frame.rows()
            for shard in self.shards
            if self.store.has_table(DATASET, shard)
            for frame in self.store.iter_table(DATASET, shard, columns=[*columns, "split"], batch_rows=10_000)
        )
        train = (row[:-1] for row in rows if row[-1] == "train")
        for texts in itertools.islice(train, _VOCABULARY_ROWS):
            yield from (text for text in texts if text)


def read_pairs(config: TrainingConfig, preset: Preset, group: Processes) -> TrainingPairs:
    """Index the training pairs once, on the first process. Raises TrainingError where there are none."""
    store = config.open_store()
    source = PairSource(store, config.shards, config.text_column, "train")
    packed = group.share(PairIndex.build(source).to_bytes() if group.first else None)
    train = PairIndex.from_bytes(packed, source)
    if not len(train):
        raise TrainingError(
            f"no training pairs for {config.variant} in {len(config.shards)} shards of {store.uri(DATASET)}: "
            f"{', '.join(f'{count} {reason}' for reason, count in train.counts.items()) or 'materialise facecaption_dataset'}"
        )
    held_out: dict[str, list[PairBatch]] = {}
    if group.first:
        for split in ("validation", "test"):
            held_out[split] = _held_out(
                dataclasses.replace(source, split=split, text_column=HELD_OUT_COLUMN), config, preset
            )
    return TrainingPairs(train, held_out, store, config.shards)


def training_loader(config: TrainingConfig, preset: Preset, pairs: PairIndex, group: Processes) -> PairLoader:
    """This process's batches of ``pairs``. Raises ValueError where those are less than one global batch."""
    return PairLoader(
        pairs,
        batch_size=config.batch_size,
        image_size=preset.image.size,
        seed=config.seed,
        rank=group.rank,
        world_size=group.count,
        augment=True,
        randaugment=config.augmentation,
        threads=config.loader_threads,
        process=config.loader_process,
        window_row_groups=config.window_row_groups,
    )


def _held_out(source: PairSource, config: TrainingConfig, preset: Preset) -> list[PairBatch]:
    """At most ``evaluation_pairs`` pairs of a split, one a batch, the same whatever the number of processes."""
    index = _index_of(source, config.evaluation_pairs)
    wanted = min(len(index), config.evaluation_pairs)
    if not wanted:
        return []
    loader = PairLoader(index, batch_size=1, image_size=preset.image.size, seed=config.seed, augment=False)
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
