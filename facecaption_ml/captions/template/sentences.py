"""Which sentence says some phrases: the constructions whose slots take them, and what each costs where it stands.

Phrases are known here by their fits: the slots that have a wording for them, one bit each. All that is worked out is kept by
fits, which are few.
"""

from __future__ import annotations

from collections import defaultdict
from functools import reduce
from itertools import groupby
from operator import or_
from typing import Final, NamedTuple

from facecaption_ml.captions.template.assignments import Fits, assignments
from facecaption_ml.captions.template.constructions import Before, Construction, Written
from facecaption_ml.captions.template.constructions import OPENING as OPENING_NAME
from facecaption_ml.captions.template.draws import best_of, table
from facecaption_ml.captions.template.productions import GrammarError, Name
from facecaption_ml.captions.template.style import Style

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


class Sentence(NamedTuple):
    """A construction with phrases for its slots: text with a ``%s`` for each, ``runs`` the phrases in the order of their fits.

    ``state``: what the next sentence is measured against; with ``said_where`` (0 or 1: that a sentence has said in which
    picture, this one or one before it) the state in which a table is looked up.
    """

    text: str
    begins_with_slot: bool
    state: int
    said_where: int
    runs: tuple[Run, ...]


class Filled(NamedTuple):
    """A sentence with what it weighs and costs wherever it stands."""

    sentence: Sentence
    starts: Before
    weight: float
    cost: float


Choices = tuple[list[int], list[Sentence]]
"""Sentences as ``draws.table`` has them."""


class Alternatives(dict[int, Choices]):
    """The sentences that say phrases of some fits, by the state before them, made when they are first asked for.

    ``order``: the places of the phrases in the order of their fits.
    """

    def __init__(self, sentences: Sentences, order: list[int], fits: Fits) -> None:
        super().__init__()
        self.order = order
        self._sentences, self._fits = sentences, fits

    def __missing__(self, state: int) -> Choices:
        choices = self[state] = self._sentences.choices(self._fits, state)
        return choices


class ByFits(dict[Fits, Alternatives]):
    """The alternatives for phrases in any order; those of the same phrases in another order share their tables."""

    def __init__(self, sentences: Sentences) -> None:
        super().__init__()
        self._sentences = sentences

    def __missing__(self, fits: Fits) -> Alternatives:
        order = sorted(range(len(fits)), key=fits.__getitem__)
        found = self[fits] = Alternatives(self._sentences, order, tuple([fits[at] for at in order]))
        return found


class _Group(NamedTuple):
    """Constructions with the same slots after the person's: these as bits one by one and together, and as places in ``slots``."""

    bits: tuple[int, ...]
    needed: int
    slots: tuple[int, ...]
    constructions: list[Construction]


class Sentences:
    """The sentences of a grammar for states of its guards that have the same constructions.

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
            filled = [each for each in filled if not each.sentence.said_where]
        if not filled:
            raise GrammarError(f"no sentence takes {len(fits)} phrases; {HAVE} and {WORN} need longer lists")
        alike = fits, self._as_seen(filled, before), said_where
        if alike not in self._tables:
            costs = [self._cost(each, before) for each in filled]
            shares = best_of(self._style.drafts, [each.weight for each in filled], costs)
            self._tables[alike] = table(shares, [each.sentence for each in filled])
        return self._tables[alike]

    def _as_seen(self, filled: list[Filled], before: Before) -> Before:
        """What of the sentence before makes a difference to these: the rest is dropped, so that tables are shared."""
        if before is _NOTHING:
            return before
        word, construction = before
        if all(each.starts.word != word for each in filled):
            word = "any"
        if construction != OPENING_NAME and all(each.starts.construction != construction for each in filled):
            construction = "any"
        return Before(word, construction)

    def _cost(self, filled: Filled, before: Before) -> float:
        """What a filled construction costs after the sentence before."""
        costs, starts, cost = self._style.sentence_costs, filled.starts, filled.cost
        if starts.word == before.word:
            cost += costs.same_word
        if starts.construction == before.construction:
            cost += costs.same_construction
        if before.construction == OPENING_NAME and starts.construction in costs.later:
            cost += costs.early
        return cost

    def _fill(self, fits: Fits, opening: bool) -> list[Filled]:
        """The constructions that take exactly these phrases, whose fits are in order."""
        key = fits, opening
        if key not in self._filled:
            anywhere = reduce(or_, fits, 0)
            groups = (self._openings if opening else self._sentences)[len(fits)]
            self._filled[key] = [
                each
                for group in groups
                if not group.needed & ~anywhere and all([fit & group.needed for fit in fits])
                for each in self._filled_group(fits, group, opening)
            ]
        return self._filled[key]

    def _filled_group(self, fits: Fits, group: _Group, opening: bool) -> list[Filled]:
        """A group's constructions with the phrases in every way that they fit."""
        ways = assignments(fits, group.bits)
        ands = self._style.sentence_costs.ands
        filled: list[Filled] = []
        for places in ways:
            runs, static = self._runs(group.slots, places), self._static(fits, places, group.bits)
            for c in group.constructions:
                said_where = int(c.name in self._style.sentence_costs.placing)
                person: tuple[Run, ...] = ((self._place[c.slots[0]], ()),) if opening else ()
                sentence = Sentence(c.text, c.begins_with_slot, self._state[c.starts], said_where, person + runs)
                cost = static + ands * max(c.ands - 1, 0)
                filled.append(Filled(sentence, c.starts, c.weight / len(ways), cost))
        return filled

    def _runs(self, slots: tuple[int, ...], places: tuple[int, ...]) -> tuple[Run, ...]:
        pairs = groupby(zip(slots, places, strict=True), key=lambda pair: pair[0])
        return tuple([(slot, tuple([place for _, place in run])) for slot, run in pairs])

    def _static(self, fits: Fits, places: tuple[int, ...], bits: tuple[int, ...]) -> float:
        """The cost of what could be done and is said as a thing."""
        doing = self._by_name.get(_EXPRESSING, 0)
        things = sum(self._by_name.get(name, 0) for name in _THINGS)
        count = sum([bool(fits[at] & doing and bit & things) for at, bit in zip(places, bits, strict=True)])
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
            groups[len(slots)].append(_Group(bits, reduce(or_, bits, 0), places, same))
        return groups
