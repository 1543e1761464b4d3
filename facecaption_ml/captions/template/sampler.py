"""Draws captions from the grammar, conditioned on a set of labels.

1. The opening sentence's person takes the gender and some of the other traits that can stand there (``Constructions.person``).
2. The other labels stand in families; each is cut into phrases, and families share sentences (``planner.py``).
3. Each sentence in turn gets a construction, the best of k by what it costs after the one before (``constructions.py``).
4. Each phrase is worded (``phrases.py``).

Everything is drawn from tables that are kept by the few labels that matter to them, so a caption costs some thirty bisections,
and nothing depends on how many label sets were seen before.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from facecaption_ml.captions.labels import each_bit, names_of, said_bits, subsets
from facecaption_ml.captions.template.constructions import NOTHING, Constructions
from facecaption_ml.captions.template.draws import draws, table
from facecaption_ml.captions.template.phrases import PhraseBook, said
from facecaption_ml.captions.template.planner import Cut, Cutter, Planner, Shape
from facecaption_ml.captions.template.productions import GrammarError, Rules
from facecaption_ml.captions.template.style import Style


class Sampler:
    """Captions for all label sets that agree on the guards' labels (``known``, bits)."""

    def __init__(self, rules: Rules, style: Style, planner: Planner, known: int) -> None:
        book = PhraseBook(rules, known)
        self._style = style
        self._constructions = Constructions(rules, book, style)
        tail = self._constructions.tail
        self._cutter = Cutter(
            style,
            self._constructions.fit,
            self._constructions.is_worn,
            lambda phrase: bool(tail and book.wordings(tail, phrase)),
        )
        self._planner = planner
        self._person_scope = 0
        for slot in self._constructions.people:
            self._person_scope |= rules.scope[slot]
        # with what must stand beside one of them: a smile is not said of the person where the mouth is open
        self._decides = self._person_scope | sum(group for group in style.together if group & self._person_scope)
        self._traits: dict[int, tuple[list[int], list[int]]] = {}
        self._cuts: dict[int, tuple[list[int], list[Cut]]] = {}

    def caption(self, labels: int, seed: int) -> str:
        """One caption that asserts exactly what is said of ``labels`` (settled, bits)."""
        draw = draws(seed).__next__
        labels = said_bits(labels)
        held = labels & self._decides
        bounds, choices = self._traits.get(held) or self._choose_traits(held)
        person = choices[bisect_right(bounds, draw())]
        cuts, shape = self._families(labels ^ person, draw)
        before, placed = NOTHING, False
        sentences = []
        last = labels & self._style.last
        ordered, tables = self._constructions.order, self._constructions.table
        bounds, plans = self._planner.plans(shape, self._constructions.has_room)
        for families in plans[bisect_right(bounds, draw())]:
            if len(families) == 1:
                phrases, fits = cuts[families[0]][:2]
            else:
                phrases = sum([cuts[i].phrases for i in families], ())
                fits = sum([cuts[i].fits for i in families], ())
                if last:
                    at = next((i for i, phrase in enumerate(phrases) if phrase & last), None)
                    if at is not None:
                        phrases = (*phrases[:at], *phrases[at + 1 :], phrases[at])
                        fits = (*fits[:at], *fits[at + 1 :], fits[at])
            order, fits = ordered(fits)
            bounds, filled = tables(fits, before, placed)
            (_, text, _, _, before, capital, places_photo), _, _, runs = filled[bisect_right(bounds, draw())]
            placed = placed or places_photo
            words = []
            for wordings, places in runs:
                if len(places) == 1:
                    words.append(said(wordings[phrases[order[places[0]]]], draw))
                elif places:
                    words += [said(wordings[phrases[at]], draw) for at in sorted([order[p] for p in places])]
                else:
                    words.append(said(wordings[person], draw))
            sentence = text % tuple(words)
            sentences.append(sentence[0].upper() + sentence[1:] if capital else sentence)
        return " ".join(sentences)

    def _families(self, labels: int, draw: Callable[[], int]) -> tuple[list[Cut], Shape]:
        """The families that have labels, cut into phrases."""
        cuts: list[Cut] = []
        places: list[int] = []
        for place, family in enumerate(self._style.families):
            held = labels & family
            if held:
                bounds, choices = self._cuts.get(held) or self._cut(held)
                cuts.append(choices[bisect_right(bounds, draw())] if len(choices) > 1 else choices[0])
                places.append(place)
        return cuts, Shape(tuple(places), tuple([cut.had for cut in cuts]), tuple([cut.worn for cut in cuts]))

    def _cut(self, held: int) -> tuple[list[int], list[Cut]]:
        self._cuts[held] = self._cutter.cuts(held)
        return self._cuts[held]

    def _choose_traits(self, held: int) -> tuple[list[int], list[int]]:
        """Which of the labels that can stand at the person do; the others must be in a family that can say them."""
        families = 0
        for family in self._style.families:
            families |= family
        options = []
        for traits in subsets(held & self._person_scope):
            left = held ^ traits
            if (
                not left & ~families
                and self._cutter.whole(traits, held)
                and all(self._cutter.fit(bit) for bit in each_bit(left))
                and self._constructions.person(traits)
            ):
                options.append(traits)
        if not options:
            raise GrammarError(f"no OPENING for {', '.join(names_of(held)) or 'a face without labels'}")
        choice = table([self._style.of_the_person ** traits.bit_count() for traits in options], options)
        self._traits[held] = choice
        return choice
