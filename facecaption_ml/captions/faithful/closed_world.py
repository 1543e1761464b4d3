"""What a rewrite says beyond its labels: the closed world (spec §1; ``vocabulary.toml`` explains what is allowed).

The faithfulness check knows 40 attributes and nothing else: "She is Asian" asserts none of them. Here every word has to be
accounted for. A word may stand in a rewrite where it

- belongs to a wording of the lexicon that asserts an attribute and says no more than that,
- belongs to the grammar of the templates, to the template at hand or to an example of the prompt,
- or is listed: function words, words that present a face, parts of the face that one of the labels is about.

Adjectives of the lexicon must besides modify what they assert something of: "black hair", not "black hat". Capitals inside a
sentence are names. Patterns refuse what allowed words can make up together ("smiling at", "over her ears").
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from facecaption_ml.captions.faithful.lexicon import Bearing, Entry, bundled_lexicon, tokens
from facecaption_ml.captions.faithful.parser import Mentions, parse
from facecaption_ml.captions.labels import BIT
from facecaption_ml.captions.template.grammar import BUNDLED

_ALWAYS: Final = -1
_NEVER: Final = 0
_TERMINAL: Final = re.compile(r"""'([^']*)'|"([^"]*)\"""")
_NAME: Final = re.compile(r"(?<=[a-z,] )(?!I\b)[A-Z][\w'’-]*")
_PICTURES: Final = "photo|photos|photograph|picture|image|portrait|shot|snapshot|headshot|closeup|up|view|sight"
_OF: Final = re.compile(rf"\b(?!(?:{_PICTURES})\b)[a-z]+ of (?:[a-z]+ ){{0,4}}$")
_ASSERTING: Final = frozenset(Bearing) - {Bearing.DENIES}


class ClosedWorld:
    """The words that need no label, those that need one, and those that never stand; made once, used for many texts.

    ``more``: texts whose words are allowed besides (rewrites of the prompt's examples).
    """

    def __init__(self, data: dict[str, dict[str, str]], grammar: str, more: Iterable[str] = ()) -> None:
        classes = data["classes"]
        self._listed: dict[tuple[str, ...], int] = {}
        for text in (_terminals(grammar), *more):
            self._listed.update(dict.fromkeys(((word,) for word in tokens(text)), _ALWAYS))
        for words in data["words"].values():
            self._listed.update(dict.fromkeys(map(_phrase, words.split()), _ALWAYS))
        for words in data["verbs"].values():
            forms = (form for verb in words.split() for form in _inflected(verb))
            self._listed.update({(form,): _ALWAYS for form in forms})
        needs = {_phrase(word): labels for word, labels in data["needs"].items()}
        self._needs = {
            phrase: sum(BIT[name] for name in labels.replace("<hair>", classes["labels_of_hair"]).split())
            for phrase, labels in needs.items()
        }
        phrases = [*((words, _ALWAYS) for words in self._listed), *self._needs.items()]
        self._phrases: dict[str, list[tuple[tuple[str, ...], int]]] = {}
        for phrase, status in phrases:
            if len(phrase) > 1:
                self._phrases.setdefault(phrase[0], []).append((phrase, status))
        self._beyond = {_phrase(words) for group in data["beyond"].values() for words in group.split()}
        self._status: dict[tuple[str, ...], int] = {}
        acts = [form for verb in data["verbs"]["of_parts"].split() for form in _inflected(verb)[1:3]]  # "-s" and "-ing"
        self._patterns = _patterns(data["patterns"], classes)
        self._of_persons = _patterns(data["patterns_of_persons"], {**classes, "acts": " ".join(acts)})

    def beyond(self, text: str, mentions: Mentions, known: int, template: str = "") -> tuple[str, ...]:
        """The words, in their order, with which a text says more than the labels ``known`` (bits) give; () where none.

        ``mentions``: the text as the parser reads it. ``template``: the text that it rewrites; what that one has invents
        nothing (a grammar of one's own has words of its own).
        """
        found: dict[str, None] = {}
        at, allowed = 0, self._inside_phrases([word for item in mentions.items for word in item.words or (",",)], known)
        for item in mentions.items:
            at += len(item.words) or 1
            status = self._status.get(item.words)
            if status is None:
                status = self._status[item.words] = self._status_of(item)
            if status == _ALWAYS or status & known:
                continue
            if item.words in self._beyond or not all(i in allowed for i in range(at - len(item.words), at)):
                found[" ".join(item.words)] = None
        for adjective, noun in mentions.unfit:
            found[" ".join((*adjective.words, noun)).strip()] = None
        if name := _NAME.search(text):
            found[name.group()] = None
        words = " ".join([word for item in mentions.items for word in item.words or (",",)])
        for match in (self._patterns.search(words), self._of_a_person(words)):
            if match:
                found[match.group()] = None
        if found and template:
            given = self.beyond(template, parse(template, bundled_lexicon()), known)
            return tuple(words for words in found if words not in given)
        return tuple(found)

    def _of_a_person(self, words: str) -> re.Match[str] | None:
        """What a person is said to do; not where one stands behind "of": "the smile of this man leaves his mouth open"."""
        matches = self._of_persons.finditer(words)
        return next((match for match in matches if not _OF.search(words, 0, match.start())), None)

    def _inside_phrases(self, words: list[str], known: int) -> set[int]:
        """The places of words that belong to a listed phrase of several ("at the corners of"), which may stand as a whole."""
        inside: set[int] = set()
        for at, word in enumerate(words):
            for phrase, status in self._phrases.get(word, ()):
                if (status == _ALWAYS or status & known) and tuple(words[at : at + len(phrase)]) == phrase:
                    inside.update(range(at, at + len(phrase)))
        return inside

    def _status_of(self, item: Entry) -> int:
        words = item.words
        if not words:
            return _ALWAYS
        if words in self._needs:
            return self._needs[words]
        if words in self._beyond:
            return _NEVER
        claims = [*item.claims, *(c for part in (item.of, item.before) for said in part.values() for c in said)]
        if any(claim.bearing in _ASSERTING for claim in claims) or (item.of and not claims):
            return _ALWAYS
        if claims:
            return self._listed.get(words, _NEVER)
        if words in self._listed:
            return _ALWAYS
        return _ALWAYS if all((word,) in self._listed for word in words) else _NEVER


