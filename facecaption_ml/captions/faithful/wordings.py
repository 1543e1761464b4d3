"""Wordings with alternatives: "hair (falls|hangs) straight" stands for two phrases, some of the lexicon's for thousands.

``(a|b)`` stands for one of the alternatives, ``(|a )`` for one that may be left out, with its space, and ``<his>`` for one of
the words of that class. Written out the lexicon would have millions of phrases; so a wording is matched where its first word
stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Final

_CLASS: Final = re.compile(r"<(\w+)>")
_INNERMOST: Final = re.compile(r"\(([^()]*)\)")


def has_alternatives(phrase: str) -> bool:
    """Whether a phrase stands for several."""
    return "(" in phrase or "<" in phrase


class Wording:
    """A phrase with alternatives. Raises ValueError for a class that is not listed or brackets that do not match."""

    def __init__(self, phrase: str, classes: Mapping[str, str]) -> None:
        self._text = _with_classes(phrase, classes)
        self.first_words = {text.split(" ", 1)[0] for text in _begun(self._text)}
        if self._text.count("(") != self._text.count(")"):
            raise ValueError(f"lexicon.toml: {phrase!r}: a bracket has no counterpart")

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """Made at first need: most texts need few. What may be left out is so only where the words do not stand."""
        regex, closing = "", list[str]()
        for at, char in enumerate(self._text):
            if char == "(":
                closing.append(")?" if self._text[at + 1] == "|" else ")")
                regex += "(?:"
            elif char == ")":
                regex += closing.pop()
            elif not (char == "|" and self._text[at - 1] == "("):
                regex += char if char in "| " else re.escape(char)
        return re.compile(regex + "(?= |$)")

    def length_at(self, text: str, start: int) -> int:
        """How many words of the text, joined by single spaces, the wording takes from a place on; 0 where it does not stand."""
        match = self._pattern.match(text, start)
        return match.group().count(" ") + 1 if match else 0


def _with_classes(phrase: str, classes: Mapping[str, str]) -> str:
    """The phrase with the words of its classes in brackets; hyphens and possessives as ``lexicon.tokens`` writes them."""
    while found := _CLASS.search(phrase):
        if found[1] not in classes:
            raise ValueError(f"lexicon.toml: {phrase!r}: no class {found[1]!r}")
        phrase = f"{phrase[: found.start()]}({classes[found[1]]}){phrase[found.end() :]}"
    return phrase.replace("-", " ").replace("'s", "")


def _begun(text: str) -> Iterator[str]:
    """The wordings of a text, chosen as far as their first word is known."""
    if re.match(r"[^( ]+ ", text) or not (found := _INNERMOST.search(text)):
        yield text
        return
    for each in found[1].split("|"):
        yield from _begun(f"{text[: found.start()]}{each}{text[found.end() :]}")
