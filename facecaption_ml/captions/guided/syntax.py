"""The syntax that guided decoding keeps to: which phrase, comma or full stop may follow, and what the text has said so far.

A sentence follows one of the vocabulary's forms, so it has a main verb, its lists end in one "and", and what is worn is worn.
Beyond the forms: nothing is said twice; a family of labels (hair) is said in one place; a sentence has at most two "and" and
one "with"; two sentences in a row begin with different words; none says one label alone, unless nothing is left to join it.
A phrase is offered only where the sentence can still come to its end by these rules, so that few texts get stuck.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from facecaption_ml.captions.faithful.faithfulness import implied_absent
from facecaption_ml.captions.faithful.lexicon import bundled_lexicon
from facecaption_ml.captions.faithful.parser import parse
from facecaption_ml.captions.guided.sentence_forms import COMMA, END, FIRST, LATER
from facecaption_ml.captions.guided.state import Ending, State, Tally
from facecaption_ml.captions.guided.vocabulary import Phrase, Vocabulary
from facecaption_ml.captions.labels import GENDER_BITS, label_bits, said_bits
from facecaption_ml.taxonomy import Gender

_ENOUGH: Final = 2  # labels that make a sentence


class Syntax:
    """What may be written about one set of labels."""

    def __init__(self, labels: list[str] | tuple[str, ...], gender: Gender | None, vocabulary: Vocabulary) -> None:
        self._known = label_bits(labels, gender)
        self._said = said_bits(self._known)
        self._implied = implied_absent(self._known)
        self._vocabulary = vocabulary
        self._forms = vocabulary.forms
        self._phrases = vocabulary.phrases(self._said & ~GENDER_BITS, gender)
        self._budget = tuple(vocabulary.in_sentence.values())
        self._finishes: dict[tuple[int, Tally], bool] = {}
        self._worn_once = next((1 << i for i, group in enumerate(vocabulary.once) if "wears" in group), 0)
        self._strict = True
        start = Tally(self._said & ~GENDER_BITS, self._budget)
        if not any(self._can_finish(place, start, entering=True) for place in self._forms.start[FIRST]):
            self._strict = False  # one label alone, say
            self._finishes.clear()
        self.start = State(start, self._forms.start[FIRST])

    def complete(self, state: State) -> bool:
        """Has the text said every label?"""
        return not state.tally.unsaid

    def following(self, state: State) -> Iterator[tuple[Phrase, frozenset[int]]]:
        """The phrases that may follow, and the places of the forms where they then stand."""
        found: dict[Phrase, set[int]] = {}
        for place in state.places:
            leaf = "" if place == END else self._forms.leaves[place]
            if leaf in ("", COMMA):
                continue
            for phrase in self._phrases[leaf]:
                if state.after is Ending.DOT and phrase.text.split()[0] == state.opening:
                    continue
                if self._passes(place, phrase, state.tally):
                    found.setdefault(phrase, set()).add(place)
        for phrase, places in found.items():
            yield phrase, frozenset(places)

    def may_pause(self, state: State) -> bool:
        """May a comma follow?"""
        return any(self._comma_finishes(place, state.tally) for place in state.places)

    def may_end(self, state: State) -> bool:
        """May a full stop follow?"""
        return END in state.places and self._may_stop(state.tally)

    def extended(self, state: State, phrase: Phrase, places: frozenset[int]) -> State | None:
        """The state with a phrase more, or None where the text would then say what it must not."""
        starts = state.after in (Ending.START, Ending.DOT)
        text = capital(phrase.text) if starts else phrase.text
        text = text if state.after is Ending.START else f"{state.text} {text}"
        mentions = parse(text, bundled_lexicon())
        if mentions.asserted & ~self._said or mentions.denied & self._known:
            return None
        tally = self._taken(phrase, state.tally)
        after = frozenset().union(*(self._forms.after[place] for place in places))
        opening = phrase.text.split()[0] if starts else state.opening
        before = state.opening if starts else state.before
        return State(tally, after, text, Ending.WORD, opening, before)

    def punctuated(self, state: State, *, dot: bool) -> State | None:
        """The state with a full stop or a comma at the end of the text, or None where it would not be faithful."""
        text = state.text + ("." if dot else COMMA)
        mentions = parse(text, bundled_lexicon())
        wrong = (mentions.asserted | mentions.hinted) & ~self._said
        denied = mentions.denied & ~self._implied | mentions.ruled_out & self._known
        forgotten = dot and self._said & ~state.tally.unsaid & ~mentions.asserted & ~GENDER_BITS
        if wrong or denied or forgotten:
            return None
        if dot:
            tally = replace(state.tally, budget=self._budget, said=0)
            return replace(state, text=text, after=Ending.DOT, tally=tally, places=self._forms.start[LATER])
        places = [p for p in state.places if p != END and self._forms.leaves[p] == COMMA]
        after = frozenset().union(*(self._forms.after[place] for place in places))
        return replace(state, text=text, after=Ending.COMMA, places=after)

    def _taken(self, phrase: Phrase, tally: Tally) -> Tally:
        new = tally.unsaid & phrase.bits
        budget = tuple(left - cost for left, cost in zip(tally.budget, phrase.costs, strict=True))
        said = min(_ENOUGH, tally.said + (_ENOUGH if new & self._vocabulary.alone else new.bit_count()))
        return Tally(tally.unsaid & ~phrase.bits, budget, tally.spent | phrase.once, said)

    def _fits(self, phrase: Phrase, tally: Tally) -> bool:
        """Everything that it says is new, of its family nothing is left out, and its words are not used up."""
        bits = phrase.bits & ~GENDER_BITS
        return (
            not bits & ~tally.unsaid
            and not phrase.family & tally.unsaid & ~bits
            and not phrase.once & tally.spent
            and all(cost <= left for cost, left in zip(phrase.costs, tally.budget, strict=True))
        )

    def _passes(self, place: int, phrase: Phrase, tally: Tally) -> bool:
        """May the phrase stand at the place, and the sentence come to an end behind it?"""
        if not self._fits(phrase, tally):
            return False
        taken = self._taken(phrase, tally)
        return any(self._can_finish(after, taken) for after in self._forms.after[place])

    def _comma_finishes(self, place: int, tally: Tally) -> bool:
        if place == END or self._forms.leaves[place] != COMMA:
            return False
        return any(self._can_finish(after, tally) for after in self._forms.after[place] if after != END)

    def _can_finish(self, place: int, tally: Tally, entering: bool = False) -> bool:
        """Can a sentence that goes on at the place come to its end, and the text to its own?"""
        key = place, tally
        if key not in self._finishes:
            if place == END:
                found = self._may_stop(tally)
            elif self._forms.leaves[place] == COMMA:
                found = self._comma_finishes(place, tally)
            else:
                found = any(self._passes(place, phrase, tally) for phrase in self._differing(self._forms.leaves[place]))
            self._finishes[key] = found
        return self._finishes[key]

    def _differing(self, leaf: str) -> list[Phrase]:
        """One phrase of each kind that differs in more than its words."""
        return list({(p.bits, p.family, p.costs, p.once): p for p in self._phrases[leaf]}.values())

    def _may_stop(self, tally: Tally) -> bool:
        left = tally.unsaid & ~self._vocabulary.alone
        if left & self._vocabulary.worn and tally.spent & self._worn_once:
            return False  # nobody can say any more what else is worn
        if not self._strict:
            return True
        return not tally.unsaid or (tally.said >= _ENOUGH and left.bit_count() != 1)


def capital(text: str) -> str:
    """With a capital at the beginning."""
    return text[:1].upper() + text[1:]
