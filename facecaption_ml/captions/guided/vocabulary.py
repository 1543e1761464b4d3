"""The vocabulary of guided decoding, a table of the prompt's file (``rewrite/rewriting.toml``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from facecaption_ml.captions.faithful.lexicon import bundled_lexicon, tokens
from facecaption_ml.captions.labels import BIT
from facecaption_ml.taxonomy import FEMALE, Gender

_GENDERED: Final = frozenset({"Male", FEMALE})


class Vocabulary:
    """The words that guided decoding may use, their classes, and which class may follow which.

    ``data``: the table ``vocabulary`` of a prompt file. Raises ValueError or KeyError naming the entry that is wrong.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        missing = set(data["labels"]) ^ (set(BIT) - _GENDERED)
        if missing:
            raise ValueError(f"vocabulary.labels: one list per attribute; wrong or missing: {sorted(missing)}")
        self.once, self.opening, self.no_article, self.worn, self.places = (
            frozenset(data[name]) for name in ("once", "opening", "no_article", "worn", "places")
        )
        self.follow = {name: frozenset(after) for name, after in data["follow"].items()}
        self.after = {word: frozenset(before) for word, before in data["after"].items()}
        self.before = {word: frozenset(after) for word, after in data["before"].items()}
        self._of_label: Mapping[str, Sequence[str]] = data["labels"]
        self._gendered: Mapping[str, Sequence[str]] = data["gender"]
        self._only: Mapping[str, Sequence[str]] = data["only"]
        self._classes = {word: name for name, words in data["classes"].items() for word in words}
        unknown = {after for names in self.follow.values() for after in names} - set(self.follow) - {"mark"}
        if unknown:
            raise ValueError(f"vocabulary.follow: unknown classes {sorted(unknown)}")
        everybody = {word for words in self._gendered.values() for word in words}
        labelled = {word for words in self._of_label.values() for word in words}
        self._everywhere = frozenset(self._classes) - everybody - labelled

    def class_of(self, word: str) -> str:
        """The class of a word; adjectives and nouns are the lexicon's. "" for a word of no class."""
        lexicon = bundled_lexicon()
        if word in self._classes:
            return self._classes[word]
        return "adjective" if lexicon.heads_of(word) else "noun" if lexicon.is_noun(word) else ""

    def words(self, template: str, labels: Sequence[str], gender: Gender | None) -> dict[str, int]:
        """Word → the labels (bits) that it helps to assert; 0 for a word that is always available.

        ``labels`` without gender. The adjectives and nouns of the template are available too.
        """
        words: dict[str, int] = {}
        for label in labels:
            for word in self._of_label[label]:
                words[word] = words.get(word, 0) | BIT[label]
        for word in (*self._everywhere, *self._gendered[gender or "unknown"]):
            words.setdefault(word, 0)
        others = {word for name, own in self._only.items() if name != gender for word in own}
        for word in others & set(words):
            del words[word]
        for word in tokens(template):
            if word not in words and (word not in self._classes or word in others) and self.class_of(word):
                words[word] = 0
        return words
