"""Whether a text that a model wrote may stand in the table, and if not, the reason that the row carries."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Final

from facecaption_ml.captions.backends.chat import Answer
from facecaption_ml.captions.backends.completion import read_completion
from facecaption_ml.captions.faithful.closed_world import ClosedWorld, closed_world
from facecaption_ml.captions.faithful.faithfulness import compared
from facecaption_ml.captions.faithful.lexicon import bundled_lexicon
from facecaption_ml.captions.faithful.parser import Mentions, parse
from facecaption_ml.captions.labels import label_bits
from facecaption_ml.captions.rewrite.answers import take_apart
from facecaption_ml.captions.rewrite.prompt import RewritingPrompt
from facecaption_ml.captions.template.template import template_caption
from facecaption_ml.taxonomy import Gender

_FEWEST_WORDS: Final = 4
_WORDS_ALLOWANCE: Final = 25  # a rewrite has at most this many words more than twice those of its template
_MOST_REPETITION: Final = 0.06
_SAYS: Final = "says "
_MOST_NAMED: Final = 3
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
        "der das und ist ein eine einen mit sie er frau mann haare trägt gli uno che donna uomo capelli ha são uma com "
        "mulher homem cabelo een het haar vrouw heeft en draagt",
    )
)


class Fault(StrEnum):
    """What is wrong with a rewrite. Failures of the model itself have their own names (``chat.Failure``)."""

    UNFAITHFUL = "unfaithful"
    BEYOND = "says more than its labels"
    CONTROL = "control characters"
    MARKUP = "markup"
    LANGUAGE = "another language"
    LENGTH = "too short or too long"
    REPEATED = "repeats itself"
    UNCHANGED = "same words as the template"
    NOT_FLUENT = "not fluent"


@dataclass(frozen=True)
class Judgement:
    """What is kept of an answer. ``reason``: why it is not taken, None for a good one. ``text``: the answer, tidied.

    ``beyond``: words that say what no label gives. ``missing``, ``invented``: as in the table; what is denied without need is
    invented. ``repetition``: 0 to 1.
    """

    text: str = ""
    reason: str | None = None
    missing: tuple[str, ...] = ()
    invented: tuple[str, ...] = ()
    repetition: float = 0.0
    beyond: tuple[str, ...] = ()

    @property
    def caption(self) -> str | None:
        """The text that the table gets, None where the template caption stays."""
        return self.text if self.reason is None else None

    @property
    def says_otherwise(self) -> bool:
        """Whether it was refused for what it says, not for its form."""
        return self.reason is not None and kind_of(self.reason) in (Fault.UNFAITHFUL, Fault.BEYOND)

    @property
    def distance(self) -> int:
        """How many attributes and words are wrong."""
        return len(self.missing) + len(self.invented) + len(self.beyond)


def judge_rewrite(
    answer: str | Answer,
    labels: Sequence[str],
    gender: Gender | None,
    *,
    template: str | None = None,
    least_fluency: float | None = None,
) -> Judgement:
    """Judge a model's answer as a rewrite of the template caption: form first, then what it says.

    ``answer``: as the model gave it. ``template``: the caption to rewrite, whose length bounds the rewrite's and whose words
    must not come back unchanged; without one, the length is that of a caption drawn for the labels. ``least_fluency``: lowest
    mean log-probability of a token, for answers that know theirs.
    Raises ValueError for an unknown label or gender, and for gender "female" beside the label Male.
    """
    if isinstance(answer, str):
        answer = read_completion(answer, "stop")
    if answer.text is None:
        return Judgement(reason=answer.reason)
    taken = take_apart(answer.text)
    if taken.reason is not None:
        return Judgement(taken.text, taken.reason)
    text = tidied(taken.text)
    reason: str | None = unclean(text)
    if reason is Fault.CONTROL:
        return Judgement(text, reason)
    mentions, known = parse(text, bundled_lexicon()), label_bits(labels, gender)
    faithfulness = compared(mentions, known)
    beyond = _world().beyond(text, mentions, known, template or "")
    invented = tuple(dict.fromkeys((*faithfulness.invented, *faithfulness.denied)))
    repeated = 1.0 if _says_twice(mentions) else repetition(text)
    words = _words(text)
    original = _words(template_caption(labels, gender, seed=0) if template is None else template)
    if reason is None and not _FEWEST_WORDS <= len(words) <= 2 * len(original) + _WORDS_ALLOWANCE:
        reason = Fault.LENGTH
    if reason is None and template is not None and words == original:
        reason = Fault.UNCHANGED
    if reason is None and repeated > _MOST_REPETITION:
        reason = Fault.REPEATED
    if reason is None and not faithfulness.faithful:
        reason = Fault.UNFAITHFUL
    if reason is None and beyond:
        reason = _naming(beyond)
    if reason is None and least_fluency is not None and answer.fluency is not None and answer.fluency < least_fluency:
        reason = Fault.NOT_FLUENT
    return Judgement(text, reason, faithfulness.missing, invented, repeated, beyond)


def kind_of(reason: str) -> str:
    """A row's reason without the words that it names or a server said, for counting."""
    return str(Fault.BEYOND) if reason.startswith(_SAYS) else reason.partition(": ")[0]


def _naming(beyond: Sequence[str]) -> str:
    named = [f"'{words}'" for words in beyond[:_MOST_NAMED]]
    return f"{_SAYS}{' and '.join([', '.join(named[:-1]), named[-1]] if named[1:] else named)}, which no label gives"


@cache
def _world() -> ClosedWorld:
    return closed_world(example.rewrite for example in RewritingPrompt.load().examples)


def _says_twice(mentions: Mentions) -> bool:
    """Whether the same is said of the same part of the face twice ("the big nose has a big nose")."""
    pairs = [pair for pair in mentions.pairs if pair[1] not in ("person", "photo")]
    return len(set(pairs)) < len(pairs)


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
    if not text.isprintable() and any(unicodedata.category(letter) in ("Cc", "Cf", "Co", "Cs") for letter in text):
        return Fault.CONTROL
    if _MARKUP.search(text):
        return Fault.MARKUP
    foreign = not text.isascii() and not all(_ENGLISH.match(letter) for letter in _LETTERS.findall(text))
    return Fault.LANGUAGE if foreign or len(_FOREIGN.intersection(_words(text))) > 1 else None


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())
