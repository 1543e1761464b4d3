"""The grammar file: what nltk loads is what the sampler draws from; every wording is known; errors name the line."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import nltk
import pytest

from facecaption_ml.captions import CaptionGrammar, GrammarError, find_attributes, template_caption
from facecaption_ml.captions.labels import FEMALE_BIT, MALE_BIT, names_of
from facecaption_ml.captions.template.grammar import BUNDLED
from facecaption_ml.captions.template.phrases import PhraseBook
from facecaption_ml.captions.template.productions import read_rules
from facecaption_ml.taxonomy import ATTRIBUTES

TEXT = BUNDLED.read_text(encoding="utf-8")


def accepts(grammar, caption):
    """Plain recogniser: can nltk's grammar, guards ignored, derive the caption's words?"""
    words = tuple(re.findall(r"[\w'-]+|[,.]", caption.lower()))

    @cache
    def ends(symbol, start):
        if isinstance(symbol, str):
            if symbol == "a(n)":
                return frozenset({start + 1} if words[start : start + 1] in (("a",), ("an",)) else ())
            parts = tuple(re.findall(r"[\w'-]+|[,.]", symbol.lower()))
            return frozenset({start + len(parts)} if words[start : start + len(parts)] == parts else ())
        found = set()
        for production in grammar.productions(lhs=symbol):
            at = {start}
            for part in production.rhs():
                at = {end for begin in at for end in ends(part, begin)}
            found |= at
        return frozenset(found)

    return len(words) in ends(grammar.start(), 0)


def test_every_caption_is_a_sentence_of_the_grammar_that_nltk_loads():
    grammar = nltk.PCFG.fromstring(TEXT)
    for seed in range(120):
        labels = [name for i, name in enumerate(ATTRIBUTES) if (seed * 2654435761 >> i) % 4 == 0 and name != "Male"]
        caption = template_caption(labels, ("male", "female", None)[seed % 3], seed)
        assert accepts(grammar, caption), caption
    assert not accepts(grammar, "This is a photo of a banana.")


def test_the_lexicon_knows_every_wording():
    """Each line Attr/form, in every wording, asserts the attribute: a wording the lexicon lacks shows up here by name."""
    rules = read_rules(TEXT, "face.pcfg")
    around = {
        "Wavy_Hair/adj": "{} hair", "Straight_Hair/adj": "{} hair", "Big_Nose/adj": "a {} nose", "Pointy_Nose/adj": "a {} nose",
        "Bushy_Eyebrows/adj": "{} eyebrows", "Bags_Under_Eyes/them": "narrow eyes with {}", "Big_Lips/adj": "{} lips",
        "Mouth_Slightly_Open/parted": "{} lips", "Mouth_Slightly_Open/adj": "an {} smile", "Oval_Face/adj": "an {} face",
        "Pale_Skin/adj": "a {} face",
    }  # fmt: skip
    nouns = {"Hair": "hair is", "Face": "face is", "Skin": "skin is", "Cheeks": "cheeks are", "Eyebrows": "eyebrows are",
             "Open": "mouth is", "Beard": "face is", "Cheekbones": "cheekbones are", "Eyes": "eyes are",
             "Lips": "lips are"}  # fmt: skip
    wordings = 0
    for gender in (MALE_BIT, FEMALE_BIT, 0):
        book = PhraseBook(rules, gender)
        for name in rules.names.values():
            for text in book.texts(name) if name.asserts else ():
                form = name.text.partition("/")[2]
                frame = around.get(name.text, "a person {}" if form in ("with", "np") else "{}")
                if form == "be":
                    noun = next((n for k, n in nouns.items() if names_of(name.asserts)[0].endswith(k)), "person is")
                    frame = noun + " {}"
                elif form == "adj" and name.text not in around:
                    frame = "a {} person"
                asserted, denied = find_attributes(frame.format(text) + ".")
                assert names_of(name.asserts)[0] in asserted, (name.text, text)
                assert not denied, (name.text, text)
                wordings += 1
    assert wordings > 150


def test_an_unknown_wording_shows():
    changed = TEXT.replace("Wearing_Hat/np -> 'a hat' [0.7]", "Wearing_Hat/np -> 'a hat' [0.2] | 'a tricorne' [0.5]")
    grammar = CaptionGrammar(changed, "changed.pcfg")
    captions = [grammar.caption(["Wearing_Hat"], "male", seed) for seed in range(40)]
    assert any("tricorne" in caption for caption in captions)
    assert all(("Wearing_Hat" in find_attributes(c)[0]) == ("tricorne" not in c) for c in captions)


@pytest.mark.slow
def test_version_is_the_text(tmp_path: Path):
    grammar = CaptionGrammar.load()
    assert re.fullmatch(r"[0-9a-f]{12}", grammar.version)
    copy = tmp_path / "mine.pcfg"
    copy.write_text(TEXT + "\n# a remark\n", encoding="utf-8")
    assert CaptionGrammar.load(copy).version != grammar.version


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Bald/adj -> 'bald' [1.0]", "Bald/adj -> 'bald' [0.5]", "sum to"),
        ("Bald/adj -> 'bald' [1.0]", "Bald/adj -> 'bald' [0.995]", "sum to"),
        ("Bald/adj -> 'bald' [1.0]", "Bald/adj 'bald' [1.0]", "arrow"),
        ("Bald/adj -> 'bald' [1.0]", "Bald/adj -> Shiny [1.0]", "Shiny"),
        ("Bald/adj -> 'bald' [1.0]", "Bald/adj -> 'bald [1.0]", "Unterminated"),
        ("Is<Male> -> 'is' [1.0]", "Is<Mail> -> 'is' [1.0]", "<Mail>"),
        ("Bald/adj -> 'bald' [1.0]", "Bold/adj -> 'bald' [1.0]", "Bold"),
    ],
)
def test_errors_name_file_line_and_production(tmp_path, old, new, message):
    file = tmp_path / "broken.pcfg"
    file.write_text(TEXT.replace(old, new), encoding="utf-8")
    line = file.read_text(encoding="utf-8").splitlines().index(new) + 1
    with pytest.raises(GrammarError) as caught:
        CaptionGrammar.load(file)
    text = str(caught.value)
    assert "\n" not in text
    assert f"broken.pcfg:{line}:" in text
    assert message in text


def test_missing_file_and_missing_attribute(tmp_path):
    with pytest.raises(GrammarError, match=r"nowhere\.pcfg"):
        CaptionGrammar.load(tmp_path / "nowhere.pcfg")
    shrunk = TEXT.replace("| Wearing_Hat/np [0.143] ", "").replace(
        "Worn -> Eyeglasses/np [0.142]", "Worn -> Eyeglasses/np [0.285]"
    )
    assert shrunk != TEXT
    with pytest.raises(GrammarError, match="Wearing_Hat"):
        CaptionGrammar(shrunk, "shrunk.pcfg").caption(["Wearing_Hat"], None, 0)


@pytest.mark.slow
def test_nltk_is_loaded_only_with_a_grammar():
    code = "import sys, facecaption_ml.captions as c; assert 'nltk' not in sys.modules; c.check_faithful('', [], None); " \
           "assert 'nltk' not in sys.modules; c.template_caption([], None, 0); assert 'nltk' in sys.modules"  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True)
