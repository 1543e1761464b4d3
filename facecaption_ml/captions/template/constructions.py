"""Which sentence says some phrases: the constructions whose slots take them, and what each costs where it stands.

Phrases are known here by their fits: the slots that have a wording for them, one bit each. All that is worked out is kept by
fits, which are few.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import reduce
from itertools import groupby
from operator import or_
from typing import Final, NamedTuple

from facecaption_ml.captions.template.assignments import Fits, assignments
from facecaption_ml.captions.template.draws import best_of, table
from facecaption_ml.captions.template.productions import GrammarError, Name
from facecaption_ml.captions.template.style import Style
from facecaption_ml.captions.template.written_out import OPENING, Before, Construction, Written

HAVE: Final = "Have"
WORN: Final = "Worn"
"""Every phrase has a wording in one of these slots, so that any can be said: "he has …", "he is wearing …"."""
_EXPRESSING: Final = "Expressing"
_THINGS: Final = (HAVE, "Plain", "Thing", "Item")

START: Final = 0
"""The state before the opening sentence."""
_NOTHING: Final = Before("nothing", "nothing")

Run = tuple[int, tuple[int, ...]]
"""Neighbouring equal slots, which make a list: the slot, and the places of its phrases; no place for the person's slot."""


Sentence = tuple[str, bool, int, int, tuple[Run, ...]]
"""A construction with phrases for its slots; a plain tuple, as it is unpacked for every sentence.

Text with a ``%s`` for each slot; whether it begins with one; ``state``: what the next sentence is measured against; 1 where it
says in which picture, else 0; the runs of phrases, which are in the order of their fits. A state and the 1 of any sentence so
far are the state in which the next one's table is looked up.
"""


class Filled(NamedTuple):
    """A sentence with what it weighs and costs wherever it stands."""

    sentence: Sentence
    starts: Before
    says_where: bool
    weight: float
    cost: float


Choices = tuple[list[int], list[Sentence]]
"""Sentences as ``draws.table`` has them."""


class Alternatives(dict[int, Choices]):
    """The sentences that say phrases of some fits, by the state before them, made when they are first asked for.

    ``order``: the places of the phrases in the order of their fits.
    """

    def __init__(self, constructions: Constructions, order: list[int], fits: Fits) -> None:
        super().__init__()
        self.order = order
        self._constructions, self._fits = constructions, fits

    def __missing__(self, state: int) -> Choices:
        choices = self[state] = self._constructions.choices(self._fits, state)
        return choices


class ByFits(dict[Fits, Alternatives]):
    """The alternatives for phrases in any order; those of the same phrases in another order share their tables."""

    def __init__(self, constructions: Constructions) -> None:
        super().__init__()
        self._constructions = constructions

    def __missing__(self, fits: Fits) -> Alternatives:
        order = sorted(range(len(fits)), key=fits.__getitem__)
        found = self[fits] = Alternatives(self._constructions, order, tuple([fits[at] for at in order]))
        return found


class _Group(NamedTuple):
    """Constructions with the same slots after those of ``people``: these as bits one by one and together, and as places.

    ``filled``: them with phrases, by what matters of the phrases' fits.
    """

    bits: tuple[int, ...]
    needed: int
    slots: tuple[int, ...]
    people: int
    constructions: list[Construction]
    filled: dict[tuple[tuple[int, int], ...], list[Filled]]


