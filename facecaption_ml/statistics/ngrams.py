"""Words, n-grams as 64-bit hashes, and the number of distinct ones in bounded memory.

A word is a run of Unicode letters, marks and digits, lower-cased, with apostrophes and hyphens inside it ("clean-shaven"
is one word); a script without spaces gives one word per run. An n-gram never crosses from one text into the next.

Hashes: BLAKE2b with 8 bytes for a word, and of n words w₁…wₙ the polynomial w₁Mⁿ⁻¹ + … + wₙ modulo 2⁶⁴ with an odd M,
so equal on every machine, whatever the versions and thread counts. Two different n-grams share a hash with a chance of 2⁻⁶⁴,
at most 2⁻⁵⁹ where they are the same words in another order, so of N distinct ones some N² / 2⁶⁵ are missed: for 600
million one in a hundred runs. Everything else about the counts is exact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

PLACES: Final = 1 << 16
"""Places that a row can have in the order of the data: the upper 16 bits of a hash of its key."""
RECORD_BYTES: Final = 10
"""A hash and a place on the scratch disk."""
WORKING_BYTES: Final = 40
"""Memory that sorting one record takes, the record included."""

_WORD: Final = r"[\p{L}\p{M}\p{N}]+(?:['-][\p{L}\p{M}\p{N}]+)*"
_MULTIPLIER: Final = 0x9E3779B97F4A7C13  # odd; no sum of ±1, ±M, ±M², ±M³ is divisible by more than 2⁵


def words(texts: pl.Series) -> pl.Series:
    """The words of each text (String) as a list; null and a text without words give an empty list."""
    plain = texts.cast(pl.String).fill_null("").str.to_lowercase().str.replace_all("’", "'", literal=True)
    return plain.str.extract_all(_WORD).alias("words")


def stable_hashes(values: Sequence[str], seed: int = 0) -> np.ndarray:
    """A hash of each value under a seed: uint64 [N], evenly spread, the same on every machine."""
    keyed = hashlib.blake2b(digest_size=8, key=seed.to_bytes(16, "little", signed=True))
    digests = []
    for value in values:
        digest = keyed.copy()
        digest.update(value.encode("utf-8", "surrogatepass"))
        digests.append(digest.digest())
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def word_hashes(lists: pl.Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of the lists of :func:`words`: the hash of every word in order, uint64 [T]; the number of its text, int64 [T]; and
    the hashes of the distinct words, uint64 [V]."""
    texts = np.repeat(np.arange(len(lists)), lists.list.len().to_numpy())
    if not len(texts):
        return np.empty(0, np.uint64), texts, np.empty(0, np.uint64)
    flat = lists.explode(empty_as_null=False).to_arrow().cast(pa.large_string())
    encoded = flat.dictionary_encode()  # so that each distinct word is hashed once
    vocabulary = stable_hashes(encoded.dictionary.to_pylist())
    return vocabulary[encoded.indices.to_numpy()], texts, vocabulary


