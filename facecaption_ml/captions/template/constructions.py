"""Which sentence says some phrases: the constructions of the grammar whose slots take them, and what each costs.

A construction is an alternative of OPENING or SENTENCE, written out down to words and slots. Phrases are known here by their
fits: the slots that have a wording for them, one bit each. All that is worked out is kept by fits, which are few.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import lru_cache, reduce
from itertools import groupby
from operator import or_
from typing import Final, NamedTuple

from facecaption_ml.captions.template.draws import best_of, table
from facecaption_ml.captions.template.phrases import PhraseBook, SlotWordings, spaced
from facecaption_ml.captions.template.productions import GrammarError, Name, Rules
from facecaption_ml.captions.template.style import Style

HAVE: Final = "Have"
WORN: Final = "Worn"
"""Every phrase has a wording in one of these slots, so that any can be said: "he has …", "he is wearing …"."""
TAIL: Final = "Tail"
"""A phrase with a wording here closes its list ("wavy hair with bangs")."""
_OPENING: Final = "OPENING"
_EXPRESSING: Final = "Expressing"
_THINGS: Final = (HAVE, "Plain", "Thing", "Item")

Fits = tuple[int, ...]
"""For each phrase the slots that have a wording for it, one bit each."""


class Before(NamedTuple):
    """What a sentence is measured against: the first word and the construction of the sentence before it."""

    word: str
    construction: str


NOTHING: Final = Before("nothing", "nothing")
"""Before the opening sentence."""


class Construction(NamedTuple):
    """A sentence as text with a ``%s`` for each slot."""

    weight: float
    text: str
    slots: tuple[Name, ...]
    ands: int
    starts: Before  # this sentence as the next one sees it
    begins_with_slot: bool
    places: bool  # says in which picture


class Filled(NamedTuple):
    """A construction with phrases for its slots.

    ``runs``: neighbouring equal slots together, which make a list: their wordings by bits, and the places of their phrases
    among the phrases in the order of their fits; no place for the person.
    """

    construction: Construction
    weight: float
    cost: float  # wherever it stands
    runs: tuple[tuple[SlotWordings, tuple[int, ...]], ...]


Group = tuple[tuple[int, ...], int, tuple[Name, ...], list[Construction]]
"""Constructions with the same slots: these as bits one by one and together, and as names."""


class Constructions:
    """The sentences under one state of the guards."""

    def __init__(self, rules: Rules, book: PhraseBook, style: Style) -> None:
        self._rules, self._book, self._style = rules, book, style
        openings, sentences = list(self._written(_OPENING)), list(self._written("SENTENCE"))
        self.people = {construction.slots[0] for construction in openings if construction.slots}
        if not all(construction.slots for construction in openings) or self.people & {
            slot for construction in openings for slot in construction.slots[1:]
        }:
            raise GrammarError("every OPENING must begin with a slot that names the person")
        inner = {slot for construction in openings for slot in construction.slots[1:]}
        self.slots = sorted(
            inner | {slot for construction in sentences for slot in construction.slots}, key=lambda slot: slot.text
        )
        self._bit = {slot: 1 << i for i, slot in enumerate(self.slots)}
        self._openings = self._grouped(openings, 1)
        self._sentences = self._grouped(sentences, 0)
        self._by_name = {slot.text: self._bit[slot] for slot in self.slots}
        self.tail = rules.names.get(TAIL)
        self._wordings = {slot: SlotWordings(book, slot) for slot in (*self.slots, *self.people)}
        self._orders: dict[Fits, tuple[list[int], Fits]] = {}
        self._filled: dict[tuple[Fits, bool], list[Filled]] = {}
        self._tables: dict[tuple[Fits, Before, bool], tuple[list[int], list[Filled]]] = {}
        self._room: dict[tuple[bool, int, int], bool] = {}

    def fit(self, phrase: int) -> int:
        """The slots that have a wording for the phrase (bits of attributes); 0 where none of those that always serve has."""
        fit = sum(self._bit[slot] for slot in self.slots if self._book.can_say(slot, phrase))
        return fit if fit & (self._by_name[HAVE] | self._by_name[WORN]) else 0

    def is_worn(self, fit: int) -> bool:
        """Whether the phrase is said as worn rather than as had."""
        return not fit & self._by_name[HAVE]

    def person(self, traits: int) -> bool:
        """Whether every slot that names the person has a wording for exactly these attributes (bits)."""
        return all(self._book.can_say(slot, traits) for slot in self.people)

    def has_room(self, opening: bool, had: int, worn: int) -> bool:
        """Whether some sentence takes so many phrases that are had, and worn."""
        key = opening, had, worn
        if key not in self._room:
            fits = tuple(sorted((self._by_name[HAVE],) * had + (self._by_name[WORN],) * worn))
            self._room[key] = bool(self._fill(fits, opening))
        return self._room[key]

    def order(self, fits: Fits) -> tuple[list[int], Fits]:
        """The places of phrases in the order of their fits, and the fits in that order."""
        found = self._orders.get(fits)
        if found is None:
            order = sorted(range(len(fits)), key=fits.__getitem__)
            found = self._orders[fits] = order, tuple([fits[at] for at in order])
        return found

    def table(self, fits: Fits, before: Before, placed: bool) -> tuple[list[int], list[Filled]]:
        """The sentences that say phrases of these fits, which are in order, after the sentence before.

        ``placed``: in which picture has been said, and is not said again. As ``draws.table`` has them, the best of
        ``style.drafts`` draws.
        """
        key = fits, before, placed
        found = self._tables.get(key)
        if found is None:
            filled = self._fill(fits, before is NOTHING)
            if placed:
                filled = [each for each in filled if not each.construction.places]
            if not filled:
                raise GrammarError(f"no sentence takes {len(fits)} phrases; {HAVE} and {WORN} need longer lists")
            alike = fits, self._as_seen(filled, before), placed
            found = self._tables.get(alike)
            if found is None:
                costs = [self._cost(each, before) for each in filled]
                shares = best_of(self._style.drafts, [each.weight for each in filled], costs)
                found = self._tables[alike] = table(shares, filled)
            self._tables[key] = found
        return found

    def _as_seen(self, filled: list[Filled], before: Before) -> Before:
        """What of the sentence before makes a difference to these: the rest is dropped, so that tables are shared."""
        if before is NOTHING:
            return before
        word, construction = before
        starts = [each.construction.starts for each in filled]
        if all(start.word != word for start in starts):
            word = "any"
        if construction != _OPENING and all(start.construction != construction for start in starts):
            construction = "any"
        return Before(word, construction)

    def _cost(self, filled: Filled, before: Before) -> float:
        """What a filled construction costs after the sentence before."""
        costs, starts, cost = self._style.sentence_costs, filled.construction.starts, filled.cost
        if starts.word == before.word:
            cost += costs.same_word
        if starts.construction == before.construction:
            cost += costs.same_construction
        if before.construction == _OPENING and starts.construction in costs.later:
            cost += costs.early
        return cost

    def _fill(self, fits: Fits, opening: bool) -> list[Filled]:
        """The constructions that take exactly these phrases, whose fits are in order."""
        key = fits, opening
        if key not in self._filled:
            filled: list[Filled] = []
            ands = self._style.sentence_costs.ands
            anywhere = reduce(or_, fits, 0)
            for bits, needed, inner, constructions in (self._openings if opening else self._sentences)[len(fits)]:
                if needed & ~anywhere or not all(fit & needed for fit in fits):
                    continue
                ways = _assignments(fits, bits)
                for places in ways:
                    runs = self._runs(inner, places)
                    static = self._static(fits, places, inner)
                    filled += [
                        Filled(
                            c, c.weight / len(ways), static + ands * max(c.ands - 1, 0), self._person(c, opening) + runs
                        )
                        for c in constructions
                    ]
            self._filled[key] = filled
        return self._filled[key]

    def _person(self, construction: Construction, opening: bool) -> tuple[tuple[SlotWordings, tuple[int, ...]], ...]:
        return ((self._wordings[construction.slots[0]], ()),) if opening else ()

    def _runs(
        self, slots: tuple[Name, ...], places: tuple[int, ...]
    ) -> tuple[tuple[SlotWordings, tuple[int, ...]], ...]:
        pairs = groupby(zip(slots, places, strict=True), key=lambda pair: pair[0])
        return tuple((self._wordings[slot], tuple(place for _, place in run)) for slot, run in pairs)

    def _static(self, fits: Fits, places: tuple[int, ...], slots: tuple[Name, ...]) -> float:
        """The cost of what could be done and is said as a thing."""
        doing = self._by_name.get(_EXPRESSING, 0)
        things = sum(bool(fits[at] & doing) and slot.text in _THINGS for at, slot in zip(places, slots, strict=True))
        return self._style.sentence_costs.static * things

    def _grouped(self, constructions: list[Construction], people: int) -> dict[int, list[Group]]:
        """Those with the same slots after the person's together, by the number of these."""
        by_slots: dict[tuple[Name, ...], list[Construction]] = {}
        for construction in constructions:
            by_slots.setdefault(construction.slots[people:], []).append(construction)
        groups: dict[int, list[Group]] = defaultdict(list)
        for slots, same in by_slots.items():
            bits = tuple(self._bit[slot] for slot in slots)
            groups[len(slots)].append((bits, reduce(or_, bits, 0), slots, same))
        return groups

    def _written(self, symbol: str) -> Iterator[Construction]:
        """The alternatives of OPENING or SENTENCE, written out."""
        for weight, right in self._rules.productions[self._rules.names[symbol]]:
            name = right[0].text if len(right) == 1 and isinstance(right[0], Name) else symbol
            for share, symbols in self._flat(right, ()):
                if weight * share:
                    slots = tuple(s for s in symbols if isinstance(s, Name))
                    words = " ".join(s.replace("%", "%%") if isinstance(s, str) else "%s" for s in symbols)
                    text = spaced(words)
                    slot_first = text.startswith("%s")
                    word = slots[0].text.split("_")[0].lower() if slot_first else text.split(maxsplit=1)[0]
                    placed = name in self._style.sentence_costs.placing
                    starts = (
                        Before(word if word == "the" else "", _OPENING) if symbol == _OPENING else Before(word, name)
                    )
                    text = text[0].upper() + text[1:]
                    yield Construction(
                        weight * share, text, slots, words.split().count("and"), starts, slot_first, placed
                    )

    def _flat(self, right: tuple[str | Name, ...], above: tuple[Name, ...]) -> list[tuple[float, list[str | Name]]]:
        """A right side down to words and slots; nonterminals that assert nothing become their words."""
        partial: list[tuple[float, list[str | Name]]] = [(1.0, [])]
        for symbol in right:
            partial = [(w * p, [*done, *more]) for w, done in partial for p, more in self._symbol(symbol, above)]
        return partial

    def _symbol(self, symbol: str | Name, above: tuple[Name, ...]) -> list[tuple[float, list[str | Name]]]:
        if isinstance(symbol, str):
            return [(1.0, [symbol])]
        if symbol.plans:
            if symbol in above:
                raise GrammarError(f"{symbol.text} leads back to itself; only BODY may")
            return [
                (weight * share, symbols)
                for weight, right in self._rules.productions[symbol]
                for share, symbols in self._flat(right, (*above, symbol))
            ]
        if self._rules.scope[symbol]:
            return [(1.0, [symbol])]
        return [(p, [text]) for text, p in self._book.texts(symbol).items()]