class Constructions:
    """The constructions of a grammar for states of its guards that have the same constructions.

    ``slots``: those of phrases, whose bits are by their place, and after them those of the person (``people`` of them).
    """

    def __init__(self, constructions: Written, style: Style) -> None:
        self._style = style
        openings, sentences = constructions
        people = {construction.slots[0] for construction in openings if construction.slots}
        inner = {slot for construction in openings for slot in construction.slots[1:]}
        if not all(construction.slots for construction in openings) or people & inner:
            raise GrammarError("every OPENING must begin with a slot that names the person")
        ordinary = sorted(inner | {s for c in sentences for s in c.slots}, key=lambda slot: slot.text)
        self.slots = (*ordinary, *sorted(people, key=lambda slot: slot.text))
        self.people = len(people)
        self._place = {slot: place for place, slot in enumerate(self.slots)}
        self._by_name = {slot.text: 1 << place for place, slot in enumerate(ordinary)}
        self.have, self.worn = self._by_name[HAVE], self._by_name[WORN]
        self._doing = self._by_name.get(_EXPRESSING, 0)
        self._things = sum(self._by_name.get(name, 0) for name in _THINGS)
        self._befores = list(dict.fromkeys([_NOTHING, *(c.starts for c in (*openings, *sentences))]))
        self._state = {before: 2 * place for place, before in enumerate(self._befores)}
        self._openings = self._grouped(openings, 1)
        self._sentences = self._grouped(sentences, 0)
        self._filled: dict[tuple[Fits, bool], list[Filled]] = {}
        self._tables: dict[tuple[Fits, Before, int], Choices] = {}
        self._room: dict[tuple[bool, int, int], bool] = {}
        self.by_fits = ByFits(self)

    def has_room(self, opening: bool, had: int, worn: int) -> bool:
        """Whether some sentence takes so many phrases that are had, and worn."""
        key = opening, had, worn
        if key not in self._room:
            fits = tuple(sorted((self.have,) * had + (self.worn,) * worn))
            self._room[key] = bool(self._fill(fits, opening))
        return self._room[key]

    def choices(self, fits: Fits, state: int) -> Choices:
        """The sentences that say phrases of these fits, which are in order, in a state: the best of ``style.drafts`` draws."""
        before, said_where = self._befores[state >> 1], state & 1
        filled = self._fill(fits, state == START)
        if said_where:
            filled = [each for each in filled if not each.says_where]
        if not filled:
            raise GrammarError(f"no sentence takes {len(fits)} phrases; {HAVE} and {WORN} need longer lists")
        alike = fits, self._as_seen(filled, before), said_where
        if alike not in self._tables:
            costs = self._costs(filled, before)
            shares = best_of(self._style.drafts, [each.weight for each in filled], costs)
            self._tables[alike] = table(shares, [each.sentence for each in filled])
        return self._tables[alike]

    def _as_seen(self, filled: list[Filled], before: Before) -> Before:
        """What of the sentence before makes a difference to these: the rest is dropped, so that tables are shared."""
        if before is _NOTHING:
            return before
        word, construction = before
        starts = {each.starts for each in filled}
        if all(start.word != word for start in starts):
            word = "any"
        if construction != OPENING and all(start.construction != construction for start in starts):
            construction = "any"
        return Before(word, construction)

    def _costs(self, filled: list[Filled], before: Before) -> list[float]:
        """What each costs after the sentence before."""
        more, style = [], self._style.sentence_costs
        for _, (word, construction), _, _, cost in filled:
            if word == before.word:
                cost += style.same_word
            if construction == before.construction:
                cost += style.same_construction
            if before.construction == OPENING and construction in style.later:
                cost += style.early
            more.append(cost)
        return more

    def _fill(self, fits: Fits, opening: bool) -> list[Filled]:
        """The constructions that take exactly these phrases, whose fits are in order."""
        key = fits, opening
        if key not in self._filled:
            anywhere, kinds = reduce(or_, fits, 0), tuple(Counter(fits).items())
            filled: list[Filled] = []
            for group in (self._openings if opening else self._sentences)[len(fits)]:
                if not group.needed & ~anywhere and all(fit & group.needed for fit, _ in kinds):
                    matters = group.needed | self._doing
                    filled += self._fill_group(group, tuple([(fit & matters, count) for fit, count in kinds]))
            self._filled[key] = filled
        return self._filled[key]

    def _fill_group(self, group: _Group, kinds: tuple[tuple[int, int], ...]) -> list[Filled]:
        """A group's constructions with the phrases in every way that they fit.

        ``kinds``: of phrases with the same fits those that matter here, and how many they are; many fits are alike to a group.
        """
        if kinds not in group.filled:
            ways = assignments(kinds, group.bits)
            fits = [fit for fit, count in kinds for _ in range(count)]
            group.filled[kinds] = [
                each
                for places in ways
                for each in self._one_way(group, places, self._static(fits, places, group.bits), len(ways))
            ]
        return group.filled[kinds]

    def _one_way(self, group: _Group, places: tuple[int, ...], static: float, ways: int) -> Iterator[Filled]:
        runs, costs = _runs(group.slots, places), self._style.sentence_costs
        for c in group.constructions:
            person: tuple[Run, ...] = ((self._place[c.slots[0]], ()),) if group.people else ()
            says_where = c.name in costs.placing
            sentence = c.text, c.begins_with_slot, self._state[c.starts], int(says_where), person + runs
            yield Filled(sentence, c.starts, says_where, c.weight / ways, static + costs.ands * max(c.ands - 1, 0))

    def _static(self, fits: list[int], places: tuple[int, ...], bits: tuple[int, ...]) -> float:
        """The cost of what could be done and is said as a thing."""
        count = sum([bool(fits[at] & self._doing and bit & self._things) for at, bit in zip(places, bits, strict=True)])
        return self._style.sentence_costs.static * count

    def _grouped(self, constructions: tuple[Construction, ...], people: int) -> dict[int, list[_Group]]:
        """Those with the same slots after the person's together, by the number of these."""
        by_slots: dict[tuple[Name, ...], list[Construction]] = {}
        for construction in constructions:
            by_slots.setdefault(construction.slots[people:], []).append(construction)
        groups: dict[int, list[_Group]] = defaultdict(list)
        for slots, same in by_slots.items():
            places = tuple(self._place[slot] for slot in slots)
            bits = tuple(1 << place for place in places)
            groups[len(slots)].append(_Group(bits, reduce(or_, bits, 0), places, people, same, {}))
        return groups


def _runs(slots: tuple[int, ...], places: tuple[int, ...]) -> tuple[Run, ...]:
    pairs = groupby(zip(slots, places, strict=True), key=lambda pair: pair[0])
    return tuple([(slot, tuple([place for _, place in run])) for slot, run in pairs])
