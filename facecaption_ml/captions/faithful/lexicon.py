"""The lexicon as a trie of words: which phrases say something about a face, and how (``lexicon.toml``)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum, auto
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from facecaption_ml.captions.faithful.wordings import Wording, has_alternatives
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
_HAIR: Final = sum(
    BIT[name] for name in ("Bangs", "Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair", "Straight_Hair", "Wavy_Hair")
) | BIT["Receding_Hairline"] | GENDER_BITS  # fmt: skip
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
    as_person: list[Claim] = field(default_factory=list)
    """Claims of an adjective that stands as a noun for somebody ("the blonde")."""
    words: tuple[str, ...] = ()
    possessive: bool = False
    mass: bool = False
    relation: bool = False
    """Names a second person after a possessive ("her husband")."""


class Lexicon:
    """Phrases by their first word, longest first; :meth:`items` cuts a text into them."""

    def __init__(self, data: dict[str, dict]) -> None:
        self._entries: dict[tuple[str, ...], Entry] = {}
        self._classes: dict[str, str] = data.get("classes", {})
        self._lengths: dict[str, list[int]] = {}
        self._wordings: dict[str, tuple[Wording, Entry]] = {}
        self._beginning: dict[str, list[tuple[Wording, Entry]]] = {}
        self._matched: dict[tuple[str, ...], Entry] = {}
        self._looked_up: dict[str, Entry | None] = {}
        self._unlisted: dict[str, tuple[Entry, ...]] = {}
        self._heads: dict[str, dict[str, int]] = {}
        for part, phrases in data["heads"].items():
            for entry in self._each(phrases):
                entry.head = part
        for role, phrases in data["words"].items():
            for entry in self._each(phrases):
                if role in ("possessive", "mass", "relation"):
                    setattr(entry, role, True)
                else:
                    entry.role = role
        beards = {"bare": Bearing.CLEAN_SHAVEN, "beard": Bearing.BEARD, "growth": Bearing.FACIAL_HAIR}
        for key, bearing in beards.items():
            for entry in self._each(data["beard"][key]):
                entry.claims.append(Claim(BIT["No_Beard"], bearing))
        for attribute, ways in data["attributes"].items():
            self._attribute(attribute, ways)
        for part, phrases in data["fits"].items():
            for entry in self._each(phrases):
                entry.of.setdefault(part, [])
        for words, entry in self._entries.items():
            self._complete(words, entry)
            lengths = self._lengths.setdefault(words[0], [])
            if len(words) not in lengths:
                lengths.append(len(words))
        for lengths in self._lengths.values():
            lengths.sort(reverse=True)

    def _attribute(self, attribute: str, ways: dict) -> None:
        if attribute not in BIT:
            raise ValueError(f"lexicon.toml: attributes.{attribute}: no such attribute")
        bit = BIT[attribute]
        for key, bearing in (("says", Bearing.SAYS), ("denied_by", Bearing.DENIES), ("hints", Bearing.HINTS)):
            for entry in self._each(ways.get(key, ())):
                entry.claims.append(Claim(bit, bearing))
        for key, bearing in (("with", Bearing.SAYS), ("denied_with", Bearing.DENIES)):
            for part, phrases in ways.get(key, {}).items():
                for entry in self._each(phrases):
                    entry.of.setdefault(part, []).append(Claim(bit, bearing))
        for key in ("before", "behind"):
            for part, phrases in ways.get(key, {}).items():
                for entry in self._each(phrases):
                    getattr(entry, key).setdefault(part, []).append(Claim(bit, Bearing.SAYS))
        for entry in self._each(ways.get("as_person", ())):
            entry.as_person.append(Claim(bit, Bearing.SAYS))

    def _complete(self, words: tuple[str, ...], entry: Entry) -> Entry:
        """What a phrase says by the words in it: a gender ("his", "woman"), the part of the face that it begins with."""
        for word in words if len(words) > 1 else ():
            inner = self._entries.get((word,))
            gender = [c for c in inner.claims if c.attribute & GENDER_BITS] if inner else []
            entry.claims += [c for c in gender if c not in entry.claims]
        if len(words) > 1 and entry.claims and not (entry.head or entry.role or entry.of):
            # "eyes underlined by bags" is a noun like "eyes"; but "hair on his chin" is no hair, and "eye bags" are no eyes
            first, second = self._entries.get(words[:1]), self._entries.get(words[1:])
            head = first.head if first and not (second and second.head) else ""
            of_the_head = head != "hair" or all(claim.attribute & _HAIR for claim in entry.claims)
            entry.head = head if head not in ("person", "other", "photo", "looks") and of_the_head else ""
        if "hair" in entry.of:  # bangs are hair: "brown bangs"
            entry.of.setdefault("bangs", entry.of["hair"])
        entry.words = words
        entry.mass = entry.mass or words[-1].endswith("s")
        return entry

    def _each(self, phrases: Iterable[str]) -> Iterator[Entry]:
        """The entries of phrases; one for all wordings of a phrase with alternatives."""
        for phrase in dict.fromkeys(phrases):
            if not has_alternatives(phrase):
                yield self._entries.setdefault(tuple(tokens(phrase)), Entry())
                continue
            if phrase not in self._wordings:
                found = self._wordings[phrase] = Wording(phrase, self._classes), Entry()
                for word in found[0].first_words:
                    self._beginning.setdefault(word, []).append(found)
            yield self._wordings[phrase][1]

    def _longest(self, words: list[str], at: int, text: str, start: int) -> Entry | None:
        """The entry of the longest phrase that begins at a word; ``start``: where it begins in ``text``, the words joined."""
        word, longest, found = words[at], 0, list[Entry]()
        for length in self._lengths.get(word, ()):
            if entry := self._entries.get(tuple(words[at : at + length])):
                longest, found = len(entry.words), [entry]
                break
        for wording, entry in self._beginning.get(word, ()):
            length = wording.length_at(text, start)
            if length > longest:
                longest, found = length, []
            found += [entry] if length and length == longest else []
        if not found or (len(found) == 1 and found[0].words):
            return found[0] if found else None
        return self._joined(tuple(words[at : at + longest]), found)

    def _joined(self, words: tuple[str, ...], entries: list[Entry]) -> Entry:
        """One entry for a phrase that several entries know, or one with alternatives."""
        if words not in self._matched:
            if len(self._matched) >= _MOST_UNLISTED:
                self._matched.clear()
            joined = Entry(
                role=next((e.role for e in entries if e.role), ""), head=next((e.head for e in entries if e.head), "")
            )
            for entry in entries:
                joined.claims += [claim for claim in entry.claims if claim not in joined.claims]
                for part in ("of", "before", "behind"):
                    for head, claims in getattr(entry, part).items():
                        getattr(joined, part).setdefault(head, []).extend(claims)
            self._matched[words] = self._complete(words, joined)
        return self._matched[words]

    def items(self, words: list[str]) -> list[Entry]:
        """The words as phrases of the lexicon, the longest first; an unknown word or punctuation becomes an empty entry."""
        items: list[Entry] = []
        text = " ".join(words)
        at, start = 0, 0
        while at < len(words):
            entry = self._longest(words, at, text, start)
            if entry is None:
                mark = _PUNCTUATION.get(words[at])
                items += (mark,) if mark else self._unlisted.get(words[at]) or self._unknown(words[at])
            else:
                items.append(entry)
            for word in words[at : at + (len(entry.words) if entry else 1)]:
                at, start = at + 1, start + len(word) + 1
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
