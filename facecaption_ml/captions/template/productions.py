"""Reads a caption grammar: ``nltk.PCFG.fromstring`` loads and validates the text, the names say what a production asserts.

The naming rules stand at the head of ``face.pcfg``. Errors are one line that names the file, the line and the production.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Final

from facecaption_ml.captions.labels import BIT, FEMALE_BIT, MALE_BIT
from facecaption_ml.errors import FaceCaptionError

Symbols = tuple["str | Name", ...]

START: Final = "CAPTION"
PLAN: Final = ("CAPTION", "BODY", "OPENING", "SENTENCE")
_GUARD = re.compile(r"<([^<>]*)>")


class GrammarError(FaceCaptionError):
    """The grammar text cannot be used; the message names the file, the line and the production."""


@dataclass(frozen=True, eq=False)  # one object for each name of a grammar
class Name:
    """A nonterminal: its text, the attribute it asserts (a bit, or 0) and what its guards need and forbid (bits)."""

    text: str
    asserts: int = 0
    needs: int = 0
    forbids: int = 0

    @property
    def plans(self) -> bool:
        """Whether it belongs to the plan of a sentence (capitals) rather than to its wording."""
        return self.text.isupper()

    def admits(self, known: int) -> bool:
        """Whether its guards hold for the known labels (bits)."""
        return not (self.needs & ~known) and not (self.forbids & known)


@dataclass(frozen=True)
class Rules:
    """The productions by left side; for each nonterminal what it can assert, and what its guards and theirs ask (bits)."""

    productions: Mapping[Name, tuple[tuple[float, Symbols], ...]]
    scope: Mapping[Name, int]
    asked: Mapping[Name, int]
    names: Mapping[str, Name]

    @property
    def guarded(self) -> int:
        """Bits of every label that some guard asks about."""
        return reduce(or_, self.asked.values())


def read_rules(text: str, source: str) -> Rules:
    """Parse and check a grammar text; ``source`` is the file name used in messages. Raises GrammarError."""
    import nltk

    try:
        grammar = nltk.PCFG.fromstring(text)
    except ValueError as error:
        raise GrammarError(_explain(str(error), text, source)) from None
    names: dict[str, Name] = {}
    productions: dict[Name, list[tuple[float, Symbols]]] = {}

    def name_of(symbol: object) -> Name:
        word = str(symbol)
        if word not in names:
            names[word] = _parse_name(word, text, source)
        return names[word]

    for production in grammar.productions():
        right = tuple(s if isinstance(s, str) else name_of(s) for s in production.rhs())
        if not right:
            raise GrammarError(_at(text, source, str(production.lhs()), "an alternative is empty"))
        productions.setdefault(name_of(production.lhs()), []).append((production.prob(), right))
    _check(productions, names, text, source)
    below = {name: _below(name, productions) for name in productions}
    scope = {name: reduce(or_, (each.asserts for each in reached)) for name, reached in below.items()}
    asked = {name: reduce(or_, (each.needs | each.forbids for each in reached)) for name, reached in below.items()}
    return Rules({name: tuple(p) for name, p in productions.items()}, scope, asked, names)


def _parse_name(word: str, text: str, source: str) -> Name:
    base = word.split("<", 1)[0]
    stem, slash, _ = base.partition("/")
    if slash and stem not in BIT:
        raise GrammarError(_at(text, source, word, f"{stem!r} is no attribute; names are CelebA's, or Female"))
    needs = forbids = 0
    for guard in _GUARD.findall(word):
        if guard == "Unknown":
            forbids |= MALE_BIT | FEMALE_BIT
        elif guard.startswith("no-") and guard[3:] in BIT:
            forbids |= BIT[guard[3:]]
        elif guard in BIT:
            needs |= BIT[guard]
        else:
            raise GrammarError(_at(text, source, word, f"unknown guard <{guard}>"))
    # A guarded name is a case of the unguarded one, which has asserted the attribute already: Attr/np -> Attr/np<Male>.
    return Name(word, 0 if needs or forbids else BIT.get(stem, 0) if slash else 0, needs, forbids)


def _check(
    productions: Mapping[Name, list[tuple[float, Symbols]]], names: Mapping[str, Name], text: str, source: str
) -> None:
    for word in PLAN:
        if word not in names or names[word] not in productions:
            raise GrammarError(f"{source}: no production for {word}")
    for left, alternatives in productions.items():
        total = sum(p for p, _ in alternatives)
        if abs(total - 1) > 1e-6:
            raise GrammarError(_at(text, source, left.text, f"probabilities sum to {total:.4g}, should be 1"))
        for _, right in alternatives:
            for symbol in right:
                if isinstance(symbol, Name) and symbol not in productions:
                    raise GrammarError(_at(text, source, left.text, f"nothing defines {symbol.text}"))
            if right[-1] == "a(n)":
                raise GrammarError(_at(text, source, left.text, "'a(n)' must not be the last word"))


def _below(name: Name, productions: Mapping[Name, list[tuple[float, Symbols]]]) -> set[Name]:
    """The nonterminals that a derivation of one can have, itself among them."""
    found, waiting = {name}, [name]
    while waiting:
        for _, right in productions[waiting.pop()]:
            more = {symbol for symbol in right if isinstance(symbol, Name)} - found
            found |= more
            waiting += more
    return found


def _at(text: str, source: str, word: str, problem: str) -> str:
    """``file:line: problem in "production"`` for the first line that has the word, left sides before right sides."""
    lines = text.splitlines()
    left = [i for i, line in enumerate(lines) if line.split("->")[0].strip() == word and "->" in line]
    used = [i for i, line in enumerate(lines) if word in line.split() and not line.lstrip().startswith("#")]
    for i in (*left, *used):
        return f"{source}:{i + 1}: {problem}, in: {' '.join(lines[i].split())[:100]}"
    return f"{source}: {problem}, in: {word}"


def _explain(message: str, text: str, source: str) -> str:
    """nltk's message as one line with the file and the line."""
    parsed = re.match(r"Unable to parse line (\d+): (.*)\n(.*)", message, re.DOTALL)
    if parsed:
        reason = " ".join(parsed[3].split())
        return f"{source}:{parsed[1]}: {reason}, in: {' '.join(parsed[2].split())[:100]}"
    unsummed = re.match(r"Productions for (\S+) do not sum", message)
    if unsummed:
        return _at(text, source, unsummed[1], "probabilities do not sum to 1")
    return f"{source}: {' '.join(message.split())}"
