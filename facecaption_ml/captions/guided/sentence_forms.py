"""Forms of sentences, written as regular expressions over words and slots, as an automaton.

The automaton is Glushkov's (The abstract theory of automata, 1961): a state for each word, slot or comma in the expressions,
and for each state those that may follow. Several forms that begin alike are then followed side by side.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

FIRST: Final = "first"
LATER: Final = "later"
COMMA: Final = ","
END: Final = -1
"""The place where a sentence is at its end."""

_TOKEN: Final = re.compile(r"[|()\[\]*,]|<\w+\+?>|[A-Z][A-Z_]*|[a-z]+")


@dataclass(frozen=True)
class _Piece:
    """A part of an expression: may it be empty, which leaves begin it, which end it."""

    empty: bool = True
    first: frozenset[int] = frozenset()
    last: frozenset[int] = frozenset()


class Forms:
    """The forms of a text's first sentence and of later ones.

    ``written``: expressions by name, ``first`` and ``later`` among them. ``plural``: what verbs become in ``<name+>``.
    ``leaves[place]`` is the word, slot or comma that stands at a place; ``after[place]`` where it may go on, END among it.
    Raises ValueError naming the form that cannot be read.
    """

    def __init__(self, written: Mapping[str, str], plural: Mapping[str, str]) -> None:
        self.leaves: list[str] = []
        self.after: list[set[int]] = []
        self._written, self._plural = written, plural
        self.start = {name: self._whole(name) for name in (FIRST, LATER)}

    def _whole(self, name: str) -> frozenset[int]:
        if name not in self._written:
            raise ValueError(f"vocabulary.forms: no form {name!r}")
        piece = self._form(name, plural=False, within=())
        if piece.empty:
            raise ValueError(f"vocabulary.forms.{name}: may be empty")
        for leaf in piece.last:
            self.after[leaf].add(END)
        return piece.first

    def _form(self, name: str, plural: bool, within: tuple[str, ...]) -> _Piece:
        if name not in self._written or name in within:
            raise ValueError(f"vocabulary.forms.{within[-1] if within else name}: no form {name!r}, or inside itself")
        text = self._written[name]
        tokens = _TOKEN.findall(text)
        if "".join(tokens) != "".join(text.split()):
            raise ValueError(f"vocabulary.forms.{name}: {text!r} cannot be read")
        tokens.reverse()
        piece = self._choice(tokens, plural, (*within, name))
        if tokens:
            raise ValueError(f"vocabulary.forms.{name}: {tokens[-1]!r} closes nothing")
        return piece

    def _choice(self, tokens: list[str], plural: bool, within: tuple[str, ...]) -> _Piece:
        pieces = [self._sequence(tokens, plural, within)]
        while tokens and tokens[-1] == "|":
            tokens.pop()
            pieces.append(self._sequence(tokens, plural, within))
        return _Piece(
            any(piece.empty for piece in pieces),
            frozenset().union(*(piece.first for piece in pieces)),
            frozenset().union(*(piece.last for piece in pieces)),
        )

    def _sequence(self, tokens: list[str], plural: bool, within: tuple[str, ...]) -> _Piece:
        whole = _Piece()
        while tokens and tokens[-1] not in "|)]":
            piece = self._item(tokens.pop(), tokens, plural, within)
            self._join(whole.last, piece.first)
            whole = _Piece(
                whole.empty and piece.empty,
                whole.first | piece.first if whole.empty else whole.first,
                whole.last | piece.last if piece.empty else piece.last,
            )
        return whole

    def _item(self, token: str, tokens: list[str], plural: bool, within: tuple[str, ...]) -> _Piece:
        if token in "([":
            piece = self._choice(tokens, plural, within)
            if not tokens or tokens.pop() != {"(": ")", "[": "]"}[token]:
                raise ValueError(f"vocabulary.forms.{within[-1]}: {token!r} is not closed")
            if token == "[":
                return _Piece(True, piece.first, piece.last)
            if tokens and tokens[-1] == "*":
                tokens.pop()
                self._join(piece.last, piece.first)
                return _Piece(True, piece.first, piece.last)
            return piece
        if token.startswith("<"):
            name = token.strip("<>")
            return self._form(name.rstrip("+"), plural or name.endswith("+"), within)
        self.leaves.append(self._plural.get(token, token) if plural else token)
        self.after.append(set())
        leaf = frozenset({len(self.leaves) - 1})
        return _Piece(False, leaf, leaf)

    def _join(self, before: Iterable[int], after: Iterable[int]) -> None:
        for leaf in before:
            self.after[leaf].update(after)
