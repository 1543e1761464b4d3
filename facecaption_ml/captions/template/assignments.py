"""Ways to give the slots of a sentence the phrases that it says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from operator import sub

Fits = tuple[int, ...]
"""For each phrase the slots that have a wording for it, one bit each."""


def assignments(kinds: Sequence[tuple[int, int]], slots: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Ways to give each slot (a bit) a phrase that it fits, as places among the phrases.

    ``kinds``: for phrases that are equal, one kind after the other, what they fit and how many they are.
    """
    room = Counter(slots)
    for slot, count in room.items():
        if sum([number for fit, number in kinds if fit & slot]) < count:
            return []
    names = tuple(room)
    found = []
    for shares in _shares(kinds, names, tuple(room.values())):
        queues: dict[int, list[int]] = {slot: [] for slot in names}
        first = 0
        for share in shares:
            for slot, number in zip(names, share, strict=True):
                queues[slot] += range(first, first + number)
                first += number
        turns = {slot: iter(queue) for slot, queue in queues.items()}
        found.append(tuple([next(turns[slot]) for slot in slots]))
    return found


def _shares(
    kinds: Sequence[tuple[int, int]], slots: tuple[int, ...], room: tuple[int, ...]
) -> list[tuple[tuple[int, ...], ...]]:
    """Ways to share phrases, so many of each fit, among slots with room for so many: for each fit how many each slot gets."""
    ways: list[tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]] = [((), room)]
    for fit, count in kinds:
        ways = [
            ((*shares, share), tuple(map(sub, left, share)))
            for shares, left in ways
            for share in _splits(count, tuple([n if fit & slot else 0 for slot, n in zip(slots, left, strict=True)]))
        ]
    return [shares for shares, _ in ways]


@cache
def _splits(count: int, limits: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Ways to put ``count`` equal phrases into slots that take so many, the most into the first one first."""
    if not limits:
        return [] if count else [()]
    return [
        (number, *others)
        for number in range(min(count, limits[0]), -1, -1)
        for others in _splits(count - number, limits[1:])
    ]
