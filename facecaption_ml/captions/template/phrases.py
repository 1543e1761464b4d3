"""Every wording that a nonterminal has for exactly one set of attributes: the conditioned half of the grammar.

For a nonterminal X and a set S of attributes, the derivations of X that assert each attribute of S once and nothing else.
At each step the production's probabilities are renormalised over the productions that have such a derivation, and where
two symbols could share the attributes in several ways, the ways are equally likely. The wordings of a phrase are few, so
they are written out once per (X, S) and a draw is then one bisection.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from facecaption_ml.captions.labels import subsets
from facecaption_ml.captions.template.productions import GrammarError, Name, Rules, Symbols

Table = tuple[tuple[float, ...], tuple[str, ...]]
"""Cumulated probabilities (the last is 1) and the texts they belong to."""

MOST_WORDINGS: Final = 50_000  # of one phrase; a grammar beyond that should have another slot
_ARTICLE = re.compile(r"\ba\(n\) (\w+)")
_VOWEL_SOUND = re.compile(r"(?!uni|use|usual|one\b|eu)[aeiou]|hon|hour|8|11\b")


def spaced(words: str) -> str:
    """Words as a text: punctuation closed up, every ``a(n)`` decided by the word after it."""
    text = words.replace(" ,", ",").replace(" .", ".")
    return _ARTICLE.sub(lambda m: ("an " if _VOWEL_SOUND.match(m[1]) else "a ") + m[1], text)


def cumulated(weights: list[float]) -> list[float]:
    """Cumulated shares; the last is exactly 1, so that a draw below 1 always falls inside."""
    sums = list(accumulate(weights))
    return [s / sums[-1] for s in sums[:-1]] + [1.0]


class PhraseBook:
    """The wordings under one state of the guards (which of the labels that guards ask about are known)."""

    def __init__(self, rules: Rules, known: int) -> None:
        self._rules = rules
        self._known = known
        self._weighted: dict[tuple[Name, int], dict[str, float] | None] = {}

    def table(self, name: Name, asserted: int) -> Table | None:
        """The wordings of ``name`` for exactly the attributes ``asserted`` (bits), or None where there is none."""
        wordings = self._wordings(name, asserted)
        if not wordings:
            return None
        texts: dict[str, float] = {}
        for words, weight in wordings.items():
            text = spaced(words)
            texts[text] = texts.get(text, 0.0) + weight
        return tuple(cumulated(list(texts.values()))), tuple(texts)

    def _wordings(self, name: Name, asserted: int) -> dict[str, float] | None:
        """Words (articles open) → probability; None where no derivation asserts exactly that."""
        key = name, asserted
        if key not in self._weighted:
            self._weighted[key] = self._expand(name, asserted)
        return self._weighted[key]

    def _expand(self, name: Name, asserted: int) -> dict[str, float] | None:
        if asserted & ~self._rules.scope[name] or name.asserts & ~asserted or not name.admits(self._known):
            return None
        admissible: list[tuple[float, dict[str, float]]] = []
        for weight, right in self._rules.productions[name]:
            shared = list(self._ways(right, asserted & ~name.asserts))
            if shared:
                merged: dict[str, float] = {}
                for wordings in shared:
                    for words, p in wordings.items():
                        merged[words] = merged.get(words, 0.0) + p / len(shared)
                admissible.append((weight, merged))
        total = sum(weight for weight, _ in admissible)
        result: dict[str, float] = {}
        for weight, wordings in admissible:
            for words, p in wordings.items():
                result[words] = result.get(words, 0.0) + weight / total * p
        if len(result) > MOST_WORDINGS:
            raise GrammarError(f"{name.text} has over {MOST_WORDINGS} wordings for one set of attributes; split it")
        return result or None

    def _ways(self, right: Symbols, asserted: int) -> Iterator[dict[str, float]]:
        """For every way to share the attributes among the symbols: the wordings of the whole right side."""
        if not right:
            if not asserted:
                yield {"": 1.0}
            return
        first, rest = right[0], right[1:]
        if isinstance(first, str):
            for tail in self._ways(rest, asserted):
                yield {f"{first} {words}".rstrip(): p for words, p in tail.items()}
            return
        for part in subsets(asserted & self._rules.scope[first]):
            head = self._wordings(first, part)
            if head:
                for tail in self._ways(rest, asserted & ~part):
                    yield {f"{h} {t}".rstrip(): p * q for h, p in head.items() for t, q in tail.items()}
