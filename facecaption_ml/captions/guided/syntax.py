"""The syntax that guided decoding keeps to: which word, comma or full stop may follow, and what a sentence has said so far.

A bigram grammar over word classes (``rewriting.toml``) does most of it; the rest are the slips of a small model: "a high
cheekbones", "wearing blond hair", "her eyes are high cheekbones". It keeps sentences well formed enough for the model's
probabilities to choose well among; it does not say which to write.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Final

from facecaption_ml.captions.faithful.faithfulness import implied_absent
from facecaption_ml.captions.faithful.lexicon import bundled_lexicon
from facecaption_ml.captions.faithful.parser import parse
from facecaption_ml.captions.guided.state import Ending, Mode, State
from facecaption_ml.captions.guided.vocabulary import Vocabulary
from facecaption_ml.captions.labels import GENDER_BITS, label_bits, names_of
from facecaption_ml.taxonomy import Gender

_MORE_WORDS: Final = 8  # than the template has
_SHORTEST_SENTENCE: Final = 3  # words
_OPENING: Final = 5  # words of a text in which the photo itself may be named
_MODES: Final = {
    **dict.fromkeys(("is", "are"), Mode.BE),
    **dict.fromkeys(("wears", "wearing"), Mode.WEAR),
    **dict.fromkeys(("has", "have", "with", "without", "sports"), Mode.HAVE),
    **dict.fromkeys(("on", "over", "behind", "of", "frames"), Mode.AT),
    **dict.fromkeys(("under", "below"), Mode.UNDER),
    "who": Mode.NONE,
}
_NAMES_A_THING: Final = frozenset({Mode.HAVE, Mode.WEAR})  # and neither a person nor what one is
_PERSON: Final = 4  # words of a sentence in which the person may be named
_COPULAS: Final = frozenset({"is", "are"})
_ARTICLES: Final = frozenset({"a", "an"})
_VOWELS: Final = frozenset("aeiou")


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
        """The available words."""
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
            self._may_punctuate(state)
            and state.in_sentence >= _SHORTEST_SENTENCE
            and (state.verb or self._may_lack_verb(state))
        )

    def may_pause(self, state: State) -> bool:
        """May a comma follow?"""
        led = state.verb or state.words == state.in_sentence or state.lead in ("preposition", "wearing")
        return self._may_punctuate(state) and led

    def extended(self, state: State, word: str) -> State | None:
        """The state with a word more, or None where it is out of place or says what it must not."""
        if not self.fits(state, word):
            return None
        starts = state.after in (Ending.START, Ending.DOT)
        text = (
            state.text
            + ("" if state.after is Ending.START else " ")
            + (word[:1].upper() + word[1:] if starts else word)
        )
        lexicon, kind = bundled_lexicon(), self._kinds[word]
        adjective = bool(lexicon.heads_of(word))
        # "and her hair ..." begins a clause that needs a verb of its own.
        clause = kind == "possessive" and state.kind == "conjunction" and state.after is Ending.WORD
        asserted = state.asserted
        if not adjective or state.mode is Mode.BE:  # elsewhere an adjective waits for its noun
            mentions = parse(text, lexicon)
            if (
                mentions.asserted & ~self._known
                or mentions.denied & self._known
                or self._idle(state, mentions.asserted)
            ):
                return None
            asserted = mentions.asserted
        if _MODES.get(word, state.mode) is Mode.UNDER and word != "eyes":  # "bags under her" is not yet all of it
            asserted = state.asserted
        return State(
            text,
            Ending.WORD,
            word,
            kind,
            state.words + 1,
            state.in_sentence + 1,
            asserted,
            article=word in _ARTICLES or (state.article and (adjective or kind == "adverb")),
            lead=kind if starts else state.lead,
            verb=not clause and (state.verb or kind in ("verb", "linking", "frames")),
            mode=self._mode_after(state, word, clause),
            adjectives=(*state.adjectives, word) if adjective else (),
            subject=lexicon.part_of(word) or state.subject,
            spent=state.spent | {word} if word in self._vocabulary.once and not self._bits[word] else state.spent,
        )

    def punctuated(self, state: State, *, dot: bool) -> State | None:
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
            return replace(fresh, after=Ending.COMMA)
        return replace(fresh, after=Ending.DOT, in_sentence=0, mode=Mode.NONE, subject="", verb=False)

    def fits(self, state: State, word: str) -> bool:
        """Is the word in place by its class, and can what it begins come to a good end?"""
        if not self._usable(word, state.asserted) or word in state.spent or not self._follows(state, word):
            return False
        if word in self._vocabulary.opening and state.words > _OPENING:
            return False
        kind = self._kinds[word]
        rule = Syntax._with_fits if word == "with" else self._RULES.get(kind)
        return rule is None or rule(self, state, word)

    def _follows(self, state: State, word: str) -> bool:
        """May the word stand behind the last one: by class, by the lists of both words, as "a" or "an"?"""
        listed, last = self._vocabulary, state.last
        previous = state.kind if state.after is Ending.WORD else state.after
        return (
            self._kinds[word] in listed.follow[previous]
            and word != last
            and last in listed.after.get(word, (last,))
            and word in listed.before.get(last, (word,))
            and (last not in _ARTICLES or (word[0] in _VOWELS) == (last == "an"))
        )

    def _mode_after(self, state: State, word: str, clause: bool) -> Mode:
        if clause:
            return Mode.NONE
        if word == "eyes" and state.mode is Mode.UNDER:  # "bags under her eyes and ...": more of what she has
            return Mode.HAVE
        return _MODES.get(word, state.mode)

    def _with_fits(self, state: State, word: str) -> bool:
        listed = self._vocabulary
        return state.mode is not Mode.WEAR and state.last not in listed.worn and word not in state.sentence

    def _joint_fits(self, state: State, word: str) -> bool:
        """A conjunction or preposition leaves no adjective without its noun."""
        return state.kind != "adjective" or state.mode is Mode.BE

    def _verb_fits(self, state: State, word: str) -> bool:
        return state.kind != "conjunction" or state.verb

    def _pronoun_fits(self, state: State, word: str) -> bool:
        if state.after is Ending.COMMA:  # "With blond hair, she ..."
            return not state.verb and state.lead in ("preposition", "wearing")
        return state.after is Ending.DOT or state.verb

    def _wearing_fits(self, state: State, word: str) -> bool:
        return state.mode is not Mode.BE or state.subject in ("person", "")

    def _person_fits(self, state: State, word: str) -> bool:
        return state.in_sentence <= _PERSON and state.mode not in _NAMES_A_THING

    def _personal_fits(self, state: State, word: str) -> bool:
        new = word not in state.sentence
        return new and self._wearing_fits(state, word) and state.mode not in _NAMES_A_THING

    def _possessive_fits(self, state: State, word: str) -> bool:
        """A sentence about "her" something needs a part of which something new can be said."""
        if state.kind == "preposition" and state.after is Ending.WORD:
            return True
        if (
            state.kind == "conjunction"
            and state.after is Ending.WORD
            and not (state.verb or self._may_lack_verb(state))
        ):
            return False
        new = self._known & ~state.asserted
        return any(
            part != "person" and self._sayable(part) & new and any(self._usable(noun, state.asserted) for noun in nouns)
            for part, nouns in self._nouns.items()
        )

    def _sayable(self, part: str) -> int:
        """Everything (bits) that the available words can say of a part of the face."""
        if part not in self._sayable_of:
            bits = 0
            for word, kind in self._kinds.items():
                bits |= bundled_lexicon().heads_of(word).get(part, 0) if kind == "adjective" else 0
            self._sayable_of[part] = bits
        return self._sayable_of[part]

    def _article_fits(self, state: State, word: str) -> bool:
        if state.mode is Mode.BE:
            return state.last in _COPULAS and state.words == 2  # "This is a ..."
        if word == "this":
            return state.after in (Ending.START, Ending.DOT)
        if state.mode not in _NAMES_A_THING:
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
        if state.mode is Mode.BE:
            return bool(heads.get(state.subject, 0) & new)
        if (
            state.kind == "possessive" and state.mode is Mode.NONE
        ):  # the subject: something else must be left to say of it
            return any(bits & new and self._sayable(part) & new & ~bits for part, bits in heads.items())
        for part, bits in heads.items():
            if bits & new and not (part == "person" and state.mode in _NAMES_A_THING):
                waiting = [bundled_lexicon().heads_of(other) for other in state.adjectives]
                if all(part in other for other in waiting) and any(
                    self._noun_fits(state, noun) for noun in self._nouns.get(part, ())
                ):
                    return True
        return False

    def _next_noun_fits(self, state: State, noun: str) -> bool:
        if state.words < _OPENING and not state.subject and state.lead in ("article", "personal", "adjective"):
            return False  # a text begins with the person, not with "A nose"
        new = state.kind == "facial" or noun not in state.sentence
        return new and self._noun_fits(state, noun) and not self._bare(state, noun)

    def _noun_fits(self, state: State, noun: str) -> bool:
        """Can the noun stand where the state leads to, now or after an adjective?"""
        listed = self._vocabulary
        singular = noun not in listed.no_article and self._kinds[noun] == "noun"
        return (
            self._usable(noun, state.asserted)
            and not (singular and state.mode in _NAMES_A_THING and not state.article and state.kind != "negation")
            and (state.mode is not Mode.UNDER or noun == "eyes")
            and (state.mode is not Mode.AT or noun in listed.places or self._kinds[noun] != "noun")
            and not (noun in listed.opening and state.words > _OPENING)
            and not (state.article and noun in listed.no_article)
            and (state.mode is not Mode.WEAR or noun in listed.worn)
            and (state.mode is not Mode.BE or state.article)
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
        return state.mode in _NAMES_A_THING or state.kind == "article"

    def _idle(self, state: State, asserted: int) -> bool:
        """Has an adjective found no noun of which it says something?"""
        return any(self._bits[word] and not self._bits[word] & asserted for word in state.adjectives)

    def _usable(self, word: str, asserted: int) -> bool:
        bits = self._bits[word]
        return not bits or bool(bits & ~asserted)

    def _may_lack_verb(self, state: State) -> bool:
        """ "A smiling man with brown hair." is a caption, "The man with brown hair." is none."""
        return state.text.startswith(("A ", "An ")) and state.words == state.in_sentence

    def _may_punctuate(self, state: State) -> bool:
        # An adjective that waits for its noun keeps punctuation away; after "is" it need not wait.
        dangling = (state.adjectives or state.kind == "personal") and state.mode is not Mode.BE
        return state.after is Ending.WORD and "mark" in self._vocabulary.follow[state.kind] and not dangling

    # What a class asks for beyond the order of classes; the others ask for nothing more.
    _RULES: ClassVar[Mapping[str, Callable[[Syntax, State, str], bool]]] = {
        "article": _article_fits,
        "adjective": _adjective_fits,
        "noun": _next_noun_fits,
        "possessive": _possessive_fits,
        "pronoun": _pronoun_fits,
        "verb": _verb_fits,
        "linking": _verb_fits,
        "conjunction": _joint_fits,
        "preposition": _joint_fits,
        "person": _person_fits,
        "personal": _personal_fits,
        "wearing": _wearing_fits,
    }
