"""Guided decoding: a language model chooses the caption's phrases, grammar and faithfulness check hold the pen.

A small model (135M parameters) left alone loses or invents something in nine of ten rewrites, and one that is only kept from
that writes sentences that nobody would. So it walks on a lattice: forms of sentences, and phrases that say the labels at hand
(``rewriting.toml``, syntax.py). A phrase is offered where its form has room for it, where all that it says is new, and where
the sentence can still come to a good end; the text can end only when every label has been said. Which form, which phrases,
in which order and sentence, is left to the model's probabilities. The checker's parser reads each text as it grows, and turns
down what it would find unfaithful.

Decoding under a grammar is grammar-constrained decoding (Geng et al., EMNLP 2023); that all of a set of words must come is
lexically constrained decoding (Hokamp and Liu, ACL 2017; NeuroLogic, Lu et al., NAACL 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from facecaption_ml.captions.guided.state import Ending, State
from facecaption_ml.captions.guided.syntax import Syntax, capital
from facecaption_ml.captions.guided.vocabulary import Phrase, Vocabulary
from facecaption_ml.taxonomy import Gender

VERSION: Final = "2"
"""Of the rules here and in syntax.py: part of the key under which answers are kept."""

Encode = Callable[[str], tuple[int, ...]]
"""Text to token ids, without special tokens."""


@dataclass(frozen=True)
class PunctuationTokens:
    """The token ids of a comma, a full stop and the end of an answer."""

    comma: int
    dot: int
    end: int


@dataclass(frozen=True)
class Offer:
    """A phrase that may follow, and the places of the forms where it then stands."""

    phrase: Phrase
    places: frozenset[int]


@dataclass
class Node:
    """A place in the trie of phrases as tokens: the phrase that ends here; whether one from here on says a label."""

    children: dict[int, Node] = field(default_factory=dict)
    offer: Offer | None = None
    says: bool = False

    def add(self, ids: Sequence[int], offer: Offer) -> None:
        """Spell a phrase."""
        node = self
        for token in ids:
            node.says |= bool(offer.phrase.family)
            node = node.children.setdefault(token, Node())
        node.says |= bool(offer.phrase.family)
        node.offer = offer


class Constraint:
    """One text on its way through the lattice; ``done`` once its end was accepted.

    ``template``: the caption that is rewritten; the labels decide what is written.
    """

    def __init__(
        self,
        template: str,
        labels: Sequence[str],
        gender: Gender | None,
        vocabulary: Vocabulary,
        encode: Encode,
        punctuation: PunctuationTokens,
    ) -> None:
        self._syntax = Syntax(tuple(labels), gender, vocabulary)
        self._encode, self._punctuation = encode, punctuation
        self._state = self._syntax.start
        self._node: Node | None = None  # the phrase being spelt
        self._tries: dict[State, Node] = {}
        self.done = False

    @property
    def text(self) -> str:
        """The text so far, without the phrase being spelt."""
        return self._state.text

    def allowed(self) -> dict[int, Node | None]:
        """Token id → the place in a phrase that it leads to, None for punctuation and the end; empty at a dead end."""
        if self._node is None:
            return self._following(self._state)
        offers: dict[int, Node | None] = dict(self._node.children)
        if (finished := self._finished()) is not None:
            for token, node in self._following(finished).items():
                offers.setdefault(token, node)
        return offers

    def adds_missing_label(self, node: Node | None) -> bool:
        """Does the place lead to a phrase that says a label? What is offered says what the text lacks."""
        return node is not None and node.says

    def accept(self, token: int, node: Node | None) -> bool:
        """Take an allowed token and the place it leads to; False where the text would then say what the labels do not."""
        within = self._node is not None and node is not None and self._node.children.get(token) is node
        state = self._state if within or self._node is None else self._finished()
        if state is None:
            return False
        if node is None:
            ended = token == self._punctuation.end
            punctuated = state if ended else self._syntax.punctuated(state, dot=token == self._punctuation.dot)
            if punctuated is None:
                return False
            self._state, self._node, self.done = punctuated, None, ended
            return True
        before = self._state, self._node
        self._state, self._node = state, node
        if not node.children:
            finished = self._finished()
            if finished is None:
                self._state, self._node = before
                return False
            self._state, self._node = finished, None
        return True

    def _finished(self) -> State | None:
        """The state with the phrase being spelt at the end of the text, or None where it is not all spelt or turned down."""
        offer = self._node.offer if self._node else None
        return None if offer is None else self._syntax.extended(self._state, offer.phrase, offer.places)

    def _following(self, state: State) -> dict[int, Node | None]:
        """What may follow a finished phrase, comma or full stop."""
        if state.after is Ending.DOT and self._syntax.complete(state):
            return {self._punctuation.end: None}
        offers: dict[int, Node | None] = {}
        if self._syntax.may_end(state):
            offers[self._punctuation.dot] = None
        if self._syntax.may_pause(state):
            offers[self._punctuation.comma] = None
        return offers | self._trie(state).children

    def _trie(self, state: State) -> Node:
        if state not in self._tries:
            trie = Node()
            starts = state.after in (Ending.START, Ending.DOT)
            blank = "" if state.after is Ending.START else " "
            for phrase, places in self._syntax.following(state):
                trie.add(self._encode(blank + (capital(phrase.text) if starts else phrase.text)), Offer(phrase, places))
            self._tries[state] = trie
        return self._tries[state]
