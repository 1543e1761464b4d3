"""The phrases that guided decoding may write, and the forms of its sentences: a table of the prompt's file
(``rewrite/rewriting.toml``)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from facecaption_ml.captions.guided.sentence_forms import COMMA, Forms
from facecaption_ml.captions.labels import BIT, FEMALE_BIT, GENDER_BITS, MALE_BIT
from facecaption_ml.taxonomy import FEMALE, Gender

_GENDERED: Final = frozenset({"Male", FEMALE})
_VOWELS: Final = frozenset("aeiou")
# Slots that are filled from the tables of people, looks and parts.
_MADE: Final = frozenset(
    {"SUBJECT", "OBJECT", "LATER_SUBJECT", "PRONOUN", "PLURAL", "BE", "IS", "HAVE", "HAIR", "EYES"}
)


@dataclass(frozen=True)
class Phrase:
    """What fills a slot. ``bits``: the labels that it says, gender among them. ``family``: labels of which it must say all that
    are unsaid. ``costs``: how often each word of ``in_sentence`` stands in it; ``once``: which groups of ``once`` (bits)."""

    text: str
    bits: int = 0
    family: int = 0
    costs: tuple[int, ...] = ()
    once: int = 0


@dataclass(frozen=True)
class _Adjective:
    """Of a person, for one label (bit)."""

    word: str
    label: int
    first: bool = False
    last: bool = False


class Vocabulary:
    """The phrases that say labels, by slot, and the forms that they stand in.

    ``data``: the table ``vocabulary`` of a prompt file. Raises ValueError or KeyError naming the entry that is wrong.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.once = [frozenset(words) for words in data["once"]]
        self.in_sentence: Mapping[str, int] = data["in_sentence"]
        self.forms = Forms(data["forms"], data["plural"])
        self._people: Mapping[str, Mapping[str, Any]] = {
            name: data["people"][name] for name in ("male", "female", "unknown")
        }
        self._looks: Mapping[str, Mapping[str, Any]] = data["looks"]
        self._parts: Sequence[Mapping[str, Any]] = data["parts"]
        self._phrases: Mapping[str, Mapping[str, Mapping[str, Any]]] = data["phrases"]
        self.alone = sum(BIT[name] for name in data["alone"])
        self.worn = sum(BIT[name] for name in self._phrases["WEAR"])
        self._cached: dict[tuple[int, str], dict[str, list[Phrase]]] = {}
        self._check()

    def _check(self) -> None:
        named = {name for table in self._phrases.values() for name in table} | set(self._looks)
        for part in self._parts:
            named |= {*part["adjectives"], *part.get("tails", ())}
        wrong = (named - {""}) ^ (set(BIT) - _GENDERED)
        if wrong:
            raise ValueError(f"vocabulary: a phrase for each attribute; wrong or missing: {sorted(wrong)}")
        slots = {leaf for leaf in self.forms.leaves if leaf.isupper()}
        if unknown := slots - _MADE - set(self._phrases):
            raise ValueError(f"vocabulary.forms: no phrases for {sorted(unknown)}")

    def phrases(self, known: int, gender: Gender | None) -> dict[str, list[Phrase]]:
        """Slot, or a form's own word → what may fill it, for labels (bits) and a gender."""
        key = known, gender or "unknown"
        if key not in self._cached:
            if len(self._cached) > 1000:
                self._cached.clear()
            self._cached[key] = self._made(known, gender or "unknown")
        return self._cached[key]

    def words(self) -> frozenset[str]:
        """Every word that guided decoding can write, lower case."""
        everything = sum(bit for name, bit in BIT.items() if name not in _GENDERED)
        texts = [
            phrase.text
            for gender in self._people
            for phrases in self._made(everything, gender, strict=False).values()
            for phrase in phrases
        ]
        return frozenset(word for text in texts for word in re.findall(r"[a-z'-]+", text.lower()))

    def _made(self, known: int, gender: str, strict: bool = True) -> dict[str, list[Phrase]]:
        person = self._people[gender]
        bit = {"male": MALE_BIT, "female": FEMALE_BIT}.get(gender, 0)
        made: dict[str, list[Phrase]] = {slot: [] for slot in (*_MADE, *self._phrases)}
        for leaf in set(self.forms.leaves) - set(made) - {COMMA}:
            made[leaf] = [self._phrase(leaf)]
        for slot, table in self._phrases.items():
            for name, entry in table.items():
                label = BIT[name] if name else 0
                if label & known == label and not (strict and _barred(entry, known)):
                    gendered = any("{his}" in text for text in entry["texts"])
                    made[slot] += [
                        self._phrase(text.format(his=person["his"]), label | (bit if gendered else 0), label)
                        for text in entry["texts"]
                    ]
        for part in self._parts:
            whole = sum(BIT[name] & known for name in part.get("whole", ())) if strict else 0
            self._add_part(made, part, known, whole, person["his"], bit)
        made["PRONOUN"] = [self._phrase(word, bit) for word in person["pronoun"]]
        made["PLURAL"] = [self._phrase(word) for word in person["plural"]]
        looks = list(self._adjectives(known, gender, strict))
        made["BE"] = [self._phrase(look.word, look.label, look.label) for look in looks]
        people = list(self._named(looks, person["person"], bit))
        made["OBJECT"] = [self._phrase(f"{_article(text)} {text}", bits) for text, bits in people]
        made["LATER_SUBJECT"] = [self._phrase(f"the {text}", bits) for text, bits in people]
        made["SUBJECT"] = made["OBJECT"] + [self._phrase(f"this {text}", bits) for text, bits in people if " " in text]
        return made

    def _adjectives(self, known: int, gender: str, strict: bool) -> Iterator[_Adjective]:
        for name, entry in self._looks.items():
            if BIT[name] & known and not (strict and _barred(entry, known)):
                for word in (*entry.get("any", ()), *entry.get(gender, ())):
                    yield _Adjective(word, BIT[name], entry.get("first", False), entry.get("last", False))

    def _named(self, looks: Sequence[_Adjective], nouns: Sequence[str], bit: int) -> Iterator[tuple[str, int]]:
        """The person with no adjective, one, two or three; and the labels (bits) that this says."""
        none = _Adjective("", 0)
        firsts = [none, *(adjective for adjective in looks if adjective.first)]
        others = [none, *(adjective for adjective in looks if not adjective.first and not adjective.last)]
        lasts = [none, *(adjective for adjective in looks if adjective.last)]
        for noun, first, other, last in itertools.product(nouns, firsts, others, lasts):
            comma = "," if first.word and other.word else ""
            words = (first.word + comma, other.word, last.word, noun)
            yield " ".join(word for word in words if word), bit | first.label | other.label | last.label

    def _add_part(
        self, made: dict[str, list[Phrase]], part: Mapping[str, Any], known: int, whole: int, his: str, bit: int
    ) -> None:
        """A part of the face with all its adjectives that are labels, and what follows the noun; never without ``whole``."""
        of_label = {BIT[name]: words for name, words in part["adjectives"].items() if BIT[name] & known}
        tails = {BIT[name]: words for name, words in part.get("tails", {}).items() if BIT[name] & known}
        if not of_label:
            return
        own = sum(of_label)
        slots = ("HAVE", part["slot"]) if "slot" in part else ("HAVE",)
        for noun, words in itertools.product(part["nouns"], itertools.product(*of_label.values())):
            text = " ".join((*words, noun))
            text = f"{_article(text)} {text}" if part.get("article") else text
            is_ = f"{his} {noun} {'are' if noun.endswith('s') else 'is'} {' and '.join(words)}"
            if not whole:
                made["IS"].append(self._phrase(is_, own | bit, own))
            for end, label in _ends(tails):
                if label & whole == whole:
                    for slot in slots:
                        made[slot].append(self._phrase(text + end, own | label, own | whole))

    def _phrase(self, text: str, bits: int = 0, family: int = 0) -> Phrase:
        words = text.split()
        costs = tuple(words.count(word) for word in self.in_sentence)
        once = sum(1 << i for i, group in enumerate(self.once) if group & set(words))
        return Phrase(text, bits, family & ~GENDER_BITS, costs, once)


def _article(text: str) -> str:
    return "an" if text[0] in _VOWELS else "a"


def _barred(entry: Mapping[str, Any], known: int) -> bool:
    return any(BIT[other] & known for other in entry.get("unless", ()))


def _ends(tails: Mapping[int, Sequence[str]]) -> Iterator[tuple[str, int]]:
    """What may follow a noun: nothing or a tail ("with bangs"), and the label (bit) that it says."""
    yield "", 0
    for label, texts in tails.items():
        yield from ((f" {text}", label) for text in texts)
