"""Draws captions from the grammar, conditioned on a set of labels.

A caption is planned in four draws, each over what the labels admit, each cached by the few labels that matter to it:

1. the opening takes the gender and some of the other attributes that its introduction can hold;
2. the other labels become units: attributes that can share a phrase ("wavy brown hair") share it or stand alone;
3. the units are put in an order, near units of the same category mostly staying together;
4. sentence frames take the next one to four units, weighted by the frames' probabilities in the grammar.

Then each unit's wording is drawn from its table (``phrases.py``). After the tables are warm a caption costs about thirty
bisections, and nothing depends on how many label sets were seen before.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import combinations, permutations
from random import Random
from typing import Final, NamedTuple

from facecaption_ml.captions.labels import BIT, each_bit, names_of, subsets
from facecaption_ml.captions.template.phrases import PhraseBook, Table, cumulated, spaced
from facecaption_ml.captions.template.productions import GrammarError, Name, Rules
from facecaption_ml.taxonomy import CATEGORIES

SHARE: Final = 6.0  # how much likelier units that share a phrase are than units apart, per phrase saved
STRAY: Final = 0.4  # 0: categories never interleave; 1 and more: units come in any order
MOST_UNITS: Final = 4  # in one sentence
_CATEGORY: Final = {BIT[name]: i for i, names in enumerate(CATEGORIES.values()) for name in names}


class Shape(NamedTuple):
    """The sentences with the same slots: their weight together, and their frames, texts with a ``%s`` for each slot."""

    weight: float
    slots: tuple[Name, ...]
    frames: Table


class Filling(NamedTuple):
    """A shape for the next units: how many it takes, and for each slot the unit's place among them and its wordings."""

    takes: int
    frames: Table
    slots: tuple[tuple[int, Mapping[int, Table]], ...]


class Plan(NamedTuple):
    """The fillings for the next units, and their cumulated probabilities."""

    bounds: list[float]
    fillings: list[Filling]


Fits = tuple[int, ...]
"""For each of the next units the slots that have a wording for it, one bit each."""


