"""Is a text that a model wrote fit to stand in the table? What is wrong with it, in words that a row can carry."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from facecaption_ml.captions.backends.chat import Answer
from facecaption_ml.captions.faithful.faithfulness import check_faithful
from facecaption_ml.taxonomy import Gender

_FEWEST_WORDS: Final = 4
_WORDS_ALLOWANCE: Final = 25  # a rewrite has at most this many words more than twice those of its template
_MOST_REPETITION: Final = 0.06
_MARKUP: Final = re.compile(r"[<>{}\[\]|\\^~`*#_=@$]|https?:|www\.|^\s*[-•]\s|:\s*$", re.MULTILINE)
_LETTERS: Final = re.compile(r"[^\W\d_]")
_ENGLISH: Final = re.compile(r"[A-Za-zéèêïëàâôöüñç]")  # "fiancée", "naïve"
_LABEL: Final = re.compile(
    r"^(?:(?:rewritten|new)\s+)?(?:description|caption|sentence|answer|rewrite)s?\s*:\s*", re.IGNORECASE
)
# Words that Spanish, French, German, Italian, Portuguese and Dutch can hardly do without, and English can.
_FOREIGN: Final = frozenset(
    re.findall(
        r"\w+",
        "el los las una unos con pelo mujer hombre tiene lleva le les un une des avec est elle il qui cheveux femme homme "
        "der das und ist ein eine einen mit sie er frau mann haare hat trägt gli uno che donna uomo capelli ha são uma com "
        "mulher homem cabelo een het met haar vrouw heeft en draagt",
    )
)


class Fault(StrEnum):
    """What is wrong with a rewrite. Failures of the model itself have their own names (``chat.Failure``)."""

    UNFAITHFUL = "unfaithful"
    CONTROL = "control characters"
    MARKUP = "markup"
    LANGUAGE = "another language"
    LENGTH = "too short or too long"
    REPEATED = "repeats itself"
    UNCHANGED = "same words as the template"
    NOT_FLUENT = "not fluent"


@dataclass(frozen=True)
class Judgement:
    """``reason``: None for a good text. ``missing``, ``invented``: as in the table; what is denied without need is invented."""

    text: str = ""
    reason: str | None = None
    missing: tuple[str, ...] = ()
    invented: tuple[str, ...] = ()
    repetition: float = 0.0

    @property
    def distance(self) -> int:
        """How many attributes are wrong."""
        return len(self.missing) + len(self.invented)


def judge(
    answer: Answer, template: str, labels: Sequence[str], gender: Gender | None, least_fluency: float | None = None
) -> Judgement:
    """Judge an answer as a rewrite of ``template``; form first, then what it says.

    ``least_fluency``: lowest mean log-probability of a token, for answers that know theirs.
    """
    if answer.text is None:
        return Judgement(reason=str(answer.failure))
    text = tidied(answer.text)
    if (fault := unclean(text)) is Fault.CONTROL:
        return Judgement(text, fault)
    found = check_faithful(text, labels, gender)
    invented = tuple(dict.fromkeys((*found.invented, *found.denied)))
    repeated = repetition(text)
    reason = _fault(text, template, repeated) or (None if found.faithful else Fault.UNFAITHFUL)
    if reason is None and least_fluency is not None and answer.fluency is not None and answer.fluency < least_fluency:
        reason = Fault.NOT_FLUENT
    return Judgement(text, reason, found.missing, invented, repeated)


def tidied(text: str) -> str:
    """Without the quotes and the "Description:" that models put around, on one line, single spaces, a full stop at the end."""
    text = " ".join(re.split(r"[ \t\n\r]+", text.strip()))
    text = _LABEL.sub("", text)
    if len(text) > 1 and text[0] in "\"'“‘" and text[-1] in "\"'”’":
        text = text[1:-1].strip()
    return text if not text or text[-1] in ".!" else f"{text}."


def repetition(text: str) -> float:
    """Share of the word trigrams that have occurred before, 0 to 1; 1 where a whole sentence comes twice."""
    words = re.findall(r"[a-z0-9'-]+", text.lower())
    sentences = [s.strip().lower() for s in re.split(r"[.!?]", text) if s.strip()]
    if len(set(sentences)) < len(sentences):
        return 1.0
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0


def unclean(text: str) -> Fault | None:
    """Control characters, markup or words of another language: what must never reach the table."""
    if any(unicodedata.category(letter) in ("Cc", "Cf", "Co", "Cs") for letter in text):
        return Fault.CONTROL
    if _MARKUP.search(text):
        return Fault.MARKUP
    foreign = not all(_ENGLISH.match(letter) for letter in _LETTERS.findall(text))
    return Fault.LANGUAGE if foreign or sum(word in _FOREIGN for word in _words(text)) > 1 else None


def _fault(text: str, template: str, repeated: float) -> Fault | None:
    words, before = _words(text), _words(template)
    if fault := unclean(text):
        return fault
    if not _FEWEST_WORDS <= len(words) <= 2 * len(before) + _WORDS_ALLOWANCE:
        return Fault.LENGTH
    if words == before:
        return Fault.UNCHANGED
    return Fault.REPEATED if repeated > _MOST_REPETITION else None


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())
