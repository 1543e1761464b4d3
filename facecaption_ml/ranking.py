"""How well queries find what they belong to: R@k, the rank percentile (m@A) and the reciprocal rank (m@B).

Over a similarity matrix [N, M], one row per query and one column per item of the gallery, larger meaning closer; or, for
galleries whose matrix is too large, over the features themselves (``retrieval_ranks``).

A query's rank is one more than the number of items that do not belong to it and are at least as similar as the best one
that does: 1 is the best, ties count against the model (one that gives every item the same score gets the last rank, not
the first), and an image's second caption is no rival of its first. What belongs together is the diagonal, or, where an
item has several partners, every pair with the same number in ``query_groups`` [N] and ``gallery_groups`` [M].

m@A and m@B are the measures of sketch-less retrieval (Bhunia et al., "Sketch Less for More", CVPR 2020, §4).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

Ranks = npt.NDArray[np.int64]

_CELLS_AT_ONCE: Final = 1 << 24  # similarities held together: 64 MiB of float32
_GALLERY_AT_ONCE: Final = 4096  # items multiplied together, in float64


def recall_at_k(
    similarity: npt.ArrayLike,
    k: int,
    *,
    query_groups: npt.ArrayLike | None = None,
    gallery_groups: npt.ArrayLike | None = None,
) -> float:
    """R@k, 0 … 1: share of the queries with an item of theirs among the k most similar.

    Raises ValueError where k is below 1 or above the size of the gallery, and where ``ranks`` does.
    """
    matrix = _matrix(similarity)
    _check_k(k, matrix.shape[1])
    found = ranks(matrix, query_groups=query_groups, gallery_groups=gallery_groups)
    return recall_of_ranks(found, k, gallery_size=matrix.shape[1])


def rank_percentile(
    similarity: npt.ArrayLike, *, query_groups: npt.ArrayLike | None = None, gallery_groups: npt.ArrayLike | None = None
) -> float:
    """m@A, 0 … 1: mean of (M − rank) / (M − 1), the share of the other items that are less similar.

    Raises ValueError where the gallery has one item only, and where ``ranks`` does.
    """
    matrix = _matrix(similarity)
    found = ranks(matrix, query_groups=query_groups, gallery_groups=gallery_groups)
    return percentile_of_ranks(found, gallery_size=matrix.shape[1])


def reciprocal_rank(
    similarity: npt.ArrayLike, *, query_groups: npt.ArrayLike | None = None, gallery_groups: npt.ArrayLike | None = None
) -> float:
    """m@B, above 0 … 1: mean of 1 / rank. Raises ValueError where ``ranks`` does."""
    return reciprocal_of_ranks(ranks(similarity, query_groups=query_groups, gallery_groups=gallery_groups))


def ranks(
    similarity: npt.ArrayLike, *, query_groups: npt.ArrayLike | None = None, gallery_groups: npt.ArrayLike | None = None
) -> Ranks:
    """int64 [N]: the rank of the best item of each query in a similarity matrix [N, M], 1 … M.

    Raises ValueError for a matrix that is not square where no groups are given, for groups of another length, for a query
    without an item in the gallery, and for a NaN, naming the row.
    """
    matrix = _matrix(similarity)
    belongs = _groups(matrix.shape, query_groups, gallery_groups)
    found = np.empty(len(matrix), np.int64)
    for rows in _row_blocks(len(matrix), _CELLS_AT_ONCE // matrix.shape[1]):
        found[rows] = _ranks_of_rows(matrix[rows], rows.start, *belongs)
    return found


def retrieval_ranks(
    queries: npt.ArrayLike,
    gallery: npt.ArrayLike,
    *,
    query_groups: npt.ArrayLike | None = None,
    gallery_groups: npt.ArrayLike | None = None,
    block: int | None = None,
) -> Ranks:
    """``ranks`` of the inner products of features ``queries`` [N, D] and ``gallery`` [M, D], int64 [N].

    ``block`` queries are compared with the gallery at a time; the default holds some 200 MiB whatever N and M.
    Products are summed in float64 and rounded to float32: two gallery items with the same features then tie, wherever in
    a block they stand, and ranks depend neither on ``block`` nor on the number of threads.
    Raises ValueError where ``ranks`` does, and for features that are not finite, naming the row.
    """
    q, g = _features("queries", queries), _features("gallery", gallery)
    if q.shape[1] != g.shape[1]:
        raise ValueError(f"queries have {q.shape[1]} dimensions, but the gallery has {g.shape[1]}")
    if block is not None and block < 1:
        raise ValueError(f"block must be 1 or more queries, not {block}")
    belongs = _groups((len(q), len(g)), query_groups, gallery_groups)
    found = np.empty(len(q), np.int64)
    for rows in _row_blocks(len(q), block or _CELLS_AT_ONCE // len(g)):
        found[rows] = _ranks_of_rows(_inner_products(q[rows], g), rows.start, *belongs)
    return found


def recall_of_ranks(ranks: Ranks, k: int, gallery_size: int) -> float:
    """R@k of ranks already computed, for several k of one comparison."""
    _check_k(k, gallery_size)
    return float(np.mean(_some(ranks) <= k))


def percentile_of_ranks(ranks: Ranks, gallery_size: int) -> float:
    """m@A of ranks already computed."""
    if gallery_size < 2:
        raise ValueError(f"the rank percentile needs a gallery of 2 items or more, not {gallery_size}")
    return float(np.mean((gallery_size - _some(ranks)) / (gallery_size - 1)))


def reciprocal_of_ranks(ranks: Ranks) -> float:
    """m@B of ranks already computed."""
    return float(np.mean(1.0 / _some(ranks)))


def _ranks_of_rows(rows: npt.NDArray, start: int, query_groups: Ranks, gallery_groups: Ranks) -> Ranks:
    """Ranks of the rows ``start``, ``start`` + 1, … of a similarity matrix."""
    missing = np.isnan(rows).any(axis=1)
    if missing.any():
        raise ValueError(f"row {start + int(missing.argmax())} of the similarity matrix holds NaN")
    own = query_groups[start : start + len(rows), None] == gallery_groups
    lowest = -np.inf if rows.dtype.kind == "f" else np.iinfo(rows.dtype).min
    best = np.max(rows, axis=1, where=own, initial=lowest)
    return 1 + np.count_nonzero((rows >= best[:, None]) & ~own, axis=1)


def _inner_products(queries: npt.NDArray, gallery: npt.NDArray) -> npt.NDArray[np.float32]:
    """float32 [N, M], summed in float64."""
    left = queries.astype(np.float64)
    products = np.empty((len(queries), len(gallery)), np.float32)
    for items in _row_blocks(len(gallery), _GALLERY_AT_ONCE):
        products[:, items] = left @ gallery[items].astype(np.float64).T
    return products


def _row_blocks(count: int, size: int) -> list[slice]:
    size = max(size, 1)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _matrix(similarity: npt.ArrayLike) -> npt.NDArray:
    matrix = np.asarray(similarity)
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        raise ValueError(f"similarity must be a matrix of numbers [N, M], not {matrix.dtype} {list(matrix.shape)}")
    return _not_empty("the similarity matrix", matrix)


def _features(name: str, values: npt.ArrayLike) -> npt.NDArray:
    features = np.asarray(values)
    if features.ndim != 2 or features.dtype.kind != "f":
        raise ValueError(f"{name} must be floating-point features [N, D], not {features.dtype} {list(features.shape)}")
    finite = np.isfinite(_not_empty(name, features)).all(axis=1)
    if not finite.all():
        raise ValueError(f"row {int(finite.argmin())} of {name} holds NaN or infinity")
    return features


def _not_empty(name: str, matrix: npt.NDArray) -> npt.NDArray:
    if not matrix.size:
        raise ValueError(f"{name} is empty: {list(matrix.shape)}")
    return matrix


def _groups(
    shape: tuple[int, ...], query_groups: npt.ArrayLike | None, gallery_groups: npt.ArrayLike | None
) -> tuple[Ranks, Ranks]:
    """The numbers that queries share with their items: the given ones, or else the row numbers."""
    if (query_groups is None) != (gallery_groups is None):
        raise ValueError("query_groups and gallery_groups belong together: give both or none")
    if query_groups is None or gallery_groups is None:
        if shape[0] != shape[1]:
            raise ValueError(
                f"{shape[0]} queries and {shape[1]} gallery items are no pairs: give query_groups and gallery_groups"
            )
        return np.arange(shape[0]), np.arange(shape[0])
    queries = _group_numbers("query_groups", query_groups, shape[0])
    items = _group_numbers("gallery_groups", gallery_groups, shape[1])
    found = np.isin(queries, items)
    if not found.all():
        row = int(found.argmin())
        raise ValueError(f"query {row} has no item in the gallery: {queries[row]} is not among the gallery_groups")
    return queries, items


def _group_numbers(name: str, values: npt.ArrayLike, count: int) -> Ranks:
    numbers = np.asarray(values)
    if numbers.shape != (count,) or numbers.dtype.kind not in "iu":
        raise ValueError(f"{name} must be {count} whole numbers, not {numbers.dtype} {list(numbers.shape)}")
    return numbers.astype(np.int64)


def _check_k(k: int, gallery_size: int) -> None:
    if k < 1:
        raise ValueError(f"k must be 1 or more, not {k}")
    if gallery_size < k:
        raise ValueError(f"R@{k} needs a gallery of {k} items or more, but this one has {gallery_size}")


def _some(ranks: Ranks) -> Ranks:
    if not len(ranks):
        raise ValueError("there are no ranks to take the mean of")
    return np.asarray(ranks)
