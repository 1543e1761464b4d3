"""Ways to give the slots of a sentence the phrases that it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

Fits = tuple[int, ...]
"""For each phrase the slots that have a wording for it, one bit each."""


@lru_cache(maxsize=1 << 16)
def assignments(fits: Fits, slots: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Ways to give each slot (a bit) a phrase that it fits, as places in the sorted ``fits``; phrases of equal fits are equal."""
    room = Counter(slots)
    for slot, count in room.items():
        if sum([fit & slot != 0 for fit in fits]) < count:
            return []
    names, kinds = list(room), list(Counter(fits).items())
    found = []
    for shares in _shares(kinds, names, list(room.values())):
        queues: dict[int, list[int]] = {slot: [] for slot in names}
        first = 0
        for share in shares:
            for slot, number in zip(names, share, strict=True):
                queues[slot] += range(first, first + number)
                first += number
        turns = {slot: iter(queue) for slot, queue in queues.items()}
        found.append(tuple([next(turns[slot]) for slot in slots]))
    return found


def _shares(kinds: Sequence[tuple[int, int]], slots: list[int], room: list[int]) -> Iterator[tuple[list[int], ...]]:
    """Ways to share phrases, so many of each fit, among slots with room for so many: for each fit how many each slot gets."""
    if not kinds:
        yield ()
        return
    (fit, count), *rest = kinds
    limits = [left if fit & slot else 0 for slot, left in zip(slots, room, strict=True)]
    for share in _split(count, limits):
        left = [a - b for a, b in zip(room, share, strict=True)]
        for others in _shares(rest, slots, left):
            yield (share, *others)


def _split(count: int, limits: list[int]) -> Iterator[list[int]]:
    """Ways to put ``count`` equal phrases into slots, the most into the first one first."""
    if not limits:
        if not count:
            yield []
        return
    if count > sum(limits):
        return
    for number in range(min(count, limits[0]), -1, -1):
        for others in _split(count - number, limits[1:]):
            yield [number, *others]
