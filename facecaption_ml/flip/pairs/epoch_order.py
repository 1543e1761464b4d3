"""The order of an epoch: a pure function of the seed, the epoch and the number of processes, computed without reading data.

Row groups are permuted, laid end to end and cut into equal stretches, one for each process. Two processes read a row group
across a cut, each taking its own rows; what lies behind the last cut is excluded from this epoch. Within a stretch, windows of
some row groups are shuffled row by row, so that a reader holds one window at a time and can begin at any batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from facecaption_ml.flip.errors import PairsError
from facecaption_ml.flip.pairs.index import PairIndex

_GROUPS_STREAM: Final = 0x6701
_WINDOW_STREAM: Final = 0x6702
_CUT_STREAM: Final = 0x6704

Positions = npt.NDArray[np.int64]


def batches_per_epoch(pairs: int, batch_size: int, world_size: int) -> int:
    """Whole global batches in ``pairs``. Raises PairsError where there is none."""
    batches = pairs // (batch_size * world_size)
    if not batches:
        raise PairsError(
            f"{pairs} training pairs are less than one batch of {batch_size} × {world_size} processes: lower batch_size, "
            "or materialize more shards",
            "batch_size",
        )
    return batches


def windows(
    index: PairIndex,
    *,
    seed: int,
    epoch: int,
    rank: int,
    world_size: int,
    batch_size: int,
    window_row_groups: int,
    first_batch: int = 0,
) -> Iterator[tuple[Positions, int]]:
    """The windows of one process in order: positions in the index, int64, and how many of them come before ``first_batch``.

    A window all of whose rows come before ``first_batch`` is skipped; only the first one given can have some that do.
    Rows that do not fill a last global batch are in no window; another epoch's order excludes others.
    """
    groups = np.random.default_rng((_GROUPS_STREAM, seed, epoch)).permutation(len(index.numbers))
    sizes = np.diff(index.starts)[groups]
    begins = np.cumsum(sizes) - sizes  # where each row group lies in the epoch's layout
    share = batches_per_epoch(len(index), batch_size, world_size) * batch_size
    lows = np.clip(rank * share - begins, 0, sizes)
    highs = np.clip((rank + 1) * share - begins, 0, sizes)
    touched = np.flatnonzero(highs > lows)
    skipped = first_batch * batch_size
    for number, start in enumerate(range(0, len(touched), window_row_groups)):
        places = touched[start : start + window_row_groups]
        size = int((highs[places] - lows[places]).sum())
        if skipped >= size:
            skipped -= size
            continue
        rows = [
            _rows(index, int(groups[place]), int(lows[place]), int(highs[place]), (seed, epoch)) for place in places
        ]
        order = np.random.default_rng((_WINDOW_STREAM, seed, epoch, rank, number)).permutation(np.concatenate(rows))
        yield order, skipped
        skipped = 0


def _rows(index: PairIndex, group: int, low: int, high: int, stream: tuple[int, int]) -> Positions:
    """Rows ``low`` … ``high`` of a row group; those of one that a cut divides are shuffled first.

    Else the rows excluded would always be the last ones of a row group, and in a small data set always the same.
    """
    begin, end = int(index.starts[group]), int(index.starts[group + 1])
    rows = np.arange(begin, end, dtype=np.int64)
    if high - low == end - begin:
        return rows
    return np.random.default_rng((_CUT_STREAM, *stream, group)).permutation(rows)[low:high]
