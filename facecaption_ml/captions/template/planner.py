"""Plans a caption: how each family of attributes is cut into phrases, and which families share a sentence.

A plan is drawn ``style.drafts`` times and the cheapest is taken (``style.toml``). It depends on how many phrases each family
has, not on which: so a few plans for each such count are kept, and a caption draws one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from math import inf
from random import Random
from typing import Final, NamedTuple

from facecaption_ml.captions.labels import each_bit, names_of, subsets
from facecaption_ml.captions.template.draws import table
from facecaption_ml.captions.template.productions import GrammarError
from facecaption_ml.captions.template.style import Style

PLANS: Final = 64
"""Plans kept for each count of phrases."""
_MOST_ORDERS: Final = 24


class Cut(NamedTuple):
    """A family's phrases (bits) in an order, the slots each fits, and how many are had and worn."""

    phrases: tuple[int, ...]
    fits: tuple[int, ...]
    had: int
    worn: int


class Shape(NamedTuple):
    """What a plan depends on: the families present, by their place in the style, with their phrases had and worn."""

    families: tuple[int, ...]
    had: tuple[int, ...]
    worn: tuple[int, ...]


Plan = tuple[tuple[int, ...], ...]
"""For each sentence the families in it, as places in ``Shape.families``; the first is the opening, and may be empty."""


class Cutter:
    """Cuts families into phrases."""

    def __init__(self, style: Style, fit: Callable[[int], int], is_worn: Callable[[int], bool], tail: Callable[[int], bool]) -> None:
        self._style, self._fit, self._is_worn, self._tail = style, fit, is_worn, tail
        self._fits: dict[int, int] = {}

    def fit(self, phrase: int) -> int:
        """The slots that have a wording for the phrase, 0 where it cannot be said."""
        if phrase not in self._fits:
            self._fits[phrase] = self._fit(phrase)
        return self._fits[phrase]

    def cuts(self, held: int) -> tuple[list[int], list[Cut]]:
        """The ways to say the labels of one family, as ``draws.table`` has them. Raises GrammarError where there is none."""
        cuts: dict[tuple[int, ...], float] = {}
        for parts in _partitions(held):
            if all(self._whole(part, held) and self.fit(part) for part in parts):
                orders = dict.fromkeys(self._tails_last(order) for order in _orders(parts))
                weights = [self._style.neighbours ** self._neighbours(order) for order in orders]
                for order, weight in zip(orders, weights, strict=True):
                    cuts[order] = weight / sum(weights) * self._style.merged ** -len(parts)
        if not cuts:
            raise GrammarError(f"no sentence can say {', '.join(names_of(held))}")
        return table(list(cuts.values()), [self._cut(order) for order in cuts])

    def whole(self, part: int, held: int) -> bool:
        """Whether the part has all or none of the held attributes that always stand together."""
        return self._whole(part, held)

    def _whole(self, part: int, held: int) -> bool:
        return all(not part & group or held & group == part & group for group in self._style.together)

    def _tails_last(self, order: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(order, key=self._tail))

    def _neighbours(self, order: tuple[int, ...]) -> int:
        pairs = [a | b for a, b in zip(order, order[1:], strict=False)]
        return sum(any(pair & group == group for pair in pairs) for group in self._style.beside)

    def _cut(self, order: tuple[int, ...]) -> Cut:
        fits = tuple(self.fit(phrase) for phrase in order)
        worn = sum(map(self._is_worn, fits))
        return Cut(order, fits, len(order) - worn, worn)


class Planner:
    """Plans for shapes; ``has_room(opening, had, worn)`` says whether a sentence can take so many phrases."""

    def __init__(self, style: Style, has_room: Callable[[bool, int, int], bool]) -> None:
        self._style, self._has_room = style, has_room
        self._plans: dict[tuple[Shape, int], Plan] = {}

    def plan(self, shape: Shape, number: int) -> Plan:
        """One of the plans for the shape, 0 ≤ ``number`` < PLANS."""
        key = shape, number
        found = self._plans.get(key)
        if found is None:
            found = self._plans[key] = self._best(shape, Random(f"{shape} {number}"))
        return found

    def _best(self, shape: Shape, draw: Random) -> Plan:
        drafts = [self._draft(shape, draw) for _ in range(self._style.drafts)]
        alone = ((), *((i,) for i in range(len(shape.families))))  # which always has room
        best = min(drafts, key=lambda plan: self._cost(shape, plan))
        return best if self._cost(shape, best) < inf else alone

    def _draft(self, shape: Shape, draw: Random) -> Plan:
        """Families near their usual order, cut into sentences."""
        style, count = self._style, len(shape.families)
        places = [place + style.stray * draw.random() for place in shape.families]
        order = sorted(range(count), key=places.__getitem__)
        weights = style.families_in_the_opening
        at = draw.choices(range(len(weights)), weights)[0]
        plan = [tuple(order[:at])]
        while at < count:
            weights = style.families_in_a_sentence
            size = draw.choices(range(1, len(weights) + 1), weights)[0]
            plan.append(tuple(order[at : at + size]))
            at += size
        return tuple(plan)

    def _cost(self, shape: Shape, plan: Plan) -> float:
        """The style cost of a plan, infinite where a sentence has no room for its phrases."""
        costs = self._style.plan_costs
        sizes = []
        cost = 0.0
        for i, families in enumerate(plan):
            had, worn = sum(shape.had[f] for f in families), sum(shape.worn[f] for f in families)
            if not self._has_room(i == 0, had, worn):
                return inf
            sizes.append(had + worn)
            cost += costs.sentence + costs.crowded * max(had + worn - 4, 0)
            cost += costs.lonely * (i > 0 and had + worn == 1)
        order = [family for families in plan for family in families]
        cost += costs.stray * sum(a > b for i, a in enumerate(order) for b in order[i + 1 :])
        if len(sizes) > 1:
            cost += costs.bare_opening * (not sizes[0]) + costs.uneven * (max(sizes[1:]) - min(sizes[1:]))
        return cost


def _orders(parts: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The orders of up to four parts; of more a drawn few."""
    if len(parts) <= 4:
        return list(permutations(parts))
    draw = Random(sum(parts))
    return [tuple(draw.sample(parts, len(parts))) for _ in range(_MOST_ORDERS)]


def _partitions(bits: int) -> Iterator[tuple[int, ...]]:
    """Every way to split a set into parts, the part with the lowest bit first."""
    if not bits:
        yield ()
        return
    lowest = bits & -bits
    for more in subsets(bits ^ lowest):
        for rest in _partitions(bits ^ lowest ^ more):
            yield (lowest | more, *rest)


__all__ = ["PLANS", "Cut", "Cutter", "Plan", "Planner", "Shape", "each_bit"]
