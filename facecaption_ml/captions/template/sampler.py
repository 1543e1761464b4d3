"""Draws captions from the grammar, conditioned on a set of labels.

1. The opening sentence's person takes the gender and some of the other traits that can stand there (``Fitting.person``).
2. The other labels stand in families; each is cut into phrases, and families share sentences (``planner.py``).
3. Each sentence in turn gets a construction, the best of k by what it costs after the one before (``constructions.py``).
4. Each phrase is worded (``phrases.py``).

Everything is drawn from tables that are kept by the few labels that matter to them, so a caption costs some thirty bisections,
and nothing depends on how many label sets were seen before.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from facecaption_ml.captions.labels import each_bit, names_of, said_bits, subsets
from facecaption_ml.captions.template.assignments import Fits
from facecaption_ml.captions.template.constructions import START, Constructions
from facecaption_ml.captions.template.draws import draws, table
from facecaption_ml.captions.template.fitting import Fitting
from facecaption_ml.captions.template.phrases import said
from facecaption_ml.captions.template.planner import Cut, Cuts, Cutter, Planner, Shape
from facecaption_ml.captions.template.productions import GrammarError
from facecaption_ml.captions.template.style import Style


class Sampler:
    """Captions for all label sets that agree on the guards' labels."""

    def __init__(self, style: Style, planner: Planner, constructions: Constructions, fitting: Fitting) -> None:
        self._style, self._planner, self._fitting = style, planner, fitting
        self._alternatives, self._has_room = constructions.by_fits, constructions.has_room
        self._wordings = fitting.wordings
        self._cutter = Cutter(style, fitting)
        self._cuts = Cuts(self._cutter)
        # with what must stand beside one of them: a smile is not said of the person where the mouth is open
        of_the_person = fitting.of_the_person
        self._decides = of_the_person | sum(group for group in style.together if group & of_the_person)
        self._traits: dict[int, tuple[list[int], list[int]]] = {}

    def caption(self, labels: int, seed: int) -> str:
        """One caption that asserts exactly what is said of ``labels`` (settled, bits)."""
        draw = draws(seed).__next__
        labels = said_bits(labels)
        held = labels & self._decides
        bounds, choices = self._traits.get(held) or self._choose_traits(held)
        person = choices[bisect_right(bounds, draw())]
        cuts, shape = self._families(labels ^ person, draw)
        bounds, plans = self._planner.plans(shape, self._has_room)
        last = labels & self._style.last
        state = START
        texts: list[str] = []
        for families in plans[bisect_right(bounds, draw())]:
            if len(families) == 1:
                cut = cuts[families[0]]
                phrases, fits = cut.phrases, cut.fits
            else:
                phrases, fits = _together(cuts, families, last)
            alternatives = self._alternatives[fits]
            bounds, sentences = alternatives[state]
            text, capital, after, said_where, runs = sentences[bisect_right(bounds, draw())]
            state = after | said_where | state & 1
            words = self._worded(runs, phrases, alternatives.order, person, draw)
            sentence = text % tuple(words)
            texts.append(sentence[0].upper() + sentence[1:] if capital else sentence)
        return " ".join(texts)

    def _worded(
        self,
        runs: Sequence[tuple[int, tuple[int, ...]]],
        phrases: tuple[int, ...],
        order: list[int],
        person: int,
        draw: Callable[[], int],
    ) -> list[str]:
        """A wording for each slot; the phrases of a list in the order that they had before they were sorted by fits."""
        words: list[str] = []
        for slot, places in runs:
            wordings = self._wordings[slot]
            if len(places) > 1:
                words += [said(wordings[phrases[at]], draw) for at in sorted([order[place] for place in places])]
            else:
                words.append(said(wordings[phrases[order[places[0]]] if places else person], draw))
        return words

    def _families(self, labels: int, draw: Callable[[], int]) -> tuple[list[Cut], Shape]:
        """The families that have labels, cut into phrases."""
        cuts: list[Cut] = []
        shape: Shape = 0
        for family in self._style.families:
            held = labels & family
            if held:
                bounds, choices = self._cuts[held]
                cut = choices[bisect_right(bounds, draw())] if len(choices) > 1 else choices[0]
                cuts.append(cut)
                shape += cut.shape
        return cuts, shape

    def _choose_traits(self, held: int) -> tuple[list[int], list[int]]:
        """Which of the labels that can stand at the person do; the others must be in a family that can say them."""
        families = 0
        for family in self._style.families:
            families |= family
        options = []
        for traits in subsets(held & self._fitting.of_the_person):
            left = held ^ traits
            if (
                not left & ~families
                and self._cutter.whole(traits, held)
                and all(self._fitting.fit(bit) for bit in each_bit(left))
                and self._fitting.person(traits)
            ):
                options.append(traits)
        if not options:
            raise GrammarError(f"no OPENING for {', '.join(names_of(held)) or 'a face without labels'}")
        choice = table([self._style.of_the_person ** traits.bit_count() for traits in options], options)
        self._traits[held] = choice
        return choice


def _together(cuts: list[Cut], families: tuple[int, ...], last: int) -> tuple[tuple[int, ...], Fits]:
    """The phrases of several families and what they fit; one that says a label of ``last`` goes to the end."""
    phrases: tuple[int, ...] = ()
    fits: Fits = ()
    for family in families:
        phrases += cuts[family].phrases
        fits += cuts[family].fits
    if last:
        for at, phrase in enumerate(phrases):
            if phrase & last:
                phrases = (*phrases[:at], *phrases[at + 1 :], phrase)
                fits = (*fits[:at], *fits[at + 1 :], fits[at])
                break
    return phrases, fits
