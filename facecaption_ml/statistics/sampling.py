"""Samples that do not depend on the order of what is sampled: the names with the smallest hashes."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def sample_key(name: str, seed: int = 0) -> int:
    """64 bits of the SHA-256 of ``seed`` and ``name``."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogateescape")).digest()[:8], "big")


def hashed_sample(items: Iterable[tuple[str, T]], limit: int | None, seed: int = 0) -> Iterator[tuple[str, T]]:
    """At most ``limit`` of the (name, item) pairs, those with the smallest keys, by key; all, as they come, for None.

    Holds ``limit`` items at a time. Raises ValueError for a negative limit.
    """
    if limit is None:
        return iter(items)
    if limit < 0:
        raise ValueError(f"limit: {limit} is negative")
    keyed = ((sample_key(name, seed), name, item) for name, item in items)
    chosen = heapq.nsmallest(limit, keyed, key=lambda entry: entry[:2])
    return ((name, item) for _, name, item in chosen)