class Sampler:
    """Captions for all label sets that agree on the guards' labels (``known``, bits)."""

    def __init__(self, rules: Rules, known: int) -> None:
        self._rules = rules
        self._book = PhraseBook(rules, known)
        self._openings = self._shapes("OPENING")
        self._sentences = self._shapes("SENTENCE")
        intros = {shape.slots[:1] for shape in self._openings}
        if len(intros) != 1 or () in intros:
            raise GrammarError("every OPENING must begin with the same slot, which names the person")
        self._intro = intros.pop()[0]
        self._intro_scope = rules.scope[self._intro]
        self._slots = sorted({s for f in self._sentences for s in f.slots}, key=lambda s: s.text)
        self._tables: dict[Name, dict[int, Table]] = {slot: {} for slot in self._slots}
        self._groups = _components(rules, self._slots)
        self._in_groups = sum(self._groups)
        self._intro_choices: dict[int, tuple[list[float], list[tuple[int, Table]]]] = {}
        self._partitions: dict[int, tuple[list[float], list[tuple[int, ...]]]] = {}
        self._fits: dict[int, int] = {}
        self._filled: dict[tuple[Fits, bool], list[tuple[float, Filling]]] = {}
        self._opening_plans: dict[Fits, Plan] = {}
        self._sentence_plans: dict[Fits, Plan] = {}
        self._opening_units = max(len(shape.slots) for shape in self._openings) - 1

    def caption(self, labels: int, seed: int) -> str:
        """One caption that asserts exactly ``labels`` (settled, bits)."""
        draw = Random(seed).random
        held = labels & self._intro_scope
        choices = self._intro_choices.get(held) or self._choose_intro(held)
        taken, (bounds, texts) = choices[1][bisect_right(choices[0], draw())]
        intro = texts[bisect_right(bounds, draw())]
        units = self._units(labels ^ taken, draw)
        fits = tuple([self._fits[unit] for unit in units])
        sentences = []
        count, at = len(units), 0
        plans, opening, ahead = self._opening_plans, True, self._opening_units
        while opening or at < count:
            upcoming = fits[at : at + ahead]
            plan = plans.get(upcoming) or self._plan(upcoming, opening)
            takes, (bounds, frames), slots = plan.fillings[bisect_right(plan.bounds, draw())]
            frame = frames[bisect_right(bounds, draw())]
            words = [intro] if opening else []
            for place, tables in slots:
                bounds, texts = tables[units[at + place]]
                words.append(texts[bisect_right(bounds, draw())] if len(texts) > 1 else texts[0])
            sentence = frame % tuple(words)
            begins_with_slot = frame[0] == "%"
            sentences.append(sentence[0].upper() + sentence[1:] if begins_with_slot else sentence)
            at += takes
            plans, opening, ahead = self._sentence_plans, False, MOST_UNITS
        return " ".join(sentences)

    def _units(self, labels: int, draw: Callable[[], float]) -> list[int]:
        """The labels as units, in the order of the caption."""
        units: list[int] = []
        for group in self._groups:
            held = labels & group
            if held:
                cuts = self._partitions.get(held) or self._cut(held)
                units += cuts[1][bisect_right(cuts[0], draw())] if len(cuts[1]) > 1 else cuts[1][0]
        for bit in each_bit(labels & ~self._in_groups):
            if bit not in self._fits:
                self._cut(bit)
            units.append(bit)
        if len(units) < 2:
            return units
        base = (draw(), draw(), draw(), draw(), draw())
        return [u for _, u in sorted([(base[_CATEGORY[u & -u]] + STRAY * draw(), u) for u in units])]

    def _choose_intro(self, held: int) -> tuple[list[float], list[tuple[int, Table]]]:
        """Which of the labels that the introduction can hold it does hold; the rest must fit the other sentences."""
        options: list[tuple[float, int, Table]] = []
        for subset in subsets(held):
            table = self._book.table(self._intro, subset)
            left = held ^ subset
            if table and all(self._fit(bit) for bit in each_bit(left)):
                options.append((SHARE ** subset.bit_count(), subset, table))
        if not options:
            raise GrammarError(f"no {self._intro.text} for {', '.join(names_of(held)) or 'a face without labels'}")
        choice = cumulated([w for w, _, _ in options]), [(s, t) for _, s, t in options]
        self._intro_choices[held] = choice
        return choice

    def _cut(self, held: int) -> tuple[list[float], list[tuple[int, ...]]]:
        """The ways to share the labels of one group among phrases."""
        options = [p for p in _partitions(held) if all(self._fit(unit) for unit in p)]
        if not options:
            raise GrammarError(f"no sentence can say {', '.join(names_of(held))}")
        cut = cumulated([SHARE ** -len(p) for p in options]), options
        self._partitions[held] = cut
        return cut

    def _fit(self, unit: int) -> int:
        """Which slots have a wording for the unit, one bit each; 0 where no frame has that slot alone."""
        if unit not in self._fits:
            fit = 0
            for i, slot in enumerate(self._slots):
                table = self._book.table(slot, unit)
                if table:
                    self._tables[slot][unit] = table
                    fit |= 1 << i
            alone = {shape.slots[0] for shape in self._sentences if len(shape.slots) == 1}
            self._fits[unit] = fit if any(fit >> i & 1 and s in alone for i, s in enumerate(self._slots)) else 0
        return self._fits[unit]

    def _plan(self, upcoming: Fits, opening: bool) -> Plan:
        """The sentences for the next units."""
        fillings = [filling for count in range(len(upcoming) + 1) for filling in self._fill(upcoming[:count], opening)]
        if not fillings:
            raise GrammarError("no sentence takes the next units; every slot needs a frame of its own")
        plan = Plan(cumulated([weight for weight, _ in fillings]), [filling for _, filling in fillings])
        (self._opening_plans if opening else self._sentence_plans)[upcoming] = plan
        return plan

    def _fill(self, fits: Fits, opening: bool) -> list[tuple[float, Filling]]:
        """The sentences that take exactly these units."""
        if (fits, opening) in self._filled:
            return self._filled[fits, opening]
        fillings: list[tuple[float, Filling]] = []
        for shape in self._openings if opening else self._sentences:
            slots = shape.slots[1:] if opening else shape.slots
            if len(slots) == len(fits):
                bits = [1 << self._slots.index(slot) for slot in slots]
                orders = [o for o in _orders(slots) if all(fits[u] & bit for u, bit in zip(o, bits, strict=True))]
                for order in orders:
                    filled = tuple((u, self._tables[s]) for u, s in zip(order, slots, strict=True))
                    fillings.append((shape.weight / len(orders), Filling(len(slots), shape.frames, filled)))
        self._filled[fits, opening] = fillings
        return fillings

    def _shapes(self, symbol: str) -> list[Shape]:
        """The frames of OPENING or SENTENCE, those with the same slots together."""
        by_slots: dict[tuple[Name, ...], dict[str, float]] = {}
        for weight, symbols in self._flat(self._rules.names[symbol], ()):
            frame = spaced(" ".join(s.replace("%", "%%") if isinstance(s, str) else "%s" for s in symbols))
            frame = frame[0].upper() + frame[1:]
            frames = by_slots.setdefault(tuple(s for s in symbols if isinstance(s, Name)), {})
            frames[frame] = frames.get(frame, 0.0) + weight
        return [
            Shape(sum(frames.values()), slots, (tuple(cumulated(list(frames.values()))), tuple(frames)))
            for slots, frames in by_slots.items()
            if sum(frames.values())
        ]

    def _flat(self, name: Name, above: tuple[Name, ...]) -> Iterator[tuple[float, list[str | Name]]]:
        """The plan's productions written out down to words and slots; wordless nonterminals become their words."""
        if name in above:
            raise GrammarError(f"{name.text} leads back to itself; only BODY may")
        for weight, right in self._rules.productions[name]:
            partial: list[tuple[float, list[str | Name]]] = [(weight, [])]
            for symbol in right:
                partial = [
                    (w * p, [*done, *more]) for w, done in partial for p, more in self._symbol(symbol, (*above, name))
                ]
            yield from partial

    def _symbol(self, symbol: str | Name, above: tuple[Name, ...]) -> list[tuple[float, list[str | Name]]]:
        if isinstance(symbol, str):
            return [(1.0, [symbol])]
        if symbol.plans:
            return list(self._flat(symbol, above))
        if self._rules.scope[symbol]:
            return [(1.0, [symbol])]
        table = self._book.table(symbol, 0)
        if table is None:
            return []
        return [(high - low, [text]) for low, high, text in zip((0.0, *table[0]), table[0], table[1], strict=False)]


