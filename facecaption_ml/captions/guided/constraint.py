"""Guided decoding: a language model writes the caption, the parser of the faithfulness check reads every word.

A small model (135M parameters) left alone loses or invents something in nine of ten rewrites, so it gets a lattice to walk
on. The words are those of the template caption, of the labels' wordings and a list of neutral ones (``rewriting.toml``).
At each word the text so far is read as the checker reads it, and a word that would assert what is no label, or deny what
the labels do not imply, is not taken. A wording whose labels have all been asserted is not offered again, so nothing is
said twice, and the text can end only when every label has been asserted. Everything else - order, sentences, syntax, which
wording - is left to the model's probabilities. The idea is that of lexically constrained decoding (Hokamp and Liu, ACL
2017; NeuroLogic, Lu et al., NAACL 2021), with a parser in place of word lists as the constraint.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from facecaption_ml.captions.guided.state import Ending, State
from facecaption_ml.captions.guided.syntax import Syntax
from facecaption_ml.captions.guided.vocabulary import Vocabulary
from facecaption_ml.taxonomy import Gender

VERSION: Final = "1"
"""Of the rules here, in state.py and in syntax.py: part of the key under which answers are kept."""
_LOOK_AHEAD: Final = 2  # words

Encode = Callable[[str], tuple[int, ...]]
"""Text to token ids, without special tokens."""


@dataclass(frozen=True)
class PunctuationTokens:
    """The token ids of a comma, a full stop and the end of an answer."""

    comma: int
    dot: int
    end: int


@dataclass
class Node:
    """A place in the trie of words as tokens: the word that ends here, and the ``words`` that end here or further on."""

    children: dict[int, Node] = field(default_factory=dict)
    word: str | None = None
    words: list[str] = field(default_factory=list)

    def add(self, ids: Sequence[int], word: str) -> None:
        """Spell a word."""
        node = self
        for token in ids:
            node.words.append(word)
            node = node.children.setdefault(token, Node())
        node.words.append(word)
        node.word = word


class Constraint:
    """One text on its way through the lattice; ``done`` once its end was accepted."""

    def __init__(
        self,
        template: str,
        labels: Sequence[str],
        gender: Gender | None,
        vocabulary: Vocabulary,
        encode: Encode,
        punctuation: PunctuationTokens,
    ) -> None:
        self._syntax = Syntax(template, labels, gender, vocabulary)
        self._punctuation = punctuation
        self._tries = {Ending.START: Node(), Ending.DOT: Node(), Ending.WORD: Node()}
        for word in self._syntax.words:
            capital = word[:1].upper() + word[1:]
            self._tries[Ending.START].add(encode(capital), word)
            self._tries[Ending.DOT].add(encode(f" {capital}"), word)
            self._tries[Ending.WORD].add(encode(f" {word}"), word)
        self._state = State()
        self._node: Node | None = None  # the word being spelt
        self.done = False

    @property
    def text(self) -> str:
        """The text so far, without the word being spelt."""
        return self._state.text

    def allowed(self) -> dict[int, Node | None]:
        """Token id → the place in a word that it leads to, None for punctuation and the end; empty at a dead end."""
        if self._node is None:
            return self._following(self._state)
        children = self._node.children.items()
        offers: dict[int, Node | None] = {t: node for t, node in children if self._leads_on(node, self._state)}
        if (finished := self._finished()) is not None:
            for token, node in self._following(finished).items():
                offers.setdefault(token, node)
        return offers

    def adds_missing_label(self, node: Node | None) -> bool:
        """Does the place lead to a word that helps to assert a label that the text lacks?"""
        return node is not None and any(self._syntax.adds_missing_label(self._state, word) for word in node.words)

    def accept(self, token: int, node: Node | None) -> bool:
        """Take an allowed token and the place it leads to; False where the text would then say what the labels do not,
        or would reach a dead end."""
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
        # Judged before it is all spelt, so that another word can be drawn in its place.
        if not any(self._leads_somewhere(state, word) for word in node.words):
            return False
        self._state, self._node = state, node
        if not node.children and (finished := self._finished()) is not None:
            self._state, self._node = finished, None
        return True

    def _finished(self) -> State | None:
        """The state with the word being spelt at the end of the text, or None where that word is out of place there."""
        word = self._node.word if self._node else None
        return None if word is None else self._syntax.extended(self._state, word)

    def _following(self, state: State) -> dict[int, Node | None]:
        """What may follow a finished word, comma or full stop."""
        complete = self._syntax.complete(state)
        if state.after == Ending.DOT and complete:
            return {self._punctuation.end: None}
        offers: dict[int, Node | None] = {}
        if self._syntax.may_end(state):
            offers[self._punctuation.dot] = None
            if complete:
                return offers
        if self._syntax.may_pause(state):
            offers[self._punctuation.comma] = None
        if state.words < self._syntax.most_words:
            trie = self._tries[Ending.WORD if state.after == Ending.COMMA else state.after]
            offers.update((token, node) for token, node in trie.children.items() if self._leads_on(node, state))
        return offers

    def _leads_on(self, node: Node, state: State) -> bool:
        """Does the place lead to a word that fits after the state?"""
        return any(self._syntax.fits(state, word) for word in node.words)

    def _leads_somewhere(self, state: State, word: str, further: int = _LOOK_AHEAD) -> bool:
        """Can words or punctuation follow this word, and what follows it?"""
        ahead = self._syntax.extended(state, word)
        if ahead is None:
            return False
        following = self._following(ahead)
        if not further or not all(following.values()):  # punctuation can follow
            return bool(following)
        nodes = (node for node in following.values() if node is not None)
        return any(self._leads_somewhere(ahead, after, further - 1) for node in nodes for after in node.words)
