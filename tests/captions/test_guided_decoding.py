"""Guided decoding keeps any writer faithful: here the writer is dice, so that nothing but the constraint does the work."""

from __future__ import annotations

import itertools
import random
import re
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml.captions import check_faithful, template_caption
from facecaption_ml.captions.faithful.lexicon import bundled_lexicon
from facecaption_ml.captions.guided.constraint import Constraint, PunctuationTokens
from facecaption_ml.captions.rewrite.prompt import RewritingPrompt
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
    """Write one text by chance: any allowed token, another one where the constraint turns it down.

    Every second draw tries tokens first that lead to what is not yet said; writers that never care mostly run out of words.
    """
    rng, encode = random.Random(seed), Pieces(letters)
    constraint = Constraint(template, labels, gender, VOCABULARY, encode, PunctuationTokens(COMMA, DOT, END))
    ids: list[int] = []
    while not constraint.done:
        offers = list(constraint.allowed().items())
        rng.shuffle(offers)
        if rng.random() < 0.5:
            offers.sort(key=lambda offer: not constraint.adds_missing_label(offer[1]))
        token = next((token for token, node in offers if constraint.accept(token, node)), None)
        if token is None:
            break
        ids.append(token)
        assert len(ids) < MOST_TOKENS, constraint.text
    return Written(constraint.text, constraint.done, encode.spelt(ids))


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9'-]+", text.lower())


def assert_keeps_the_rules(written: Written, template: str, labels: list[str], gender: Gender | None) -> None:
    text, words = written.text, words_of(written.text)
    at_hand = set(VOCABULARY.words(template, [name for name in labels if name != "Male"], gender))
    assert set(words) <= at_hand, (text, set(words) - at_hand)
    assert len(words) <= 2 * len(template.split()) + 30, text
    assert not [word for word, following in itertools.pairwise(words) if word == following], text
    # nor "a big glasses"
    for start in (i for i, word in enumerate(words) if word in ("a", "an")):
        noun = next((w for w in words[start + 1 :] if not bundled_lexicon().heads_of(w)), "")
        assert noun not in VOCABULARY.no_article, (noun, text)
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
        judgement = check_faithful(text, labels, gender)
        assert judgement.faithful, (text, labels, gender, judgement)
        assert written.spelt == text
        assert text.endswith(".")
        for sentence in text[:-1].split(". "):
            assert sentence[0].isupper(), text


@examples(120)
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


def test_a_word_that_would_invent_a_label_is_never_offered() -> None:
    constraint = Constraint(
        "A smiling man.", ["Male", "Smiling"], "male", VOCABULARY, Pieces(40), PunctuationTokens(COMMA, DOT, END)
    )
    offered = {word for node in constraint.allowed().values() if node for word in node.words}
    assert "smiling" in offered
    assert not offered & {"she", "woman", "blond", "young", "bald", "hat"}


def test_a_fair_share_of_the_dice_comes_to_an_end() -> None:
    draw, done = random.Random(5), 0
    for seed in range(100):
        gender = draw.choice(GENDERS)
        labels = settled(draw.sample(OTHERS, draw.randint(0, 8)), gender)
        done += throw_dice(template_caption(labels, gender, seed), labels, gender, seed).done
    assert done >= 10


SAYABLE = [
    pytest.param(name, gender, id=f"{name}-{gender}")
    for name in OTHERS
    for gender in GENDERS
    if name in settled([name], gender)
]


@pytest.mark.parametrize(("name", "gender"), SAYABLE)
def test_every_attribute_can_be_said(name: str, gender: Gender | None) -> None:
    labels = settled([name], gender)
    tries = (throw_dice(template_caption(labels, gender, seed), labels, gender, seed) for seed in range(120))
    written = next((found for found in tries if found.done), None)
    assert written, f"the constraint leads no text about {name} to its end"
    assert check_faithful(written.text, labels, gender).faithful
