"""From what lists and folders hold to the rows of a data set: what is left out, the splits, and the version of it all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

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
_NOTHING: Mapping[str, int] = {}


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
    pictures: Mapping[str, str],
    labels: Mapping[str, Sequence[bool] | npt.NDArray[np.bool_]],
    split_of: Mapping[str, str],
    excluded: Mapping[str, int] = _NOTHING,
) -> LabelData:
    """The pictures (keys by name) that have 40 labels and a split. Raises as LabelData does.

    The others are counted, beside what is ``excluded`` already.
    """
    names, lacking = usable_names(pictures, labels, split_of, NOT_LABELLED)
    counts, splits = _counted(excluded, lacking), [split_of[name] for name in names]
    stored = folder.stored_pictures([pictures[name] for name in names])
    values = np.array([labels[name] for name in names], bool).reshape(-1, 40)
    version = content_version((stored.version, np.packbits(values).tobytes().hex(), *splits))
    with blaming(folder, counts):
        return LabelData(Source(name, version, counts), stored, values, _rows(splits))


def pair_data(
    folder: DataFolder,
    name: str,
    pictures: Mapping[str, str],
    captions: Mapping[str, Iterable[str]],
    split_of: Mapping[str, str],
    excluded: Mapping[str, int] = _NOTHING,
    notes: Sequence[str] = (),
    undescribed: str = NO_CAPTION,
) -> PairData:
    """The pictures (keys by name) that have captions and a split. Raises as PairData does.

    The others are counted as by ``usable_names``; names without any caption in ``captions`` are listed only.
    """
    texts_of = {name: tuple(texts) for name, texts in captions.items()}
    described = {name for name, texts in texts_of.items() if texts}
    names, lacking = usable_names(pictures, described, split_of, undescribed, captions)
    counts, splits = _counted(excluded, lacking), [split_of[name] for name in names]
    stored = folder.stored_pictures([pictures[name] for name in names])
    kept = [texts_of[name] for name in names]
    lengths_and_texts = (part for texts in kept for part in (str(len(texts)), *texts))
    version = content_version((stored.version, *splits, *lengths_and_texts))
    with blaming(folder, counts):
        return PairData(Source(name, version, counts, notes), stored, kept, _rows(splits))


@contextmanager
def blaming(folder: DataFolder, excluded: Mapping[str, int]) -> Iterator[None]:
    """An error of the data that is made names the folder it is made from, and what was excluded."""
    try:
        yield
    except BenchmarkDataError as error:
        raise folder.error(f"{error}{exclusions(excluded)}") from error


def exclusions(excluded: Mapping[str, int]) -> str:
    """What was excluded, as the end of a message; nothing where nothing was."""
    counts = ", ".join(f"{count:,} {reason}" for reason, count in sorted(excluded.items()) if count)
    return f" (left out: {counts})" if counts else ""


def _rows(splits: Sequence[str]) -> dict[str, Rows]:
    of_row = np.array(splits, dtype=str)
    by_split = {split: np.flatnonzero(of_row == split).astype(np.int64) for split in SPLITS}
    return {split: rows for split, rows in by_split.items() if len(rows)}


def _counted(*excluded: Mapping[str, int]) -> dict[str, int]:
    total = sum(map(Counter, excluded), Counter[str]())  # without what is zero
    return dict(sorted(total.items()))
