"""A text under guided decoding: what it ends with, what its sentence leads up to, what it has said."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Ending(StrEnum):
    """What a text ends with. Where it is no word, it counts as a class in the vocabulary's ``follow``."""

    START = "start"  # the text is empty
    WORD = "word"
    COMMA = "comma"
    DOT = "dot"


class Mode(StrEnum):
    """What the last verb or preposition of a sentence leads up to."""

    NONE = ""
    BE = "be"  # what the subject is: "is", "are"
    WEAR = "wear"  # something worn
    HAVE = "have"  # a part of the face or a thing: "has", "with"
    AT = "at"  # a place: "on", "over", "behind"
    UNDER = "under"  # the eyes that the bags are under


@dataclass(frozen=True)
class State:
    """A text being written, as far as it decides what may follow.

    Classes of words are those of the vocabulary, parts of the face those of the lexicon.
    """

    text: str = ""  # finished words and punctuation
    after: Ending = Ending.START
    last: str = ""  # its last word or comma
    kind: str = ""  # the class of its last word
    words: int = 0
    in_sentence: int = 0  # words of the unfinished sentence
    asserted: int = 0  # labels (bits) that the text asserts
    article: bool = False  # "a" waits for its noun
    lead: str = ""  # the class of the sentence's first word
    verb: bool = False  # the sentence has its verb
    mode: Mode = Mode.NONE
    adjectives: tuple[str, ...] = ()  # that wait for their noun
    subject: str = ""  # the part of the face that the sentence is about so far
    spent: frozenset[str] = frozenset()  # words that serve once and have served

    @property
    def sentence(self) -> list[str]:
        """The words of the unfinished sentence, lower case."""
        return self.text.rpartition(". ")[2].lower().replace(",", "").split()
