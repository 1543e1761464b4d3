"""The lexicon as a trie of words: which phrases say something about a face, and how (``lexicon.toml``)."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from enum import IntEnum, auto
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from facecaption_ml.captions.labels import BIT, GENDER_BITS


class Bearing(IntEnum):
    """How a phrase bears on an attribute."""

    SAYS = auto()
    DENIES = auto()
    HINTS = auto()
    """Too little to assert it, too much where it is no label ("makeup" for Heavy_Makeup)."""
    BEARD = auto()
    """Any beard ("bearded"), for No_Beard: contradicts it, and says it where negated."""
    FACIAL_HAIR = auto()
    """Any hair on the face, for No_Beard: contradicts it where no label of facial hair holds, and says it where negated."""
    CLEAN_SHAVEN = auto()
    """No hair on the face at all, for No_Beard: says it and rules every facial hair out."""


class Claim(NamedTuple):
    """What a phrase says of one attribute (a bit)."""

    attribute: int
    bearing: Bearing


_TOKEN = re.compile(r"[a-z0-9&]+(?:'[a-z]+)?|[.!?;:,]|\n|(?<=\s)[-–—]+(?=\s)|[–—]")
_CONTRACTED: Final = {"'s": "is", "'re": "are", "'ve": "have"}
_PRONOUNS: Final = frozenset({"he", "she", "they", "who", "that", "it", "there"})


@dataclass
class Entry:
    """What one phrase is: small-word role, part of the face, adjective claims by part, claims of its own."""

    role: str = ""
    head: str = ""
    claims: list[Claim] = field(default_factory=list)
    of: dict[str, list[Claim]] = field(default_factory=dict)
    before: dict[str, list[Claim]] = field(default_factory=dict)
    """Claims that hold where the next noun is this part of the face ("bags under", of the eyes)."""
    behind: dict[str, list[Claim]] = field(default_factory=dict)
    """Claims that hold where this part of the face is named behind "under" before ("below his eyes are bags")."""
    words: tuple[str, ...] = ()
    possessive: bool = False
    mass: bool = False
    relation: bool = False
    """Names a second person after a possessive ("her husband")."""


class Lexicon:
    """Phrases by their first word, longest first; :meth:`items` cuts a text into them."""

    def __init__(self, data: dict[str, dict]) -> None:
        self._entries: dict[tuple[str, ...], Entry] = {}
        self._by_first: dict[str, list[tuple[tuple[str, ...], Entry]]] = {}
        self._looked_up: dict[str, Entry | None] = {}
        self._unlisted: dict[str, tuple[Entry, ...]] = {}
        self._heads: dict[str, dict[str, int]] = {}
        for part, phrases in data["heads"].items():
            for phrase in phrases:
                self._entry(phrase).head = part
        for role, phrases in data["words"].items():
            for phrase in phrases:
                entry = self._entry(phrase)
                if role in ("possessive", "mass", "relation"):
                    setattr(entry, role, True)
                else:
                    entry.role = role
        beards = {"bare": Bearing.CLEAN_SHAVEN, "beard": Bearing.BEARD, "growth": Bearing.FACIAL_HAIR}
        for key, bearing in beards.items():
            for phrase in data["beard"][key]:
                self._entry(phrase).claims.append(Claim(BIT["No_Beard"], bearing))
        for attribute, ways in data["attributes"].items():
            self._attribute(attribute, ways)
        for part, phrases in data["fits"].items():
            for phrase in phrases:
                self._entry(phrase).of.setdefault(part, [])
        self._inherit_gender()
        for words, entry in self._entries.items():
            if "hair" in entry.of:  # bangs are hair: "brown bangs"
                entry.of.setdefault("bangs", entry.of["hair"])
            entry.words = words
            entry.mass = entry.mass or words[-1].endswith("s")
            self._by_first.setdefault(words[0], []).append((words[1:], entry))
        for phrases in self._by_first.values():
            phrases.sort(key=lambda p: -len(p[0]))

    def _attribute(self, attribute: str, ways: dict) -> None:
        if attribute not in BIT:
            raise ValueError(f"lexicon.toml: attributes.{attribute}: no such attribute")
        bit = BIT[attribute]
        for key, bearing in (("says", Bearing.SAYS), ("denied_by", Bearing.DENIES), ("hints", Bearing.HINTS)):
            for phrase in ways.get(key, ()):
                self._entry(phrase).claims.append(Claim(bit, bearing))
        for key, bearing in (("with", Bearing.SAYS), ("denied_with", Bearing.DENIES)):
            for part, phrases in ways.get(key, {}).items():
                for phrase in phrases:
                    self._entry(phrase).of.setdefault(part, []).append(Claim(bit, bearing))
        for key in ("before", "behind"):
            for part, phrases in ways.get(key, {}).items():
                for phrase in phrases:
                    getattr(self._entry(phrase), key).setdefault(part, []).append(Claim(bit, Bearing.SAYS))

    def _inherit_gender(self) -> None:
        """A phrase with "his" or "woman" inside says the gender as well."""
        for words, entry in self._entries.items():
            for word in words if len(words) > 1 else ():
                inner = self._entries.get((word,))
                gender = [c for c in inner.claims if c.attribute & GENDER_BITS] if inner else []
                entry.claims += [c for c in gender if c not in entry.claims]

    def _entry(self, phrase: str) -> Entry:
        return self._entries.setdefault(tuple(tokens(phrase)), Entry())

    def items(self, words: list[str]) -> list[Entry]:
        """The words as phrases of the lexicon, the longest first; an unknown word or punctuation becomes an empty entry."""
        items: list[Entry] = []
        at, count = 0, len(words)
        while at < count:
            word = words[at]
            for rest, entry in self._by_first.get(word, ()):
                if not rest or tuple(words[at + 1 : at + 1 + len(rest)]) == rest:
                    items.append(entry)
                    at += 1 + len(rest)
                    break
            else:
                mark = _PUNCTUATION.get(word)
                items += (mark,) if mark else self._unlisted.get(word) or self._unknown(word)
                at += 1
        return items

    def _lookup(self, word: str) -> Entry | None:
        if word not in self._looked_up:
            self._looked_up[word] = self._entries.get(tuple(tokens(word)))
        return self._looked_up[word]

    def heads_of(self, word: str) -> dict[str, int]:
        """The parts of the face of which an adjective says something → what (bits); empty for other words."""
        if word not in self._heads:
            entry = self._lookup(word)
            of = entry.of if entry and not entry.claims and not entry.head else {}
            said = {part: {c.attribute for c in claims if c.bearing is Bearing.SAYS} for part, claims in of.items()}
            self._heads[word] = {part: sum(bits) for part, bits in said.items() if bits}
        return self._heads[word]

    def part_of(self, word: str) -> str:
        """The part of the face that a noun names, or ""."""
        entry = self._lookup(word)
        return entry.head if entry else ""

    def says_alone(self, word: str) -> bool:
        """A word that says something wherever it stands ("earrings")."""
        entry = self._lookup(word)
        return bool(entry and entry.claims)

    def is_noun(self, word: str) -> bool:
        """A noun of the lexicon: a part of the face, or a thing that says something by itself."""
        entry = self._lookup(word)
        return bool(entry and (entry.head or any(not claim.attribute & GENDER_BITS for claim in entry.claims)))

    def _unknown(self, word: str) -> tuple[Entry, ...]:
        """What a word is that is not listed: two words written as one, a noun with "less", or nothing known."""
        if len(self._unlisted) >= _MOST_UNLISTED:
            self._unlisted.clear()
        self._unlisted[word] = self._two_in_one(word) or (self._lacking(word),)
        return self._unlisted[word]

    def _two_in_one(self, word: str) -> tuple[Entry, ...]:
        """ "cleanshaven", "rosycheeked": a phrase, or an adjective and a noun that it fits."""
        for cut in range(3, len(word) - 2):
            first, second = word[:cut], word[cut:]
            if phrase := self._entries.get((first, second)):
                return (phrase,)
            adjective, noun = self._entries.get((first,)), self._entries.get((second,))
            if adjective and noun and noun.head in adjective.of and second.endswith("ed"):
                return adjective, noun
        return ()

    def _lacking(self, word: str) -> Entry:
        """ "hatless" denies what "hat" asserts."""
        stem = self._entries.get((word.removesuffix("less"),)) if word.endswith("less") else None
        denials = [Claim(c.attribute, Bearing.DENIES) for c in stem.claims if c.bearing is Bearing.SAYS] if stem else []
        return Entry(claims=denials, words=(word,)) if denials else Entry(role="unknown", words=(word,))


_MOST_UNLISTED: Final = 50_000  # words that no phrase begins with, kept for the next text
_STOP: Final = Entry(role="stop")
COLON: Final = Entry(role="stop")
_COMMA: Final = Entry(role="comma")
_PUNCTUATION: Final = {
    **dict.fromkeys(".!?\n", _STOP),
    **dict.fromkeys((";", "-", "--", "–", "—"), _STOP),
    ":": COLON,
    ",": _COMMA,
}


def tokens(text: str) -> list[str]:
    """Lower-case words and punctuation: hyphens split words, contractions become two words, possessive 's goes."""
    plain = text.lower().replace("’", "'").replace("‘", "'")
    if "-" in plain:
        plain = re.sub(r"(?<=\w)[-‑](?=\w)", " ", plain)
    split: list[str] = _TOKEN.findall(plain)
    if "'" not in plain:
        return split
    words: list[str] = []
    for word in split:
        stem, mark, tail = word.partition("'")
        if not mark or word == "o'clock":
            words.append(word)
        elif tail == "t" and stem.endswith("n"):
            words += [stem[:-1], "not"] if stem != "can" else ["can", "not"]
        elif "'" + tail in _CONTRACTED and (tail != "s" or stem in _PRONOUNS):
            words += [stem, _CONTRACTED["'" + tail]]
        else:
            words.append(stem)
    return words


@cache
def bundled_lexicon() -> Lexicon:
    """The lexicon that comes with the package, read at first use."""
    with Path(__file__).with_name("lexicon.toml").open("rb") as file:
        return Lexicon(tomllib.load(file))
