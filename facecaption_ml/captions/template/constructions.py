"""Which sentence says some phrases: the constructions of the grammar whose slots take them, and what each costs.

A construction is an alternative of OPENING or SENTENCE, written out down to words and slots. Phrases are known here by their
fits: the slots that have a wording for them, one bit each. All that is worked out is kept by fits, which are few.
"""

from __future__ import annotations

from collections.abc import Iterator
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
_EXPRESSING: Final = "Expressing"
_THINGS: Final = (HAVE, "Plain", "Item")

Fits = tuple[int, ...]
"""For each phrase the slots that have a wording for it, one bit each."""


class Before(NamedTuple):
    """What a sentence is measured against: the sentence before it."""

    word: str = ""
    repeated: bool = False  # the one before that began with the same word
    construction: str = ""
    opening: bool = False


class Construction(NamedTuple):
    """A sentence as text with a ``%s`` for each slot."""

    name: str
    weight: float
    text: str
    slots: tuple[Name, ...]
    word: str  # the first
    ands: int


class Sentence(NamedTuple):
    """A construction with its slots filled: for each slot the phrase's place, -1 for the person, and its wordings by bits."""

    text: str
    slots: tuple[tuple[int, dict[int, Wordings]], ...]
    before: Before  # for the next sentence
    begins_with_slot: bool


class Constructions:
    """The sentences under one state of the guards."""

    def __init__(self, rules: Rules, book: PhraseBook, style: Style) -> None:
        self._rules, self._book, self._style = rules, book, style
        self._openings = _by_slots(self._written("OPENING"))
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
        self._filled: dict[tuple[Fits, bool], list[tuple[Construction, tuple[int, ...]]]] = {}
        self._tables: dict[tuple[Fits, Before], tuple[list[int], list[Sentence]]] = {}
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
            fits = (self._by_name[HAVE],) * had + (self._by_name[WORN],) * worn
            self._room[key] = bool(self._fill(fits, opening))
        return self._room[key]

    def table(self, fits: Fits, before: Before) -> tuple[list[int], list[Sentence]]:
        """The sentences that say phrases of these fits after the sentence before, the best of ``style.drafts`` draws."""
        key = fits, before
        found = self._tables.get(key)
        if found is None:
            found = self._tables[key] = self._best(fits, before)
        return found

    def _best(self, fits: Fits, before: Before) -> tuple[list[int], list[Sentence]]:
        filled = self._fill(fits, before.opening)
        if not filled:
            raise GrammarError(f"no sentence takes {len(fits)} phrases; {HAVE} and {WORN} need lists of that length")
        costs = [self._cost(construction, places, fits, before) for construction, places in filled]
        shares = best_of(self._style.drafts, [construction.weight for construction, _ in filled], costs)
        sentences = [self._sentence(construction, places, before) for construction, places in filled]
        return table(shares, sentences)

    def _sentence(self, construction: Construction, places: tuple[int, ...], before: Before) -> Sentence:
        slots = tuple((place, self._wordings[slot]) for place, slot in zip(places, construction.slots, strict=True))
        after = Before(construction.word, construction.word == before.word, construction.name)
        return Sentence(construction.text, slots, after, construction.text.startswith("%s"))

    def _cost(self, construction: Construction, places: tuple[int, ...], fits: Fits, before: Before) -> float:
        costs = self._style.sentence_costs
        cost = costs.ands * max(construction.ands - 1, 0)
        if construction.word == before.word:
            cost += costs.same_word_again if before.repeated else costs.same_word
        if construction.name == before.construction:
            cost += costs.same_construction
        if construction.name in costs.later and before.construction in self._opening_names:
            cost += costs.early
        expressing = self._by_name.get(_EXPRESSING, 0)
        for place, slot in zip(places, construction.slots, strict=True):
            if place >= 0 and fits[place] & expressing and slot.text in _THINGS:
                cost += costs.static
        return cost

    def _fill(self, fits: Fits, opening: bool) -> list[tuple[Construction, tuple[int, ...]]]:
        """The constructions that take exactly these phrases, with each slot's phrase."""
        key = fits, opening
        if key not in self._filled:
            filled: list[tuple[Construction, tuple[int, ...]]] = []
            for slots, constructions in (self._openings if opening else self._sentences).items():
                inner = slots[1:] if opening else slots
                if len(inner) == len(fits):
                    ways = list(_assignments(fits, [self._bit[slot] for slot in inner]))
                    for construction in constructions if ways else ():
                        share = construction._replace(weight=construction.weight / len(ways))
                        filled += [(share, (-1, *way) if opening else way) for way in ways]
            self._filled[key] = filled
        return self._filled[key]

    def _written(self, symbol: str) -> Iterator[Construction]:
        """The alternatives of OPENING or SENTENCE, written out."""
        names: list[str] = []
        for weight, right in self._rules.productions[self._rules.names[symbol]]:
            name = right[0].text if len(right) == 1 and isinstance(right[0], Name) else symbol
            names.append(name)
            for share, symbols in self._flat(right, ()):
                if weight * share:
                    slots = tuple(s for s in symbols if isinstance(s, Name))
                    words = " ".join(s.replace("%", "%%") if isinstance(s, str) else "%s" for s in symbols)
                    text = spaced(words)
                    first = text.split(maxsplit=1)[0]
                    word = slots[0].text if first.startswith("%") else first
                    yield Construction(
                        name, weight * share, text[0].upper() + text[1:], slots, word, words.split().count("and")
                    )
        if symbol == "OPENING":
            self._opening_names = frozenset(names)

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


def _assignments(fits: Fits, slots: list[int]) -> Iterator[tuple[int, ...]]:
    """Ways to give each slot a phrase that it fits; equal slots take the phrases in their order."""
    if not slots:
        yield ()
        return
    left: list[tuple[tuple[int, ...], frozenset[int]]] = [((), frozenset())]
    last_of: dict[int, int] = {}
    for at, slot in enumerate(slots):
        before = last_of.get(slot)
        left = [
            ((*chosen, phrase), taken | {phrase})
            for chosen, taken in left
            for phrase, fit in enumerate(fits)
            if fit & slot and phrase not in taken and (before is None or chosen[before] < phrase)
        ]
        if not left:
            return
        last_of[slot] = at
    yield from (chosen for chosen, _ in left)
