"""Every wording that a nonterminal has for exactly one set of attributes: the conditioned half of the grammar.

For a nonterminal X and a set S of attributes, the derivations of X that assert each attribute of S once and nothing else.
At each step the production's probabilities are renormalised over the productions that have such a derivation, and where
two symbols could share the attributes in several ways, the ways are equally likely.

A derivation is kept as a pattern, "%s %s hair", whose leaves (what asserts one attribute or none) have their wordings in
tables of their own: a phrase of five attributes has few patterns but thousands of texts. A draw is one bisection for the
pattern and one for each leaf.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Final

from facecaption_ml.captions.labels import subsets
from facecaption_ml.captions.template.draws import table
from facecaption_ml.captions.template.productions import GrammarError, Name, Rules, Symbols

Texts = tuple[list[int], list[str]]
"""Bounds and texts, as ``draws.table`` makes them."""


Pattern = tuple[str, tuple[Texts, ...]]
"""A text with a ``%s`` for each leaf, and the leaves. A plain tuple, as it is unpacked for every phrase."""

MOST_PATTERNS: Final = 20_000  # of one phrase; a grammar beyond that should have another slot
_ARTICLE_OPEN: Final = "a(n)"
_ARTICLE = re.compile(r"\ba\(n\) (\w+)")
_VOWEL_SOUND = re.compile(r"(?!uni|use|usual|one\b|eu)[aeiou]|hon|hour|8|11\b")


def spaced(words: str) -> str:
    """Words as a text: punctuation closed up, every ``a(n)`` decided by the word after it."""
    text = words.replace(" ,", ",").replace(" .", ".")
    return _ARTICLE.sub(lambda m: ("an " if _VOWEL_SOUND.match(m[1]) else "a ") + m[1], text)


class Patterns(dict[int, Pattern]):
    """Patterns by their place in a table, compiled when they are first drawn: a phrase has dozens, and few are ever said."""

    def __init__(self, book: PhraseBook, parts: list[Symbols]) -> None:
        super().__init__()
        self._book, self._parts = book, parts

    def __missing__(self, place: int) -> Pattern:
        pattern = self[place] = self._book.compiled(self._parts[place])
        return pattern


Wordings = tuple[list[int], Patterns]
"""Bounds and patterns."""


def said(wordings: Wordings, draw: Callable[[], int]) -> str:
    """A wording, drawn."""
    bounds, patterns = wordings
    text, leaves = patterns[bisect_right(bounds, draw()) if len(bounds) > 1 else 0]
    if not leaves:
        return text
    if len(leaves) == 1:
        edges, texts = leaves[0]
        return text % texts[bisect_right(edges, draw())]
    return text % tuple([texts[bisect_right(edges, draw())] for edges, texts in leaves])


class SlotWordings(dict[int, Wordings]):
    """A slot's wordings by attributes (bits), made when they are first asked for."""

    def __init__(self, book: PhraseBook, slot: Name) -> None:
        super().__init__()
        self._book, self._slot = book, slot

    def __missing__(self, asserted: int) -> Wordings:
        wordings = self._book.wordings(self._slot, asserted)
        assert wordings is not None  # asked only for what can_say
        self[asserted] = wordings
        return wordings


class Kept:
    """What the books of one grammar work out together, by the guards' labels that matter to a nonterminal."""

    def __init__(self) -> None:
        self.says: dict[tuple[Name, int, int], bool] = {}
        self.patterns: dict[tuple[Name, int, int], dict[Symbols, float] | None] = {}
        self.words: dict[tuple[Name, int], dict[str, float]] = {}
        self.leaves: dict[tuple[str, Name, int], Texts] = {}
        self.slots: dict[tuple[Name, int], SlotWordings] = {}


