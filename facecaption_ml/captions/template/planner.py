"""Plans a caption: how each family of attributes is cut into phrases, and which families share a sentence.

A plan is the cheapest of ``style.drafts`` draws (``style.toml``). It depends on how many phrases each family has, not on which.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise, permutations
from math import inf
from random import Random
from typing import Final, NamedTuple

from facecaption_ml.captions.labels import names_of, subsets
from facecaption_ml.captions.template.draws import best_of, table
from facecaption_ml.captions.template.fitting import Fitting
from facecaption_ml.captions.template.productions import GrammarError
from facecaption_ml.captions.template.style import PlanCosts, Style

DRAFTS: Final = 160
"""Plans drawn for each set of families, of which a caption's drafts are."""
_MOST_ORDERS: Final = 24


Shape = int
"""What a plan depends on: how many phrases each family has, 16 bits a family in the style's order: had, above them worn."""


class Cut(NamedTuple):
    """A family's phrases (bits) in an order, the slots each fits, and how many they are, as a shape."""

    phrases: tuple[int, ...]
    fits: tuple[int, ...]
    shape: Shape


class Cuts(dict[int, tuple[list[int], list[Cut]]]):
    """The ways to say some labels of one family, as ``draws.table`` has them, made when they are first asked for."""

    def __init__(self, cutter: Cutter) -> None:
        super().__init__()
        self._cutter = cutter

    def __missing__(self, held: int) -> tuple[list[int], list[Cut]]:
        cuts = self[held] = self._cutter.cuts(held)
        return cuts


Plan = tuple[tuple[int, ...], ...]
"""For each sentence the families in it, as places among those present; the first is the opening, and may be empty."""


HasRoom = Callable[[bool, int, int], bool]


class Cutter:
    """Cuts families into phrases."""

    def __init__(self, style: Style, fitting: Fitting) -> None:
        self._style, self._fitting = style, fitting

    def cuts(self, held: int) -> tuple[list[int], list[Cut]]:
        """The ways to say the labels of one family, as ``draws.table`` has them. Raises GrammarError where there is none."""
        cuts: dict[tuple[int, ...], float] = {}
        beside = [group for group in self._style.beside if held & group == group]
        good = {part for part in subsets(held) if part and self.whole(part, held) and self._fitting.fit(part)}
        for parts in _partitions(held, good):
            orders = self._tails_last(parts, _orders(parts))
            weights = [self._style.neighbours ** _neighbours(order, beside) for order in orders]
            total, merged = sum(weights), self._style.merged ** -len(parts)
            for order, weight in zip(orders, weights, strict=True):
                cuts[order] = weight / total * merged
        if not cuts:
            raise GrammarError(f"no sentence can say {', '.join(names_of(held))}")
        place = next(place for place, family in enumerate(self._style.families) if held & family)
        bounds, orders = table(list(cuts.values()), list(cuts))
        return bounds, [self._cut(order, place) for order in orders]

    def whole(self, part: int, held: int) -> bool:
        """Whether the part has all or none of the held attributes that always stand together."""
        return all(not part & group or held & group == part & group for group in self._style.together)

    def _tails_last(self, parts: tuple[int, ...], orders: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """The orders with what closes its list at the end, each once."""
        tails = {part for part in parts if self._fitting.closes(part)}
        if tails:
            orders = [tuple(sorted(order, key=tails.__contains__)) for order in orders]
        return list(dict.fromkeys(orders))

    def _cut(self, order: tuple[int, ...], place: int) -> Cut:
        fits = tuple([self._fitting.fit(phrase) for phrase in order])
        worn = sum(map(self._fitting.is_worn, fits))
        return Cut(order, fits, _shape(place, len(order) - worn, worn))


def _neighbours(order: tuple[int, ...], beside: Sequence[int]) -> int:
    """How many of the groups an order puts side by side."""
    if not beside:
        return 0
    pairs = [a | b for a, b in pairwise(order)]
    return sum([any(pair & group == group for pair in pairs) for group in beside])


def _shape(place: int, had: int, worn: int) -> Shape:
    return (had | worn << 8) << 16 * place


def _sizes(shape: Shape) -> Iterator[tuple[int, int, int]]:
    """For each family that is present its place, and how many of its phrases are had and worn."""
    place = 0
    while shape:
        if shape & 0xFFFF:
            yield place, shape & 0xFF, shape >> 8 & 0xFF
        shape >>= 16
        place += 1


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
        families, had, worn = zip(*_sizes(shape), strict=True) if shape else ((), (), ())
        drafts = self._drafts.get(families)
        if drafts is None:
            drafts = self._drafts[families] = self._drawn(families)
        sentences = _Sizes(had, worn, self._style.plan_costs, has_room)
        weighed = [(plan, times, self._cost(plan, fixed, sentences)) for plan, (times, fixed) in drafts.items()]
        possible = [(plan, times, cost) for plan, times, cost in weighed if cost < inf]
        if not possible:  # each alone, which always has room
            return table([1.0], [((), *((i,) for i in range(len(families))))])
        plans, weights, costs = zip(*possible, strict=True)
        return table(best_of(self._style.drafts, weights, costs), plans)

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
        fixed: dict[Plan, float] = {}
        for draft in drawn:
            order = [family for group in draft for family in group]
            strays = sum(a > b for i, a in enumerate(order) for b in order[i + 1 :])
            fixed[draft] = costs.stray * strays + costs.sentence * len(draft)
        return {draft: (float(times), fixed[draft]) for draft, times in drawn.items()}

    def _cost(self, plan: Plan, cost: float, sentences: _Sizes) -> float:
        """The style cost of a plan, infinite where a sentence has no room for its phrases."""
        costs = self._style.plan_costs
        sizes: list[int] = []
        for families in plan:
            size, own = sentences[families, not sizes]
            cost += own
            sizes.append(size)
        if len(sizes) > 1:
            later = sizes[1:]
            cost += costs.bare_opening * (not sizes[0]) + costs.uneven * (max(later) - min(later))
        return cost


class _Sizes(dict[tuple[tuple[int, ...], bool], tuple[int, float]]):
    """Phrases in a sentence of some families, by whether it is the opening, and what it costs: infinite without room."""

    def __init__(self, had: tuple[int, ...], worn: tuple[int, ...], costs: PlanCosts, has_room: HasRoom) -> None:
        super().__init__()
        self._had, self._worn, self._costs, self._has_room = had, worn, costs, has_room

    def __missing__(self, sentence: tuple[tuple[int, ...], bool]) -> tuple[int, float]:
        families, opening = sentence
        had = sum([self._had[family] for family in families])
        worn = sum([self._worn[family] for family in families])
        size, cost = had + worn, 0.0
        if not self._has_room(opening, had, worn):
            cost = inf
        elif size > 4:
            cost = self._costs.crowded * (size - 4)
        elif size == 1 and not opening:
            cost = self._costs.lonely
        self[sentence] = size, cost
        return size, cost


def _orders(parts: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The orders of up to four parts; of more a drawn few."""
    if len(parts) <= 4:
        return list(permutations(parts))
    draw = Random(sum(parts))
    return [tuple(draw.sample(parts, len(parts))) for _ in range(_MOST_ORDERS)]


def _partitions(bits: int, good: Collection[int]) -> Iterator[tuple[int, ...]]:
    """Every way to split a set into good parts, the part with the lowest bit first."""
    if not bits:
        yield ()
        return
    lowest = bits & -bits
    for more in subsets(bits ^ lowest):
        if lowest | more in good:
            for rest in _partitions(bits ^ lowest ^ more, good):
                yield (lowest | more, *rest)