def _components(rules: Rules, slots: list[Name]) -> list[int]:
    """Sets of attributes (bits) that some phrase of a slot can assert together, merged where they overlap."""
    groups: list[int] = []
    todo, seen = list(slots), set(slots)
    while todo:
        name = todo.pop()
        for _, right in rules.productions[name]:
            inside = [s for s in right if isinstance(s, Name)]
            todo += [s for s in inside if s not in seen]
            seen.update(inside)
            scopes = [rules.scope[s] for s in inside if rules.scope[s]]
            if len(scopes) > 1 or (scopes and name.asserts):
                joined = name.asserts
                for scope in scopes:
                    joined |= scope
                for group in [g for g in groups if g & joined]:
                    groups.remove(group)
                    joined |= group
                groups.append(joined)
    return sorted(groups)


@cache
def _orders(slots: tuple[Name, ...]) -> list[tuple[int, ...]]:
    """Ways to put units into slots; the units' order is random already, so equal slots take them as they come."""
    return [
        order
        for order in permutations(range(len(slots)))
        if all(a < b or s is not t for (a, s), (b, t) in combinations(zip(order, slots, strict=True), 2))
    ]


def _partitions(bits: int) -> list[tuple[int, ...]]:
    """Every way to split a set into parts, the part with the lowest bit first."""
    if not bits:
        return [()]
    lowest = bits & -bits
    return [(lowest | more, *rest) for more in subsets(bits ^ lowest) for rest in _partitions(bits ^ lowest ^ more)]
