"""A text under guided decoding: what it says, and where in the form of its sentence it stands."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Ending(StrEnum):
    """What a text ends with."""

    START = "start"  # the text is empty
    WORD = "word"
    COMMA = "comma"
    DOT = "dot"


@dataclass(frozen=True)
class Tally:
    """What a text has used up, as far as it decides what may follow.

    ``unsaid``: labels (bits) still to be said. ``budget``: how often each of the vocabulary's ``in_sentence`` words may still
    stand in this sentence. ``spent``: which of its ``once`` words (bits) have served. ``said``: labels of this sentence,
    counted to 2.
    """

    unsaid: int
    budget: tuple[int, ...]
    spent: int = 0
    said: int = 0


@dataclass(frozen=True)
class State:
    """A text being written. ``places``: where in the forms of sentences it may stand (``sentence_forms.Forms``)."""

    tally: Tally
    places: frozenset[int]
    text: str = ""  # finished phrases and punctuation
    after: Ending = Ending.START
    opening: str = ""  # the first word of the sentence, or of the last one
    before: str = ""  # that of the sentence before
