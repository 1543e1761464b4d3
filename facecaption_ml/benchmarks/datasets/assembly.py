"""From what lists and folders hold to the rows of a data set: what is left out, the splits, and the version of it all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from facecaption_ml.benchmarks.datasets.data import SPLITS, BenchmarkDataError, LabelData, PairData, Rows, Source
from facecaption_ml.benchmarks.datasets.folder import DataFolder
from facecaption_ml.benchmarks.datasets.pictures import content_version

PICTURE_ABSENT = "picture absent"
NO_SPLIT = "in no split"
BOTH_SPLITS = "in both splits"
NOT_LABELLED = "not labelled"
NO_CAPTION = "no caption"


def usable_names(
    pictures: Collection[str],
    described: Collection[str],
    split_of: Collection[str],
    undescribed: str,
    listed: Collection[str] = (),
) -> tuple[list[str], Counter[str]]:
    """The names that have all three — a picture, labels or captions, and a split — sorted; and the others by what they lack.

    Each name is counted once, those that are only ``listed`` too: ``picture absent`` goes before ``undescribed`` (the reason
    for a picture that is not ``described``), and that before ``in no split``.
    """
    usable, excluded = [], Counter[str]()
    for name in sorted({*pictures, *described, *split_of, *listed}):
        if name not in pictures:
            excluded[PICTURE_ABSENT] += 1
        elif name not in described:
            excluded[undescribed] += 1
        elif name not in split_of:
            excluded[NO_SPLIT] += 1
        else:
            usable.append(name)
    return usable, excluded


def split_names(lists: Mapping[str, Iterable[str]]) -> tuple[dict[str, str], int]:
    """The split of each name that the lists of the splits hold, and how many names stand in more than one list.

    Such a name belongs to the later of train, validation, test: nothing is tested on that was trained on.
    """
    split_of: dict[str, str] = {}
    twice = 0
    for split in SPLITS:
        for name in dict.fromkeys(lists.get(split, ())):
            twice += name in split_of
            split_of[name] = split
    return split_of, twice


def label_data(
    folder: DataFolder,
    name: str,
    keys: Sequence[str],
    labels: npt.NDArray[np.bool_],
    splits: Sequence[str],
    excluded: Mapping[str, int],
) -> LabelData:
    """The pictures ``keys`` with ``labels`` bool [N, 40] and the split of each. Raises as LabelData does."""
    pictures, rows = folder.stored_pictures(keys), _rows(splits)
    version = content_version((pictures.version, np.packbits(labels).tobytes().hex(), *splits))
    source = Source(name, version, _counted(excluded))
    try:
        return LabelData(source, pictures, labels, rows)
    except BenchmarkDataError as error:
        raise folder.error(f"{error}{exclusions(excluded)}") from error


def pair_data(
    folder: DataFolder,
    name: str,
    keys: Sequence[str],
    captions: Sequence[tuple[str, ...]],
    splits: Sequence[str],
    excluded: Mapping[str, int],
    notes: Sequence[str] = (),
) -> PairData:
    """The pictures ``keys`` with the captions and the split of each. Raises as PairData does."""
    pictures, rows = folder.stored_pictures(keys), _rows(splits)
    counted = (part for texts in captions for part in (str(len(texts)), *texts))
    source = Source(name, content_version((pictures.version, *splits, *counted)), _counted(excluded), notes)
    try:
        return PairData(source, pictures, captions, rows)
    except BenchmarkDataError as error:
        raise folder.error(f"{error}{exclusions(excluded)}") from error


def exclusions(excluded: Mapping[str, int]) -> str:
    """What was excluded, as the end of a message; nothing where nothing was."""
    counts = ", ".join(f"{count:,} {reason}" for reason, count in _counted(excluded).items())
    return f" (left out: {counts})" if counts else ""


def _rows(splits: Sequence[str]) -> dict[str, Rows]:
    of_row = np.array(splits, dtype=str)
    by_split = {split: np.flatnonzero(of_row == split).astype(np.int64) for split in SPLITS}
    return {split: rows for split, rows in by_split.items() if len(rows)}


def _counted(excluded: Mapping[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in sorted(excluded.items()) if count}
