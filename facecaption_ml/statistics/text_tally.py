"""What one pass over ``facecaption_dataset`` gathers of its texts and labels, in memory that its size does not change."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from facecaption_ml.captions import find_attributes
from facecaption_ml.statistics.diversity import distinct_n, moving_average_ttr, self_bleu
from facecaption_ml.statistics.ngrams import (
    PLACES,
    DistinctHashes,
    gram_hashes,
    word_hashes,
    words,
)
from facecaption_ml.statistics.report import SOURCES, require_columns
from facecaption_ml.taxonomy import CATEGORIES, FEMALE

COLUMNS: Final = ("face_id", *SOURCES, "labels")
LONGEST: Final = 200
"""Texts of this many words or more share the last bin of the histogram; totals and means count them in full."""
TENTHS: Final = range(1, 11)
GRAM: Final = 4
ORDERS: Final = (1, 2, 3, 4)
BATCH_ROWS: Final = 20_000
_BATCH_BYTES: Final = 32 << 20
CATEGORY_OF: Final = {name: category for category, names in CATEGORIES.items() for name in names} | {
    FEMALE: "elementary"  # counts as a label like Male
}


@dataclass(frozen=True)
class SourceStatistics:
    """The texts of one source. Rates are None where no text defines them; what each is says :class:`TextStatistics`."""

    texts: int
    empty: int
    words: int
    by_length: tuple[int, ...]  # texts of 0, 1, … LONGEST or more words
    vocabulary: int
    grams: int
    curve: tuple[tuple[int, int], ...]  # texts and distinct 4-grams up to each tenth of the texts
    sampled: int
    distinct: tuple[float | None, ...]  # for each of ORDERS
    moving_average_ttr: float | None
    self_bleu: float | None
    mentions: Mapping[str, float | None]  # category → share of the sampled texts that assert one of its attributes


class LabelTally:
    """How often each category's labels are given, and to how many faces."""

    def __init__(self) -> None:
        self.faces = 0
        self.labels: Counter[str] = Counter()
        self.faces_with: Counter[str] = Counter()

    def add(self, lists: pl.Series) -> None:
        """Labels of some faces, List(String). Raises ValueError for a label that is no attribute."""
        rows = pl.DataFrame({"labels": lists}).with_row_index("face").explode("labels").drop_nulls("labels")
        unknown = rows.filter(~pl.col("labels").is_in(list(CATEGORY_OF)))
        if unknown.height:
            raise ValueError(f"column 'labels': {unknown['labels'][0]!r} is no attribute; see taxonomy.ATTRIBUTES")
        rows = rows.with_columns(category=pl.col("labels").replace_strict(CATEGORY_OF, return_dtype=pl.String))
        counts = rows.group_by("category").agg(pl.len(), pl.col("face").n_unique())
        for category, labels, faces in counts.iter_rows():
            self.labels[category] += labels
            self.faces_with[category] += faces
        self.faces += len(lists)


class SourceTally:
    """The running counts of one source, its distinct words and 4-grams on the scratch disk, and its sample."""

    def __init__(self, scratch: Path, capacity: int, sample: int) -> None:
        self._empty = self._words = self._grams = 0
        self._by_length = np.zeros(LONGEST + 1, np.int64)
        self._by_place = np.zeros(PLACES, np.int64)
        self._distinct_words = DistinctHashes(scratch / "words", max(1, capacity // 8))
        self._distinct_grams = DistinctHashes(scratch / "grams", capacity)
        # Python strings: a Polars column keeps the whole batch in memory that one of its strings came from.
        self._sample: list[tuple[int, str, str]] = []  # key, face_id, text
        self._sample_rows = sample

    def add(self, texts: pl.Series, face_ids: pl.Series, keys: np.ndarray) -> None:
        """Texts (String, null allowed) of faces, with the hash of each face's id, uint64 [N]."""
        lists = words(texts)
        lengths = lists.list.len().to_numpy()
        places = (keys >> np.uint64(48)).astype(np.uint16)
        hashes, rows, vocabulary = word_hashes(lists)
        self._empty += int((lengths == 0).sum())
        self._words += len(hashes)
        self._by_length += np.bincount(np.minimum(lengths, LONGEST), minlength=LONGEST + 1)
        self._by_place += np.bincount(places[lengths > 0], minlength=PLACES)
        self._distinct_words.add(vocabulary, np.zeros(len(vocabulary), np.uint16))
        grams, rows = gram_hashes(hashes, rows, GRAM)
        self._grams += len(grams)
        self._distinct_grams.add(grams, places[rows])
        candidates = lengths > 0
        if self._sample_rows and len(self._sample) == self._sample_rows:
            candidates &= keys <= self._sample[-1][0]
        chosen = np.flatnonzero(candidates)
        nearest = zip(keys[chosen].tolist(), face_ids.gather(chosen), texts.gather(chosen), strict=True)
        self._sample = heapq.nsmallest(self._sample_rows, [*self._sample, *nearest])

    def result(self) -> SourceStatistics:
        """Merge what is on the scratch disk, and measure the sample."""
        texts = int(self._by_place.sum())
        texts_until, grams_until = np.cumsum(self._by_place), np.cumsum(self._distinct_grams.first_places())
        cuts = [int(np.searchsorted(texts_until, -(-texts * tenth // 10))) for tenth in TENTHS]
        sampled = [text for _, _, text in self._sample]
        sample: list[list[str]] = words(pl.Series(sampled, dtype=pl.String)).to_list()
        return SourceStatistics(
            texts=texts,
            empty=self._empty,
            words=self._words,
            by_length=tuple(int(count) for count in self._by_length),
            vocabulary=int(self._distinct_words.first_places().sum()),
            grams=self._grams,
            curve=tuple((int(texts_until[cut]), int(grams_until[cut])) for cut in cuts),
            sampled=len(sample),
            distinct=tuple(distinct_n(sample, n) for n in ORDERS),
            moving_average_ttr=moving_average_ttr([word for text in sample for word in text]),
            self_bleu=self_bleu(sample),
            mentions=_mentions(sampled),
        )


def batches(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The rows of the frames cut anew, so that small frames cost little and large ones little memory.

    Raises SchemaError for a frame without one of :data:`COLUMNS`.
    """
    waiting: list[pl.DataFrame] = []
    rows, size = 0, 0.0
    for frame in frames:
        require_columns(frame, COLUMNS)
        narrow = frame.select(COLUMNS)
        row_bytes = narrow.estimated_size() / max(narrow.height, 1)
        for piece in narrow.iter_slices(max(1, min(BATCH_ROWS, int(_BATCH_BYTES / max(row_bytes, 1))))):
            waiting.append(piece)
            rows, size = rows + piece.height, size + row_bytes * piece.height
            if rows >= BATCH_ROWS or size >= _BATCH_BYTES:
                yield pl.concat(waiting)
                waiting, rows, size = [], 0, 0.0
    if waiting:
        yield pl.concat(waiting)


def _mentions(texts: Sequence[str]) -> dict[str, float | None]:
    mentions: Counter[str] = Counter()
    for text in texts:
        asserted, _ = find_attributes(text)
        mentions.update({CATEGORY_OF[name] for name in asserted})
    return {category: mentions[category] / len(texts) if texts else None for category in CATEGORIES}
