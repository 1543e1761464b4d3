"""The syntax that guided decoding keeps to: which word, comma or full stop may follow, and what a sentence has said so far.

A bigram grammar over word classes (``rewriting.toml``) does most of it; the rest are the slips of a small model: "a high
cheekbones", "wearing blond hair", "her eyes are high cheekbones". It keeps sentences well formed enough for the model's
probabilities to choose well among; it does not say which to write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from facecaption_ml.captions.faithful.faithfulness import implied_absent
from facecaption_ml.captions.faithful.lexicon import bundled_lexicon
from facecaption_ml.captions.faithful.parser import parse
from facecaption_ml.captions.guided.vocabulary import Vocabulary
from facecaption_ml.captions.labels import GENDER_BITS, label_bits, names_of
from facecaption_ml.taxonomy import Gender

START, WORD, COMMA, DOT = "start", "word", "comma", "dot"
"""What a text ends with."""

_MORE_WORDS: Final = 8  # than the template has
_SHORTEST_SENTENCE: Final = 3  # words
_OPENING: Final = 5  # words of a text in which the photo itself may be named
_MODES: Final = {
    **dict.fromkeys(("is", "are"), "be"),
    **dict.fromkeys(("wears", "wearing"), "wear"),
    **dict.fromkeys(("has", "have", "with", "without", "sports"), "have"),
    **dict.fromkeys(("on", "over", "behind", "of", "frames"), "at"),
    **dict.fromkeys(("under", "below"), "under"),
    "who": "",
}
_PERSON: Final = 4  # words of a sentence in which the person is named
_COPULAS: Final = frozenset({"is", "are"})
_ARTICLES: Final = frozenset({"a", "an"})
_VOWELS: Final = frozenset("aeiou")


@dataclass(frozen=True)
class State:
    """A text under way."""

    text: str = ""  # finished words and punctuation
    after: str = START  # what the text ends with
    last: str = ""  # its last word or comma
    kind: str = ""  # the class of its last word
    words: int = 0
    in_sentence: int = 0  # words of the sentence under way
    asserted: int = 0  # labels (bits) that the text asserts
    article: bool = False  # "a" waits for its noun
    lead: str = ""  # the class of the sentence's first word
    verb: bool = False  # the sentence has its verb
    mode: str = ""  # what the last verb or preposition asks for: be, wear or have
    adjectives: tuple[str, ...] = ()  # that wait for their noun
    subject: str = ""  # the part of the face that the sentence is about so far
    spent: frozenset[str] = frozenset()  # words that serve once and have served


class Syntax:
    """What may be written about one set of labels."""

    def __init__(self, template: str, labels: Sequence[str], gender: Gender | None, vocabulary: Vocabulary) -> None:
        self._known = label_bits(labels, gender)
        self._implied = implied_absent(self._known)
        self._vocabulary = vocabulary
        self._bits = vocabulary.words(template, names_of(self._known & ~GENDER_BITS), gender)
        self._kinds = {word: vocabulary.class_of(word) for word in self._bits}
        self.most_words = len(template.split()) + _MORE_WORDS
        self._sayable_of: dict[str, int] = {}
        self._nouns: dict[str, list[str]] = {}  # by the part of the face that they name
        for word, kind in self._kinds.items():
            if kind in ("noun", "person", "scene"):
                self._nouns.setdefault(bundled_lexicon().part_of(word), []).append(word)

    @property
    def words(self) -> list[str]:
        """The words at hand."""
        return [word for word, kind in self._kinds.items() if kind]

    def complete(self, state: State) -> bool:
        """Has the text asserted every label?"""
        return not self._known & ~state.asserted

    def adds_missing_label(self, state: State, word: str) -> bool:
        """Does the word help to assert a label that the text lacks?"""
        return bool(self._bits[word] & ~state.asserted)

    def may_end(self, state: State) -> bool:
        """May a full stop follow?"""
        return (
            self._may_mark(state)
            and state.in_sentence >= _SHORTEST_SENTENCE
            and (state.verb or self._may_lack_verb(state))
        )

    def may_pause(self, state: State) -> bool:
        """May a comma follow?"""
        led = state.verb or state.words == state.in_sentence or state.lead in ("preposition", "wearing")
        return self._may_mark(state) and led

    def extended(self, state: State, word: str) -> State | None:
        """The state with a word more, or None where it is out of place or says what it must not."""
        if not self.fits(state, word):
            return None
        starts = state.after in (START, DOT)
        text = state.text + ("" if state.after == START else " ") + (word[:1].upper() + word[1:] if starts else word)
        lexicon, kind = bundled_lexicon(), self._kinds[word]
        adjective = bool(lexicon.heads_of(word))
        clause = kind == "possessive" and state.kind == "conjunction" and state.after == WORD
        asserted = state.asserted
        if not adjective or state.mode == "be":  # elsewhere an adjective waits for its noun
            mentions = parse(text, lexicon)
            if (
                mentions.asserted & ~self._known
                or mentions.denied & self._known
                or self._idle(state, mentions.asserted)
            ):
                return None
            asserted = mentions.asserted
        if _MODES.get(word, state.mode) == "under" and word != "eyes":  # "bags under her" is not yet all of it
            asserted = state.asserted
        return State(
            text,
            WORD,
            word,
            kind,
            state.words + 1,
            state.in_sentence + 1,
            asserted,
            article=word in _ARTICLES or (state.article and (adjective or kind == "adverb")),
            lead=kind if starts else state.lead,
            # "and her hair ..." begins a clause that needs a verb of its own.
            verb=not clause and (state.verb or kind in ("verb", "linking", "frames")),
            mode="" if clause else "have" if word == "eyes" and state.mode == "under" else _MODES.get(word, state.mode),
            adjectives=(*state.adjectives, word) if adjective else (),
            subject=lexicon.part_of(word) or state.subject,
            spent=state.spent | {word} if word in self._vocabulary.once and not self._bits[word] else state.spent,
        )

    def marked(self, state: State, *, dot: bool) -> State | None:
        """The state with a full stop or a comma at the end of the text, or None where it would not be faithful."""
        text = state.text + ("." if dot else ",")
        mentions = parse(text, bundled_lexicon())
        wrong = (mentions.asserted | mentions.hinted) & ~self._known
        denied = mentions.denied & ~self._implied | mentions.ruled_out & self._known
        if wrong or denied or self._idle(state, mentions.asserted):
            return None
        fresh = replace(
            state, text=text, last="" if dot else ",", asserted=mentions.asserted, article=False, adjectives=()
        )
        if not dot:
            return replace(fresh, after=COMMA)
        return replace(fresh, after=DOT, in_sentence=0, mode="", subject="", verb=False)

    def fits(self, state: State, word: str) -> bool:
        """Is the word in place by its class, and can what it begins come to a good end?"""
        listed, kind = self._vocabulary, self._kinds[word]
        previous = state.kind if state.after == WORD else state.after
        if kind not in listed.follow[previous] or not self._usable(word, state.asserted) or word in state.spent:
            return False
        if word in listed.opening and state.words > _OPENING:
            return False
        if kind == "personal" and word in _sentence(state):
            return False
        if word == state.last or state.last not in listed.after.get(word, (state.last,)):
            return False
        if word not in listed.before.get(state.last, (word,)):
            return False
        if state.last in _ARTICLES and (word[0] in _VOWELS) != (state.last == "an"):
            return False
        if kind == "article":
            return self._article_fits(state, word)
        if kind == "adjective":
            return self._adjective_fits(state, word)
        if kind == "noun":
            if state.words < _OPENING and not state.subject and state.lead in ("article", "personal", "adjective"):
                return False
            new = state.kind == "facial" or word not in _sentence(state)
            return new and self._noun_fits(state, word) and not self._bare(state, word)
        if word == "with":
            return state.mode != "wear" and state.last not in listed.worn and word not in _sentence(state)
        if kind == "possessive":
            return self._possessive_fits(state)
        if kind == "pronoun":
            if state.after == COMMA:  # "With blond hair, she ..."
                return not state.verb and state.lead in ("preposition", "wearing")
            return state.after == DOT or state.verb
        if kind in ("verb", "linking") and state.kind == "conjunction":
            return state.verb
        if kind in ("conjunction", "preposition") and state.kind == "adjective" and state.mode != "be":
            return False
        if kind == "person" and state.in_sentence > _PERSON:
            return False
        if state.mode == "be" and kind in ("personal", "wearing"):
            return state.subject in ("person", "")
        return not (kind in ("person", "personal") and state.mode in ("have", "wear"))

    def _possessive_fits(self, state: State) -> bool:
        """A sentence about "her" something needs a part of which something new can be said."""
        if state.kind == "preposition" and state.after == WORD:
            return True
        if state.kind == "conjunction" and state.after == WORD and not (state.verb or self._may_lack_verb(state)):
            return False
        new = self._known & ~state.asserted
        return any(
            part != "person" and self._sayable(part) & new and any(self._usable(noun, state.asserted) for noun in nouns)
            for part, nouns in self._nouns.items()
        )

    def _sayable(self, part: str) -> int:
        """Everything (bits) that the words at hand can say of a part of the face."""
        if part not in self._sayable_of:
            bits = 0
            for word, kind in self._kinds.items():
                bits |= bundled_lexicon().heads_of(word).get(part, 0) if kind == "adjective" else 0
            self._sayable_of[part] = bits
        return self._sayable_of[part]

    def _article_fits(self, state: State, word: str) -> bool:
        if state.mode == "be":
            return state.last in _COPULAS and state.words == 2  # "This is a ..."
        if word == "this":
            return state.after in (START, DOT)
        if state.mode not in ("have", "wear"):
            return True
        singular = replace(state, article=True)
        return any(
            self._bits[noun] & ~state.asserted
            and self._noun_fits(singular, noun)
            and noun not in self._vocabulary.after
            for nouns in self._nouns.values()
            for noun in nouns
        )

    def _adjective_fits(self, state: State, word: str) -> bool:
        """It can say something new of the subject, or of a noun that can still come."""
        heads = bundled_lexicon().heads_of(word)
        if word in state.adjectives:
            return False
        new = self._known & ~state.asserted
        if state.mode == "be":
            return bool(heads.get(state.subject, 0) & new)
        if state.kind == "possessive" and state.mode == "":  # the subject: something else must be left to say of it
            return any(bits & new and self._sayable(part) & new & ~bits for part, bits in heads.items())
        for part, bits in heads.items():
            if bits & new and not (part == "person" and state.mode in ("have", "wear")):
                waiting = [bundled_lexicon().heads_of(other) for other in state.adjectives]
                if all(part in other for other in waiting) and any(
                    self._noun_fits(state, noun) for noun in self._nouns.get(part, ())
                ):
                    return True
        return False

    def _noun_fits(self, state: State, noun: str) -> bool:
        listed = self._vocabulary
        singular = noun not in listed.no_article and self._kinds[noun] == "noun"
        return (
            self._usable(noun, state.asserted)
            and not (singular and state.mode in ("have", "wear") and not state.article and state.kind != "negation")
            and (state.mode != "under" or noun == "eyes")
            and (state.mode != "at" or noun in listed.places or self._kinds[noun] != "noun")
            and not (noun in listed.opening and state.words > _OPENING)
            and not (state.article and noun in listed.no_article)
            and (state.mode != "wear" or noun in listed.worn)
            and (state.mode != "be" or state.article)
        )

    def _bare(self, state: State, noun: str) -> bool:
        """A part of the face that is only there says nothing ("has a nose"); "on her nose" and "her nose is" may do."""
        lexicon = bundled_lexicon()
        part = lexicon.part_of(noun)
        if (
            part in ("", "other")
            or lexicon.says_alone(noun)
            or state.adjectives
            or state.kind in ("facial", "personal")
        ):
            return False
        return state.mode in ("have", "wear") or state.kind == "article"

    def _idle(self, state: State, asserted: int) -> bool:
        """Has an adjective found no noun of which it says something?"""
        return any(self._bits[word] and not self._bits[word] & asserted for word in state.adjectives)

    def _dangling(self, state: State) -> bool:
        """Does an adjective still wait for its noun? After "is" it need not."""
        return (bool(state.adjectives) or state.kind == "personal") and state.mode != "be"

    def _usable(self, word: str, asserted: int) -> bool:
        bits = self._bits[word]
        return not bits or bool(bits & ~asserted)

    def _may_lack_verb(self, state: State) -> bool:
        """ "A smiling man with brown hair." is a caption, "The man with brown hair." is none."""
        return state.text.startswith(("A ", "An ")) and state.words == state.in_sentence

    def _may_mark(self, state: State) -> bool:
        return state.after == WORD and "mark" in self._vocabulary.follow[state.kind] and not self._dangling(state)


def _sentence(state: State) -> list[str]:
    """The words of the sentence under way."""
    return state.text.rpartition(". ")[2].lower().replace(",", "").split()
