"""Plans a caption: how each family of attributes is cut into phrases, and which families share a sentence.

A plan is the cheapest of ``style.drafts`` draws (``style.toml``). It depends on how many phrases each family has, not on which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import permutations
from math import inf
from random import Random
from typing import Final, NamedTuple

from facecaption_ml.captions.labels import names_of, subsets
from facecaption_ml.captions.template.draws import best_of, table
from facecaption_ml.captions.template.productions import GrammarError
from facecaption_ml.captions.template.style import Style

DRAFTS: Final = 160
"""Plans drawn for each set of families, of which a caption's drafts are."""
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


HasRoom = Callable[[bool, int, int], bool]


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
    """Plans for shapes."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._drafts: dict[tuple[int, ...], dict[Plan, tuple[float, float]]] = {}
        self._plans: dict[Shape, tuple[list[int], list[Plan]]] = {}

    def plans(self, shape: Shape, has_room: HasRoom) -> tuple[list[int], list[Plan]]:
        """The plans for the shape as ``draws.table`` has them: the best of ``style.drafts`` draws.

        ``has_room(opening, had, worn)`` says whether a sentence can take so many phrases.
        """
        found = self._plans.get(shape)
        if found is None:
            found = self._plans[shape] = self._best(shape, has_room)
        return found

    def _best(self, shape: Shape, has_room: HasRoom) -> tuple[list[int], list[Plan]]:
        drafts = self._drafts.get(shape.families)
        if drafts is None:
            drafts = self._drafts[shape.families] = self._drawn(shape.families)
        costs = {plan: self._cost(shape, plan, fixed, has_room) for plan, (_, fixed) in drafts.items()}
        possible = [plan for plan, cost in costs.items() if cost < inf]
        if not possible:
            return table([1.0], [((), *((i,) for i in range(len(shape.families))))])  # each alone, which always has room
        shares = best_of(self._style.drafts, [drafts[p][0] for p in possible], [costs[p] for p in possible])
        return table(shares, possible)

    def _drawn(self, families: tuple[int, ...]) -> dict[Plan, tuple[float, float]]:
        """Plans for these families: how often each was drawn, and what it costs whatever the phrases are."""
        draw, style, count = Random(sum(1 << family for family in families)), self._style, len(families)
        drawn: Counter[Plan] = Counter()
        for _ in range(DRAFTS if count > 1 else 8):
            places = [place + style.stray * draw.random() for place in families]
            order = sorted(range(count), key=places.__getitem__)
            weights = style.families_in_the_opening
            at = draw.choices(range(len(weights)), weights)[0]
            plan = [tuple(order[:at])]
            while at < count:
                weights = style.families_in_a_sentence
                size = draw.choices(range(1, len(weights) + 1), weights)[0]
                plan.append(tuple(order[at : at + size]))
                at += size
            drawn[tuple(plan)] += 1
        costs = style.plan_costs
        fixed = {}
        for plan in drawn:
            order = [family for group in plan for family in group]
            strays = sum(a > b for i, a in enumerate(order) for b in order[i + 1 :])
            fixed[plan] = costs.stray * strays + costs.sentence * len(plan)
        return {plan: (float(times), fixed[plan]) for plan, times in drawn.items()}

    def _cost(self, shape: Shape, plan: Plan, cost: float, has_room: HasRoom) -> float:
        """The style cost of a plan, infinite where a sentence has no room for its phrases."""
        costs = self._style.plan_costs
        sizes = []
        for families in plan:
            had = worn = 0
            for family in families:
                had += shape.had[family]
                worn += shape.worn[family]
            if not has_room(not sizes, had, worn):
                return inf
            size = had + worn
            if size > 4:
                cost += costs.crowded * (size - 4)
            elif size == 1 and sizes:
                cost += costs.lonely
            sizes.append(size)
        if len(sizes) > 1:
            later = sizes[1:]
            cost += costs.bare_opening * (not sizes[0]) + costs.uneven * (max(later) - min(later))
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