def closed_world(more: Iterable[str] = ()) -> ClosedWorld:
    """The closed world that comes with the package: ``vocabulary.toml`` and the bundled grammar's words."""
    with Path(__file__).with_name("vocabulary.toml").open("rb") as file:
        data: dict[str, Any] = tomllib.load(file)
    return ClosedWorld(data, BUNDLED.read_text(encoding="utf-8"), more)


def _phrase(words: str) -> tuple[str, ...]:
    return tuple(tokens(words.replace("_", " ")))


def _terminals(grammar: str) -> str:
    """The words of a grammar file: what stands between quotes outside its remarks."""
    lines = (line for line in grammar.splitlines() if not line.lstrip().startswith("#"))
    return " ".join(a or b for a, b in _TERMINAL.findall("\n".join(lines)))


def _inflected(verb: str) -> list[str]:
    """A regular verb with its -s, -ing and -ed."""
    stem = verb.removesuffix("e")
    if re.search(r"[^aeiou][aeiou][nptgmb]$", verb) and verb not in _UNDOUBLED:
        stem = verb + verb[-1]
    third = (
        f"{verb}es"
        if re.search(r"(s|sh|ch|x)$", verb)
        else f"{verb[:-1]}ies"
        if re.search(r"[^aeiou]y$", verb)
        else f"{verb}s"
    )
    past = f"{verb[:-1]}ied" if re.search(r"[^aeiou]y$", verb) else f"{stem}ed"
    return [verb, third, f"{stem}ing", past]


_UNDOUBLED: Final = frozenset(
    {
        "open",
        "darken",
        "soften",
        "deepen",
        "brighten",
        "lighten",
        "redden",
        "thicken",
        "fatten",
        "broaden",
        "widen",
        "heighten",
    }
    | {"straighten", "sharpen", "strengthen", "loosen", "visit", "limit", "exhibit", "edit", "happen"}
)


def _patterns(patterns: dict[str, str], classes: dict[str, str]) -> re.Pattern[str]:
    alternatives = "|".join(f"(?:{pattern})" for pattern in patterns.values())
    for name, words in classes.items():
        alternatives = alternatives.replace(f"<{name}>", f"(?:{'|'.join(words.split())})")
    return re.compile(rf"\b(?:{alternatives})\b")