def gram_hashes(hashes: np.ndarray, texts: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The hash of every n-gram, uint64 [G], and the number of its text [G], from what :func:`word_hashes` gives."""
    last = n - 1
    if len(hashes) <= last:
        return np.empty(0, np.uint64), np.empty(0, texts.dtype)
    grams = hashes[: len(hashes) - last].copy()
    for later in range(1, n):
        grams *= np.uint64(_MULTIPLIER)  # wraps around: modulo 2⁶⁴
        grams += hashes[later : len(hashes) - last + later]
    within = texts[: len(texts) - last] == texts[last:]
    return grams[within], texts[: len(texts) - last][within]


class DistinctHashes:
    """Counts distinct hashes exactly, and how many are met by each place in the order of the data.

    Hashes are gathered in a buffer of ``capacity`` records. A full buffer is sorted, reduced to distinct hashes and written to
    ``scratch`` as one sorted run; at the end the runs are merged one range of hashes after the other. Memory stays
    below ``capacity`` × :data:`WORKING_BYTES`, and the disk takes at most :data:`RECORD_BYTES` for each hash added.
    The caller removes ``scratch``.
    """

    def __init__(self, scratch: Path, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}, should be 1 or more")
        self._scratch, self._capacity = scratch, capacity
        self._hashes, self._places = np.empty(capacity, np.uint64), np.empty(capacity, np.uint16)
        self._filled = 0
        self._runs: list[int] = []  # records in each

    def add(self, hashes: np.ndarray, places: np.ndarray) -> None:
        """Hashes, uint64 [N], each with the place of its text, 0 ≤ place < :data:`PLACES`, [N].

        Raises OSError naming the scratch folder where it cannot be written.
        """
        start = 0
        while start < len(hashes):
            end = min(len(hashes), start + self._capacity - self._filled)
            room = slice(self._filled, self._filled + end - start)
            self._hashes[room], self._places[room] = hashes[start:end], places[start:end]
            self._filled, start = room.stop, end
            if self._filled == self._capacity:
                self._write_run()

    def first_places(self) -> np.ndarray:
        """Number of distinct hashes whose smallest place is p, int64 [:data:`PLACES`]; ends the counting."""
        if not self._runs:
            places = _first_of_each(self._hashes[: self._filled], self._places[: self._filled])[1]
            return np.bincount(places, minlength=PLACES)
        if self._filled:
            self._write_run()
        self._hashes, self._places = np.empty(0, np.uint64), np.empty(0, np.uint16)
        counts = np.zeros(PLACES, np.int64)
        for hashes, places in self._ranges():
            counts += np.bincount(_first_of_each(hashes, places)[1], minlength=PLACES)
        return counts

    def _write_run(self) -> None:
        hashes, places = _first_of_each(self._hashes[: self._filled], self._places[: self._filled])
        try:
            self._scratch.mkdir(parents=True, exist_ok=True)
            hashes.tofile(self._path(len(self._runs), "hashes"))
            places.tofile(self._path(len(self._runs), "places"))
        except OSError as error:
            raise OSError(
                f"cannot write n-grams to {self._scratch} ({error.strerror or error}): the scratch folder needs up to "
                f"{RECORD_BYTES} bytes for each n-gram of the data"
            ) from error
        self._runs.append(len(hashes))
        self._filled = 0

    def _ranges(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The records of all runs, those of one range of hashes at a time. Hashes are spread evenly, so are the ranges."""
        number = -(-sum(self._runs) * 5 // (self._capacity * 4))  # a quarter more than needed: no range is much fuller
        edges = [(i << 64) // number for i in range(1, number)]
        cuts = []
        for run, records in enumerate(self._runs):
            stored = np.memmap(self._path(run, "hashes"), np.uint64, "r", shape=(records,))
            cuts.append([0, *np.searchsorted(stored, np.array(edges, np.uint64)), records])
        for part in range(number):
            parts = [(run, int(cut[part]), int(cut[part + 1] - cut[part])) for run, cut in enumerate(cuts)]
            hashes = [_read(self._path(r, "hashes"), np.uint64, start, count) for r, start, count in parts]
            places = [_read(self._path(r, "places"), np.uint16, start, count) for r, start, count in parts]
            yield np.concatenate(hashes), np.concatenate(places)

    def _path(self, run: int, kind: str) -> Path:
        return self._scratch / f"{run:06d}.{kind}"


def _read(path: Path, dtype: type[np.unsignedinteger], start: int, count: int) -> np.ndarray:
    return np.fromfile(path, dtype, count=count, offset=start * np.dtype(dtype).itemsize)


def _first_of_each(hashes: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct hashes in order, and the smallest place of each."""
    order = np.argsort(hashes)
    hashes, places = hashes[order], places[order]
    if not len(hashes):
        return hashes, places
    starts = np.flatnonzero(np.concatenate(([True], hashes[1:] != hashes[:-1])))
    return hashes[starts], np.minimum.reduceat(places, starts)