class PhraseBook:
    """The wordings under one state of the guards (which of the labels that guards ask about are known).

    ``kept``: given to all books of a grammar, so that what depends on no guard is worked out once.
    """

    def __init__(self, rules: Rules, known: int, kept: Kept | None = None) -> None:
        self._rules = rules
        self._known = known
        self._kept = kept or Kept()

    def slot(self, name: Name) -> SlotWordings:
        """The wordings of a slot."""
        key = name, self._matters(name)
        if key not in self._kept.slots:
            self._kept.slots[key] = SlotWordings(self, name)
        return self._kept.slots[key]

    def _matters(self, name: Name) -> int:
        """The known labels (bits) on which the wordings of ``name`` depend."""
        return self._known & self._rules.asked[name]

    def wordings(self, name: Name, asserted: int) -> Wordings | None:
        """The wordings of ``name`` for exactly the attributes ``asserted`` (bits), or None where there is none."""
        patterns = self._patterns(name, asserted)
        if not patterns:
            return None
        bounds, parts = table(list(patterns.values()), list(patterns))
        return bounds, Patterns(self, parts)

    def can_say(self, name: Name, asserted: int) -> bool:
        """Whether there is a wording of ``name`` for exactly these attributes; far less work than the wordings."""
        if asserted & ~self._rules.scope[name]:
            return False
        key = name, asserted, self._matters(name)
        if key not in self._kept.says:
            self._kept.says[key] = self._derives(name, asserted)
        return self._kept.says[key]

    def _derives(self, name: Name, asserted: int) -> bool:
        if not self._may_say(name, asserted):
            return False
        if self._is_leaf(name):
            return asserted == name.asserts and bool(self._words(name))
        return any(weight and self._all_say(right, asserted) for weight, right in self._rules.productions[name])

    def _all_say(self, right: Symbols, asserted: int) -> bool:
        """Whether the symbols of a right side can share the attributes."""
        names = [symbol for symbol in right if isinstance(symbol, Name)]
        if not names:
            return not asserted
        first, *rest = names
        return any(
            self.can_say(first, part) and self._all_say(tuple(rest), asserted & ~part)
            for part in subsets(asserted & self._rules.scope[first])
        )

    def _may_say(self, name: Name, asserted: int) -> bool:
        """Whether the nonterminal's own name and guards leave room for these attributes."""
        return not name.asserts & ~asserted and name.admits(self._known)

    def texts(self, name: Name) -> dict[str, float]:
        """The texts of a leaf with their probabilities; none where a guard forbids it."""
        return {spaced(words): p for words, p in self._words(name).items()}

    def _is_leaf(self, name: Name) -> bool:
        return bool(name.asserts) or not self._rules.scope[name]

    def _words(self, name: Name) -> dict[str, float]:
        """Words of a leaf (articles open) → probability."""
        key = name, self._matters(name)
        if key not in self._kept.words:
            self._kept.words[key] = self._written(name) if name.admits(self._known) else {}
        return self._kept.words[key]

    def _written(self, name: Name) -> dict[str, float]:
        admissible: list[tuple[float, dict[str, float]]] = []
        for weight, right in self._rules.productions[name]:
            partial = {"": 1.0}
            for symbol in right:
                more = {symbol: 1.0} if isinstance(symbol, str) else self._words(symbol)
                partial = {f"{head} {tail}".strip(): p * q for head, p in partial.items() for tail, q in more.items()}
            if partial and weight:
                admissible.append((weight, partial))
        total = sum(weight for weight, _ in admissible)
        result: dict[str, float] = {}
        for weight, words in admissible:
            for text, p in words.items():
                result[text] = result.get(text, 0.0) + weight / total * p
        return result

    def _patterns(self, name: Name, asserted: int) -> dict[Symbols, float] | None:
        """Words and leaves in a row → probability; None where no derivation asserts exactly that."""
        key = name, asserted, self._matters(name)
        if key not in self._kept.patterns:
            self._kept.patterns[key] = self._expand(name, asserted)
        return self._kept.patterns[key]

    def _expand(self, name: Name, asserted: int) -> dict[Symbols, float] | None:
        if not self.can_say(name, asserted):
            return None
        if self._is_leaf(name):
            return {(name,): 1.0}
        admissible: list[tuple[float, dict[Symbols, float]]] = []
        for weight, right in self._rules.productions[name]:
            ways = list(self._ways(right, asserted)) if weight else []
            if ways:
                merged: dict[Symbols, float] = {}
                for patterns in ways:
                    for parts, p in patterns.items():
                        merged[parts] = merged.get(parts, 0.0) + p / len(ways)
                admissible.append((weight, merged))
        total = sum(weight for weight, _ in admissible)
        result: dict[Symbols, float] = {}
        for weight, patterns in admissible:
            for parts, p in patterns.items():
                result[parts] = result.get(parts, 0.0) + weight / total * p
        if len(result) > MOST_PATTERNS:
            raise GrammarError(f"{name.text} has over {MOST_PATTERNS} patterns for one set of attributes; split it")
        return result or None

    def _ways(self, right: Symbols, asserted: int) -> Iterator[dict[Symbols, float]]:
        """For every way to share the attributes among the symbols: the patterns of the whole right side."""
        if not right:
            if not asserted:
                yield {(): 1.0}
            return
        first, rest = right[0], right[1:]
        if isinstance(first, str):
            for tail in self._ways(rest, asserted):
                yield {(first, *parts): p for parts, p in tail.items()}
            return
        for part in subsets(asserted & self._rules.scope[first]):
            head = self._patterns(first, part)
            if head:
                for tail in self._ways(rest, asserted & ~part):
                    yield {(*h, *t): p * q for h, p in head.items() for t, q in tail.items()}

    def compiled(self, parts: Symbols) -> Pattern:
        """Words and leaves as a pattern: a leaf with one text is written out, and one takes the open article before it."""
        words: list[str] = []
        leaves: list[Texts] = []
        for part in parts:
            if isinstance(part, str):
                words.append(part.replace("%", "%%"))
                continue
            article = f"{words.pop()} " if words and words[-1] == _ARTICLE_OPEN else ""
            leaf = self._leaf(article, part)
            if len(leaf[1]) > 1:
                words.append("%s")
                leaves.append(leaf)
            else:
                words.append(leaf[1][0].replace("%", "%%"))
        text = spaced(" ".join(words))
        return text if leaves else text.replace("%%", "%"), tuple(leaves)

    def _leaf(self, article: str, name: Name) -> Texts:
        key = article, name, self._matters(name)
        if key not in self._kept.leaves:
            words = self._words(name)
            texts = [spaced(article + text) for text in words]
            self._kept.leaves[key] = table(list(words.values()), texts)
        return self._kept.leaves[key]
