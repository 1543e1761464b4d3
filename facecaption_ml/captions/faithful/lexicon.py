"""The lexicon as a trie of words: which phrases say something about a face, and how (``lexicon.toml``)."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from facecaption_ml.captions.labels import BIT, FEMALE_BIT, MALE_BIT

# How a phrase bears on an attribute. HINT: too little to assert it. BEARD and GROWTH: any beard, any facial hair, which
# are no attributes but contradict No_Beard and are No_Beard where negated. BARE: says that there is none.
SAYS, DENIES, HINT, BEARD, GROWTH, BARE = range(6)
Claim = tuple[int, int]
"""An attribute (bit) and how a phrase bears on it."""

_TOKEN = re.compile(r"[a-z0-9&]+(?:'[a-z]+)?|[.!?;:,]|\n|(?<=\s)[-–—]+(?=\s)|[–—]")
_CONTRACTED: Final = {"'s": "is", "'re": "are", "'ve": "have"}
_PRONOUNS: Final = frozenset({"he", "she", "they", "who", "that", "it", "there", "person"})


@dataclass
class Entry:
    """What one phrase is: small-word role, part of the face, adjective claims by part, claims of its own."""

    role: str = ""
    head: str = ""
    claims: list[Claim] = field(default_factory=list)
    of: dict[str, list[Claim]] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    possessive: bool = False
    mass: bool = False


class Lexicon:
    """Phrases by their first word, longest first; :meth:`items` cuts a text into them."""

    def __init__(self, data: dict[str, dict]) -> None:
        self._entries: dict[tuple[str, ...], Entry] = {}
        self._by_first: dict[str, list[tuple[tuple[str, ...], Entry]]] = {}
        for part, phrases in data["heads"].items():
            for phrase in phrases:
                self._entry(phrase).head = part
        for role, phrases in data["words"].items():
            for phrase in phrases:
                entry = self._entry(phrase)
                if role == "possessive":
                    entry.possessive = True
                elif role == "mass":
                    entry.mass = True
                else:
                    entry.role = role
        for key, kind in (("bare", BARE), ("beard", BEARD), ("growth", GROWTH)):
            for phrase in data["beard"][key]:
                self._claim(phrase, (BIT["No_Beard"], kind))
        for attribute, ways in data["attributes"].items():
            self._attribute(attribute, ways)
        self._inherit_gender()
        for words, entry in self._entries.items():
            entry.words = words
            entry.mass = entry.mass or words[-1].endswith("s")
            self._by_first.setdefault(words[0], []).append((words[1:], entry))
        for phrases in self._by_first.values():
            phrases.sort(key=lambda p: -len(p[0]))

    def _attribute(self, attribute: str, ways: dict) -> None:
        if attribute not in BIT:
            raise ValueError(f"lexicon.toml: attributes.{attribute}: no such attribute")
        bit = BIT[attribute]
        for key, kind in (("says", SAYS), ("denied_by", DENIES), ("hints", HINT)):
            for phrase in ways.get(key, ()):
                self._claim(phrase, (bit, kind))
        for key, kind in (("with", SAYS), ("denied_with", DENIES)):
            for part, phrases in ways.get(key, {}).items():
                for phrase in phrases:
                    self._entry(phrase).of.setdefault(part, []).append((bit, kind))

    def _inherit_gender(self) -> None:
        """A phrase with "his" or "woman" inside says the gender as well."""
        for words, entry in self._entries.items():
            for word in words if len(words) > 1 else ():
                inner = self._entries.get((word,))
                gender = [c for c in inner.claims if c[0] in (MALE_BIT, FEMALE_BIT)] if inner else []
                entry.claims += [c for c in gender if c not in entry.claims]

    def _entry(self, phrase: str) -> Entry:
        words = tuple(tokens(phrase))
        return self._entries.setdefault(words, Entry())

    def _claim(self, phrase: str, claim: Claim) -> None:
        self._entry(phrase).claims.append(claim)

    def items(self, words: list[str]) -> list[Entry]:
        """The words as phrases of the lexicon, the longest first; an unknown word or punctuation becomes an empty entry."""
        found: list[Entry] = []
        at, count = 0, len(words)
        while at < count:
            word = words[at]
            for rest, entry in self._by_first.get(word, ()):
                if not rest or tuple(words[at + 1 : at + 1 + len(rest)]) == rest:
                    found.append(entry)
                    at += 1 + len(rest)
                    break
            else:
                found.append(_PUNCTUATION.get(word) or self._unknown(word))
                at += 1
        return found

    def waits_for_noun(self, word: str) -> bool:
        """An adjective that says something only of a noun ("wavy")."""
        return bool(self.heads_of(word))

    def heads_of(self, word: str) -> dict[str, int]:
        """The parts of the face of which an adjective says something → what (bits); empty for other words."""
        entry = self._entries.get(tuple(tokens(word)))
        if entry is None or entry.claims or entry.head:
            return {}
        return {part: bits for part, claims in entry.of.items() if (bits := _said(claims))}

    def part_of(self, word: str) -> str:
        """The part of the face that a noun names, or ""."""
        entry = self._entries.get(tuple(tokens(word)))
        return entry.head if entry else ""

    def says_alone(self, word: str) -> bool:
        """A word that says something wherever it stands ("earrings")."""
        entry = self._entries.get(tuple(tokens(word)))
        return bool(entry and entry.claims)

    def is_noun(self, word: str) -> bool:
        """A noun of the lexicon: a part of the face, or a thing that says something by itself."""
        entry = self._entries.get(tuple(tokens(word)))
        gender = MALE_BIT | FEMALE_BIT
        return bool(entry and (entry.head or any(not bit & gender for bit, kind in entry.claims)))

    def _unknown(self, word: str) -> Entry:
        if word.endswith("less") and (stem := self._entries.get((word[:-4],))) and stem.claims:
            return Entry(claims=[(bit, DENIES) for bit, kind in stem.claims if kind == SAYS], words=(word,))
        return _UNKNOWN


def _said(claims: list[Claim]) -> int:
    bits = 0
    for bit, kind in claims:
        bits |= bit if kind == SAYS else 0
    return bits


_UNKNOWN: Final = Entry(role="unknown")
_STOP: Final = Entry(role="stop")
_COMMA: Final = Entry(role="comma")
_PUNCTUATION: Final = {
    **dict.fromkeys(".!?\n", _STOP),
    **dict.fromkeys((";", ":", "-", "--", "–", "—"), _STOP),
    ",": _COMMA,
}


def tokens(text: str) -> list[str]:
    """Lower-case words and punctuation: hyphens split words, contractions become two words, possessive 's goes."""
    plain = text.lower().replace("’", "'").replace("‘", "'")
    if "-" in plain:
        plain = re.sub(r"(?<=\w)[-‑](?=\w)", " ", plain)
    found = _TOKEN.findall(plain)
    if "'" not in plain:
        return found
    words: list[str] = []
    for word in found:
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
