"""Guided decoding keeps any writer faithful: here the writer is dice, so that nothing but the guide does the work."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facecaption_ml.captions import check_faithful, template_caption
from facecaption_ml.captions.guidance import Guide, Marks
from facecaption_ml.captions.lexicon import bundled_lexicon, tokens
from facecaption_ml.captions.prompt import RewritingPrompt
from facecaption_ml.taxonomy import ATTRIBUTES, FEMALE, Gender, settle_conflicts

OTHERS = [name for name in ATTRIBUTES if name != "Male"]
GENDERS: tuple[Gender | None, ...] = ("male", "female", None)
VOCABULARY = RewritingPrompt.load().vocabulary
COMMA, DOT, END = 0, 1, 2
MOST_TOKENS = 1500


class Pieces:
    """A tokenizer that cuts a text into pieces of so many letters; words that begin alike share their first tokens."""

    def __init__(self, letters: int) -> None:
        self.letters = letters
        self.ids: dict[str, int] = {}

    def __call__(self, text: str) -> tuple[int, ...]:
        pieces = [text[i : i + self.letters] for i in range(0, len(text), self.letters)]
        return tuple(self.ids.setdefault(piece, len(self.ids) + 10) for piece in pieces)

    def spelt(self, ids: list[int]) -> str:
        piece_of = {number: piece for piece, number in self.ids.items()} | {COMMA: ",", DOT: ".", END: ""}
        return "".join(piece_of[number] for number in ids)


@dataclass
class Written:
    text: str
    done: bool
    spelt: str  # what the accepted tokens spell


def settled(labels: list[str], gender: Gender | None) -> list[str]:
    """Consistent labels of that gender; Male among them, FEMALE not."""
    known = {"male": ["Male"], "female": [FEMALE], None: []}[gender]
    return [name for name in settle_conflicts([*labels, *known])[0] if name != FEMALE]


def throw_dice(template: str, labels: list[str], gender: Gender | None, seed: int, letters: int = 4) -> Written:
    """Write one text by chance: any allowed token, another one where the guide turns it down.

    Every second draw tries tokens first that lead to what is not yet said; writers that never care mostly run out of words.
    """
    rng, encode = random.Random(seed), Pieces(letters)
    guide = Guide(template, labels, gender, VOCABULARY, encode, Marks(COMMA, DOT, END))
    ids: list[int] = []
    while not guide.done:
        offers = list(guide.allowed().items())
        rng.shuffle(offers)
        if rng.random() < 0.5:
            offers.sort(key=lambda offer: not guide.wanted(offer[1]))
        token = next((token for token, node in offers if guide.accept(token, node)), None)
        if token is None:
            break
        ids.append(token)
        assert len(ids) < MOST_TOKENS, guide.text
    return Written(guide.text, guide.done, encode.spelt(ids))


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9'-]+", text.lower())


def assert_keeps_the_rules(written: Written, template: str, labels: list[str], gender: Gender | None) -> None:
    text, words = written.text, words_of(written.text)
    at_hand = set(VOCABULARY.words(template, [name for name in labels if name != "Male"], gender))
    assert set(words) <= at_hand, (text, set(words) - at_hand)
    assert len(words) <= 2 * len(template.split()) + 30, text
    pairs = list(zip(words, words[1:], strict=False))
    assert not [pair for pair in pairs if pair[0] == pair[1]], text
    # also "a big glasses"
    for start in (i for i, word in enumerate(words) if word in ("a", "an")):
        noun = next((w for w in words[start + 1 :] if not bundled_lexicon().heads_of(w)), "")
        assert noun not in VOCABULARY.no_article or words[start + 1] == noun == "", (noun, text)
    assert not re.search(r"\b[Aa] [aeiou]|\b[Aa]n [^aeiou]", text), text
    assert not re.search(r" [,.]|[,.]{2}|  ", text), text
    own = {
        "male": {"he", "his", "man", "gentleman"},
        "female": {"she", "her", "woman", "lady"},
        None: {"they", "their"},
    }
    others = {word for name, some in own.items() if name is not None and name != gender for word in some}
    assert not others & set(words), text
    if written.done:
        verdict = check_faithful(text, labels, gender)
        assert verdict.faithful, (text, labels, gender, verdict)
        assert written.spelt == text
        assert text.endswith(".")
        for sentence in text[:-1].split(". "):
            assert sentence[0].isupper(), text


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.sampled_from(OTHERS), unique=True, max_size=9),
    st.sampled_from(GENDERS),
    st.integers(0, 2**32),
    st.sampled_from([1, 2, 3, 4, 40]),
)
def test_whatever_the_dice_write_to_its_end_is_faithful(
    names: list[str], gender: Gender | None, seed: int, letters: int
) -> None:
    labels = settled(names, gender)
    template = template_caption(labels, gender, seed)
    assert_keeps_the_rules(throw_dice(template, labels, gender, seed, letters), template, labels, gender)
