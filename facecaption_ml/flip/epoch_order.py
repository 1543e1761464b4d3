"""The order of an epoch: a pure function of the seed, the epoch and the number of processes, computed without reading data.

Row groups are permuted, laid end to end and cut into equal stretches, one for each process; a row group across a cut is read by
two processes, each taking its own rows. Within a stretch, windows of some row groups are shuffled row by row, so that a
reader holds one window at a time and can begin at any batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from facecaption_ml.flip.pair_index import PairIndex

_GROUPS_STREAM: Final = 0x6701
_WINDOW_STREAM: Final = 0x6702


def batches_per_epoch(pairs: int, batch_size: int, world_size: int) -> int:
    """Whole global batches in ``pairs``. Raises ValueError where there is none."""
    found = pairs // (batch_size * world_size)
    if not found:
        raise ValueError(
            f"{pairs} training pairs are less than one batch of {batch_size} × {world_size} processes: lower "
            "FACECAPTION_FLIP_BATCH_SIZE, or materialise more shards"
        )
    return found


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
) -> Iterator[npt.NDArray[np.int64]]:
    """The windows of one process in order: positions in the index, int64, without those of its first ``first_batch`` batches.

    A window all of whose rows come before ``first_batch`` is left out. Rows that do not fill a last global batch are not
    among them; another epoch's order leaves out others.
    """
    groups = np.random.default_rng((_GROUPS_STREAM, seed, epoch)).permutation(len(index.numbers))
    share = batches_per_epoch(len(index), batch_size, world_size) * batch_size
    stretches = _stretch(index, groups, rank * share, (rank + 1) * share)
    skipped = first_batch * batch_size
    for number, start in enumerate(range(0, len(stretches), window_row_groups)):
        pairs = np.concatenate(stretches[start : start + window_row_groups])
        if skipped >= len(pairs):
            skipped -= len(pairs)
            continue
        order = np.random.default_rng((_WINDOW_STREAM, seed, epoch, rank, number)).permutation(pairs)
        yield order[skipped:]
        skipped = 0


def _stretch(index: PairIndex, groups: np.ndarray, begin: int, end: int) -> list[npt.NDArray[np.int64]]:
    """For each row group that the stretch [begin, end) of the permuted rows touches, the pairs in it."""
    sizes = (index.starts[1:] - index.starts[:-1])[groups]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    found = []
    for group, offset, size in zip(groups.tolist(), offsets.tolist(), sizes.tolist(), strict=False):
        low, high = max(begin - offset, 0), min(end - offset, size)
        if low < high:
            found.append(np.arange(index.starts[group] + low, index.starts[group] + high))
    return found