@lru_cache(maxsize=1 << 16)
def _assignments(fits: Fits, slots: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Ways to give each slot a phrase that it fits, as places in the sorted ``fits``; phrases of equal fits are equal."""
    room = Counter(slots)
    if any(sum(bool(fit & slot) for fit in fits) < count for slot, count in room.items()):
        return []
    found = []
    for shares in _shares(list(Counter(fits).items()), room):
        first = 0
        queues: dict[int, list[int]] = {slot: [] for slot in room}
        for share in shares:
            for slot, number in share.items():
                queues[slot] += range(first, first + number)
                first += number
        found.append(tuple(queues[slot].pop(0) for slot in slots))
    return found


def _shares(kinds: list[tuple[int, int]], room: Counter[int]) -> Iterator[list[dict[int, int]]]:
    """Ways to share phrases, so many of each fit, among slots, so many of each: for each fit the slots' numbers."""
    if not kinds:
        yield []
        return
    (fit, count), *rest = kinds
    for share in _split(count, [slot for slot in room if fit & slot and room[slot]], room):
        left = room - Counter(share)
        for others in _shares(rest, left):
            yield [share, *others]


def _split(count: int, slots: list[int], room: Counter[int]) -> Iterator[dict[int, int]]:
    """Ways to put ``count`` equal phrases into slots."""
    if not slots:
        if not count:
            yield {}
        return
    slot, *rest = slots
    for number in range(min(count, room[slot]), -1, -1):
        for others in _split(count - number, rest, room):
            yield {slot: number, **others}
