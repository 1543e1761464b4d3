"""The constructions of the grammar: the alternatives of OPENING and SENTENCE, written out down to words and slots."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from facecaption_ml.captions.template.phrases import PhraseBook, spaced
from facecaption_ml.captions.template.productions import GrammarError, Name, Rules

OPENING: Final = "OPENING"


class Before(NamedTuple):
    """What a sentence is measured against: the first word and the construction of the sentence before it."""

    word: str
    construction: str


class Construction(NamedTuple):
    """A sentence as text with a ``%s`` for each slot."""

    weight: float
    text: str
    slots: tuple[Name, ...]
    ands: int
    starts: Before  # this sentence as the next one sees it
    begins_with_slot: bool
    name: str  # the line of the grammar that it is of


class Written(NamedTuple):
    """All constructions under one state of the guards; equal where its labels make no difference to the words around slots."""

    openings: tuple[Construction, ...]
    sentences: tuple[Construction, ...]


def written(rules: Rules, book: PhraseBook) -> Written:
    """The constructions of a grammar. Raises GrammarError where a line leads back to itself."""
    writer = _Writer(rules, book)
    return Written(tuple(writer.constructions(OPENING)), tuple(writer.constructions("SENTENCE")))


class _Writer:
    def __init__(self, rules: Rules, book: PhraseBook) -> None:
        self._rules, self._book = rules, book

    def constructions(self, symbol: str) -> Iterator[Construction]:
        """The alternatives of OPENING or SENTENCE, written out."""
        for weight, right in self._rules.productions[self._rules.names[symbol]]:
            name = right[0].text if len(right) == 1 and isinstance(right[0], Name) else symbol
            for share, symbols in self._flat(right, ()):
                if weight * share:
                    yield self._construction(symbol, name, weight * share, symbols)

    def _construction(self, symbol: str, name: str, weight: float, symbols: list[str | Name]) -> Construction:
        slots = tuple(s for s in symbols if isinstance(s, Name))
        words = " ".join(s.replace("%", "%%") if isinstance(s, str) else "%s" for s in symbols)
        text = spaced(words)
        slot_first = text.startswith("%s")
        word = slots[0].text.split("_")[0].lower() if slot_first else text.split(maxsplit=1)[0]
        starts = Before(word if word == "the" else "", OPENING) if symbol == OPENING else Before(word, name)
        text = text[0].upper() + text[1:]
        return Construction(weight, text, slots, words.split().count("and"), starts, slot_first, name)

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
