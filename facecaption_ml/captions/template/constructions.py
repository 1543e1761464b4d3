"""Which sentence says some phrases: the constructions of the grammar whose slots take them, and what each costs.

A construction is an alternative of OPENING or SENTENCE, written out down to words and slots. Phrases are known here by their
fits: the slots that have a wording for them, one bit each. All that is worked out is kept by fits, which are few.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Final, NamedTuple

from facecaption_ml.captions.template.draws import best_of, table
from facecaption_ml.captions.template.phrases import PhraseBook, Wordings, spaced
from facecaption_ml.captions.template.productions import GrammarError, Name, Rules
from facecaption_ml.captions.template.style import Style

HAVE: Final = "Have"
WORN: Final = "Worn"
"""Every phrase has a wording in one of these slots, so that any can be said: "he has …", "he is wearing …"."""
TAIL: Final = "Tail"
"""A phrase with a wording here closes its list ("wavy hair with bangs")."""
_OPENING: Final = "OPENING"
_EXPRESSING: Final = "Expressing"
_THINGS: Final = (HAVE, "Plain", "Item")

Fits = tuple[int, ...]
"""For each phrase the slots that have a wording for it, one bit each."""


class Before(NamedTuple):
    """What a sentence is measured against: the first word and the construction of the sentence before it."""

    word: str
    construction: str


NOTHING: Final = Before("", "")
"""Before the opening sentence."""


class Construction(NamedTuple):
    """A sentence as text with a ``%s`` for each slot."""

    weight: float
    text: str
    slots: tuple[Name, ...]
    ands: int
    starts: Before  # this sentence as the next one sees it
    begins_with_slot: bool


class Filled(NamedTuple):
    """A construction with phrases for its slots.

    ``runs``: neighbouring equal slots together, which make a list: their wordings by bits, and the places of their phrases
    among the phrases in the order of their fits; no place for the person.
    """

    construction: Construction
    weight: float
    cost: float  # wherever it stands
    runs: tuple[tuple[dict[int, Wordings], tuple[int, ...]], ...]


class Constructions:
    """The sentences under one state of the guards."""

    def __init__(self, rules: Rules, book: PhraseBook, style: Style) -> None:
        self._rules, self._book, self._style = rules, book, style
        self._openings = _by_slots(self._written(_OPENING))
        self._sentences = _by_slots(self._written("SENTENCE"))
        self.people = {slots[0] for slots in self._openings if slots}
        if () in self._openings or any(slots[0] not in self.people for slots in self._openings):
            raise GrammarError("every OPENING must begin with a slot that names the person")
        inner = {slot for slots in self._openings for slot in slots[1:]}
        self.slots = sorted(inner | {slot for slots in self._sentences for slot in slots}, key=lambda slot: slot.text)
        self._bit = {slot: 1 << i for i, slot in enumerate(self.slots)}
        self._by_name = {slot.text: self._bit[slot] for slot in self.slots}
        self.tail = rules.names.get(TAIL)
        self._wordings: dict[Name, dict[int, Wordings]] = {slot: {} for slot in (*self.slots, *self.people)}
        self._orders: dict[Fits, tuple[list[int], Fits]] = {}
        self._filled: dict[tuple[Fits, bool], list[Filled]] = {}
        self._tables: dict[tuple[Fits, Before], tuple[list[int], list[Filled]]] = {}
        self._room: dict[tuple[bool, int, int], bool] = {}

    def fit(self, phrase: int) -> int:
        """The slots that have a wording for the phrase (bits of attributes); 0 where none of those that always serve has."""
        fit = 0
        for slot in self.slots:
            if wordings := self._book.wordings(slot, phrase):
                self._wordings[slot][phrase] = wordings
                fit |= self._bit[slot]
        return fit if fit & (self._by_name[HAVE] | self._by_name[WORN]) else 0

    def is_worn(self, fit: int) -> bool:
        """Whether the phrase is said as worn rather than as had."""
        return not fit & self._by_name[HAVE]

    def person(self, traits: int) -> bool:
        """Whether every slot that names the person has a wording for exactly these attributes (bits)."""
        for slot in self.people:
            if traits not in self._wordings[slot]:
                wordings = self._book.wordings(slot, traits)
                if not wordings:
                    return False
                self._wordings[slot][traits] = wordings
        return True

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

    def table(self, fits: Fits, before: Before) -> tuple[list[int], list[Filled]]:
        """The sentences that say phrases of these fits, which are in order, after the sentence before.

        As ``draws.table`` has them, the best of ``style.drafts`` draws.
        """
        key = fits, before
        found = self._tables.get(key)
        if found is None:
            filled = self._fill(fits, before is NOTHING)
            if not filled:
                raise GrammarError(f"no sentence takes {len(fits)} phrases; {HAVE} and {WORN} need longer lists")
            costs = [self._cost(each, before) for each in filled]
            shares = best_of(self._style.drafts, [each.weight for each in filled], costs)
            found = self._tables[key] = table(shares, filled)
        return found

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
            for slots, constructions in (self._openings if opening else self._sentences).items():
                inner = slots[1:] if opening else slots
                if len(inner) == len(fits):
                    ways = _assignments(fits, [self._bit[slot] for slot in inner])
                    for places in ways:
                        runs = self._runs(inner, places)
                        person = ((self._wordings[slots[0]], ()),) if opening else ()
                        static = self._static(fits, places, inner)
                        filled += [
                            Filled(c, c.weight / len(ways), static + ands * max(c.ands - 1, 0), person + runs)
                            for c in constructions
                        ]
            self._filled[key] = filled
        return self._filled[key]

    def _runs(
        self, slots: tuple[Name, ...], places: tuple[int, ...]
    ) -> tuple[tuple[dict[int, Wordings], tuple[int, ...]], ...]:
        pairs = groupby(zip(slots, places, strict=True), key=lambda pair: pair[0])
        return tuple((self._wordings[slot], tuple(place for _, place in run)) for slot, run in pairs)

    def _static(self, fits: Fits, places: tuple[int, ...], slots: tuple[Name, ...]) -> float:
        """The cost of what could be done and is said as a thing."""
        doing = self._by_name.get(_EXPRESSING, 0)
        things = sum(
            bool(fits[at] & doing) and slot.text in _THINGS for at, slot in zip(places, slots, strict=True)
        )
        return self._style.sentence_costs.static * things

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
                    starts = Before(word if word == "the" else "", _OPENING) if symbol == _OPENING else Before(word, name)
                    text = text[0].upper() + text[1:]
                    yield Construction(weight * share, text, slots, words.split().count("and"), starts, slot_first)

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


def _by_slots(constructions: Iterator[Construction]) -> dict[tuple[Name, ...], list[Construction]]:
    result: dict[tuple[Name, ...], list[Construction]] = {}
    for construction in constructions:
        result.setdefault(construction.slots, []).append(construction)
    return result


def _assignments(fits: Fits, slots: list[int]) -> list[tuple[int, ...]]:
    """Ways to give each slot a phrase that it fits, as places in ``fits``, which are sorted; phrases of equal fits are equal."""
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
