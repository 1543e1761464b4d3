"""Which slots of the sentences have a wording for a phrase, under one state of the guards."""

from __future__ import annotations

from typing import Final

from facecaption_ml.captions.template.constructions import Constructions
from facecaption_ml.captions.template.phrases import PhraseBook, SlotWordings
from facecaption_ml.captions.template.productions import Rules

TAIL: Final = "Tail"
"""A phrase with a wording here closes its list ("wavy hair with bangs")."""


class Fitting:
    """Phrases (bits of attributes) against the slots of ``constructions``. ``wordings``: those of each slot, by its place."""

    def __init__(self, rules: Rules, book: PhraseBook, constructions: Constructions) -> None:
        self._book, self._constructions = book, constructions
        self._tail = rules.names.get(TAIL)
        ordinary = len(constructions.slots) - constructions.people
        self._slots, self._people = constructions.slots[:ordinary], constructions.slots[ordinary:]
        self.of_the_person = 0
        for slot in self._people:
            self.of_the_person |= rules.scope[slot]
        self.wordings: list[SlotWordings] = [book.slot(slot) for slot in constructions.slots]
        self._fits: dict[int, int] = {}
        self._closing: dict[int, bool] = {}

    def fit(self, phrase: int) -> int:
        """The slots that have a wording for the phrase, one bit each; 0 where it cannot be said."""
        if phrase not in self._fits:
            fit = sum([1 << place for place, slot in enumerate(self._slots) if self._book.can_say(slot, phrase)])
            always = self._constructions.have | self._constructions.worn
            self._fits[phrase] = fit if fit & always else 0
        return self._fits[phrase]

    def is_worn(self, fit: int) -> bool:
        """Whether the phrase is said as worn rather than as had."""
        return not fit & self._constructions.have

    def closes(self, phrase: int) -> bool:
        """Whether the phrase closes its list."""
        if phrase not in self._closing:
            self._closing[phrase] = self._tail is not None and self._book.can_say(self._tail, phrase)
        return self._closing[phrase]

    def person(self, traits: int) -> bool:
        """Whether every slot that names the person has a wording for exactly these attributes (bits)."""
        return all(self._book.can_say(slot, traits) for slot in self._people)
