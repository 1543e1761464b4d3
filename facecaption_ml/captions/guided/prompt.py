"""The prompt of a rewrite and the vocabulary of guided decoding, read from ``rewriting.toml``."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from facecaption_ml.captions.faithful.faithfulness import find_attributes
from facecaption_ml.captions.faithful.lexicon import bundled_lexicon, tokens
from facecaption_ml.captions.labels import BIT
from facecaption_ml.errors import FaceCaptionError
from facecaption_ml.taxonomy import FEMALE, Gender

BUNDLED: Final = "bundled"
_GENDERED: Final = frozenset({"Male", FEMALE})


class PromptError(FaceCaptionError):
    """The prompt file is unusable; the message names the file and the entry."""


@dataclass(frozen=True)
class Example:
    """A template caption, a good rewrite of it, and the attributes that both assert."""

    template: str
    rewrite: str
    attributes: frozenset[str]


class Vocabulary:
    """The words that guided decoding may use, their classes, and which class may follow which."""

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
        """Word → the labels (bits) that it helps to assert; 0 for a word that is always at hand.

        ``labels`` without gender. The adjectives and nouns of the template are at hand too.
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


class RewritingPrompt:
    """How a rewrite is asked for. ``version``: the file's version and the first digits of its SHA-256."""

    def __init__(self, data: Mapping[str, Any], digest: str) -> None:
        self.version = f"{data['version']}-{digest[:8]}"
        self.system: str = data["system"]
        self._shown = int(data["examples_shown"])
        self.examples = [_example(entry) for entry in data["examples"]]
        self.vocabulary = Vocabulary(data["vocabulary"])

    @classmethod
    def load(cls, path: str = BUNDLED) -> RewritingPrompt:
        """The bundled prompt, or that of a file. Raises PromptError naming the file and what is wrong with it."""
        if path == BUNDLED:
            return _bundled()
        try:
            return _read(Path(path).expanduser())
        except OSError as error:
            raise PromptError(f"FACECAPTION_LLM_PROMPT: {path}: {error.strerror or error}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError, TypeError) as error:
            raise PromptError(f"FACECAPTION_LLM_PROMPT: {path}: {error}") from None
        except KeyError as error:
            raise PromptError(f"FACECAPTION_LLM_PROMPT: {path}: no entry {error.args[0]!r}") from None

    def messages(self, template: str, guided: bool = False) -> tuple[tuple[str, str], ...]:
        """System message, examples and the caption to rewrite, as (role, content).

        The examples are those that share most attributes with the caption (Jaccard index; earlier ones first on ties); for
        guided decoding always the first ones, whose share of the prompt is then computed once for all rows.
        """
        shown = self.examples[: self._shown]
        if not guided:
            asserted = set(find_attributes(template)[0])
            order = sorted(
                range(len(self.examples)), key=lambda i: (-_jaccard(asserted, self.examples[i].attributes), i)
            )
            # The closest one last, next to the question.
            shown = [self.examples[i] for i in reversed(order[: self._shown])]
        turns: list[tuple[str, str]] = [("system", self.system)]
        for example in shown:
            turns += [("user", example.template), ("assistant", example.rewrite)]
        return (*turns, ("user", template))


def _jaccard(a: set[str], b: frozenset[str]) -> float:
    return len(a & b) / max(len(a | b), 1)


def _example(entry: Mapping[str, str]) -> Example:
    return Example(entry["template"], entry["rewrite"], frozenset(find_attributes(entry["template"])[0]))


def _read(path: Path) -> RewritingPrompt:
    data = path.read_bytes()
    return RewritingPrompt(tomllib.loads(data.decode()), hashlib.sha256(data).hexdigest())


@cache
def _bundled() -> RewritingPrompt:
    return _read(Path(__file__).with_name("rewriting.toml"))
