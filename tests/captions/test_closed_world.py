"""A rewrite says nothing beyond its labels: inventions are refused by name, honest paraphrases pass, templates pass."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml.captions import check_faithful, judge_rewrite, template_caption
from facecaption_ml.captions.rewrite.judgement import Fault, kind_of
from facecaption_ml.captions.rewrite.prompt import RewritingPrompt
from facecaption_ml.taxonomy import ATTRIBUTES, FEMALE, settle_conflicts

GENDERS = ("male", "female", None)
OTHERS = [name for name in ATTRIBUTES if name != "Male"]


def read(name: str) -> list[dict]:
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def judged(case: dict):
    return judge_rewrite(case["text"], case["labels"], case["gender"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", "_fresh", "_diverse", "_plain", "_rounds"])
def test_inventions_are_refused_and_honest_paraphrases_taken(name: str) -> None:
    """All but the first: sentences that the vocabulary was first measured on without having seen them."""
    cases = read(f"closed_world{name}.jsonl")
    inventions = [case for case in cases if not case["honest"]]
    honest = [case for case in cases if case["honest"]]
    assert min(len(inventions), len(honest)) >= 100
    taken = [case["text"] for case in inventions if judged(case).caption]
    refused = [(judged(case).reason, case["text"]) for case in honest if not judged(case).caption]
    assert len(taken) <= 0.02 * len(inventions), taken
    assert len(refused) <= 0.05 * len(honest), refused


def test_the_list_has_many_kinds_of_inventions() -> None:
    kinds = {case["kind"] for case in read("closed_world.jsonl") if not case["honest"]}
    assert len(kinds) >= 30


def test_each_refusal_names_words_of_the_text() -> None:
    for case in read("closed_world.jsonl"):
        judgement = judged(case)
        if case["honest"] or judgement.reason == Fault.UNFAITHFUL:
            continue
        assert re.fullmatch(r"beyond its labels: says '.+', which no label gives", judgement.reason), judgement.reason
        assert kind_of(judgement.reason) == Fault.BEYOND
        plain = set(re.findall(r"\w+", case["text"].lower()))
        for words in judgement.beyond:
            assert plain & set(words.lower().split()), (words, case["text"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("She is a smiling Asian woman.", "'asian'"),
        ("The woman smiles; she is rich.", "'rich'"),
        ("The woman has blue eyes and smiles.", "'blue"),
        ("A smiling woman in her early thirties.", "'early' and 'thirties'"),
        ("The woman smiles at the person.", "'smiles at'"),
        ("A woman smiles with black eyes.", "'black eyes'"),
        ("The woman Grace smiles.", "'Grace'"),
    ],
)
def test_the_words_are_named(text: str, words: str) -> None:
    reason = judge_rewrite(text, ["Smiling"], "female").reason
    assert reason is not None
    assert reason.startswith("beyond its labels: says ")
    assert words in reason


def test_what_a_label_is_about_may_be_spoken_of() -> None:
    hat = "A man with a hat over his ears."
    assert judge_rewrite("A man in a hat.", ["Wearing_Hat"], "male").caption
    assert judge_rewrite(hat, ["Wearing_Hat"], "male").caption is None
    assert judge_rewrite("A man with sideburns at the sides of his face.", ["Sideburns"], "male").caption
    assert judge_rewrite("A bald man turns to the side.", ["Bald"], "male").caption is None
    assert judge_rewrite("A young girl smiles.", ["Smiling", "Young"], "female").caption
    assert judge_rewrite("A girl smiles here.", ["Smiling"], "female").caption is None


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("His nose is pretty big.", ["Big_Nose"]),
        ("Nose: large. Eyebrows: bushy. The man smiles.", ["Big_Nose", "Bushy_Eyebrows", "Smiling"]),
        ("Man, chubby, double chin, glasses.", ["Chubby", "Double_Chin", "Eyeglasses"]),
        ("His eyes look narrow; his nose is on the large side.", ["Narrow_Eyes", "Big_Nose"]),
        ("Attractive, young, with black hair - he smiles.", ["Attractive", "Young", "Black_Hair", "Smiling"]),
        ("He has black hair: it's straight.", ["Black_Hair", "Straight_Hair"]),
        ("The man smiles. You can see he has a double chin.", ["Smiling", "Double_Chin"]),
    ],
)
def test_plain_constructions_are_read(text: str, labels: list[str]) -> None:
    assert judge_rewrite(text, labels, "male").caption == text


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("His pretty nose is big.", ["Big_Nose"]),
        ("Eyes: big. He smiles.", ["Smiling"]),
        ("A man, chubby, black hat.", ["Chubby", "Wearing_Hat"]),
        ("He is on the left side and smiles.", ["Smiling"]),
        ("He has never shaved his beard and smiles.", ["No_Beard", "Smiling"]),
    ],
)
def test_plain_constructions_hide_nothing(text: str, labels: list[str]) -> None:
    assert judge_rewrite(text, labels, "male").caption is None


def settled(labels: set[str], gender: str | None) -> list[str]:
    known = {"male": ["Male"], "female": [FEMALE], None: []}[gender]
    return [name for name in settle_conflicts([*labels, *known])[0] if name != FEMALE]


@pytest.mark.slow
@examples(800)
@given(st.sets(st.sampled_from(OTHERS), max_size=12), st.sampled_from(GENDERS), st.integers(0, 2**64 - 1))
def test_every_template_caption_is_inside_the_closed_world(chosen: set[str], gender: str | None, seed: int) -> None:
    labels = settled(chosen, gender)
    caption = template_caption(labels, gender, seed)
    judgement = judge_rewrite(caption, labels, gender)
    assert not judgement.beyond, (caption, judgement.beyond)


@pytest.mark.parametrize("gender", GENDERS)
def test_every_wording_of_a_label_is_inside_the_closed_world(gender: str | None) -> None:
    for name in OTHERS:
        labels = settled({name}, gender)
        for seed in range(25):
            caption = template_caption(labels, gender, seed)
            assert not judge_rewrite(caption, labels, gender).beyond, caption


def test_the_examples_of_the_prompt_are_rewrites_that_the_judge_takes() -> None:
    for example in RewritingPrompt.load().examples:
        gender = "male" if "Male" in example.attributes else "female" if FEMALE in example.attributes else None
        labels = [name for name in example.attributes if name != FEMALE]
        judgement = judge_rewrite(example.rewrite, labels, gender, template=example.template)
        assert judgement.reason is None, (judgement.reason, example.rewrite)


def test_the_words_of_the_template_at_hand_invent_nothing() -> None:
    """A grammar of one's own has words that the bundled one has not."""
    template = "This effigy depicts a smiling woman."
    assert "effigy" in str(judge_rewrite("An effigy of a smiling woman.", ["Smiling"], "female").reason)
    judgement = judge_rewrite("An effigy of a smiling woman.", ["Smiling"], "female", template=template)
    assert judgement.caption == "An effigy of a smiling woman."
    assert judge_rewrite("An effigy of a smiling queen.", ["Smiling"], "female", template=template).caption is None


@examples(300)
@given(st.sampled_from([case for case in read("closed_world.jsonl") if case["honest"]]), st.sampled_from(
    ["asian", "tall", "angry", "famous", "elegant", "rich", "blue", "plastic", "italian", "tired", "proud", "wealthy", "tanned"]
), st.data())  # fmt: skip
def test_no_place_of_a_caption_hides_an_invention(case: dict, word: str, data: st.DataObject) -> None:
    words = case["text"].split(" ")
    at = data.draw(st.integers(1, len(words) - 1))
    text = " ".join([*words[:at], word, *words[at:]])
    assert judge_rewrite(text, case["labels"], case["gender"]).caption is None


def test_the_faithfulness_check_itself_knows_the_forty_attributes_only() -> None:
    assert check_faithful("She is a smiling Asian woman.", ["Smiling"], "female").faithful


@pytest.mark.parametrize(
    "text",
    [
        "A smiling woman with rosy cheeks and roses in her hair.",
        "A smiling woman with rosy cheeks joins us.",
        "A smiling woman with rosy cheeks looks like us.",
        "The smiling woman with rosy cheeks is past it.",
        "A smiling woman with rosy cheeks, about to part.",
        "The smiling woman with rosy cheeks is looking past us.",
        "The first lady smiles with rosy cheeks.",
        "The woman smiles; her cheeks are rosy. She is one of us.",
    ],
)
def test_words_of_talk_make_up_no_invention(text: str) -> None:
    assert judge_rewrite(text, ["Smiling", "Rosy_Cheeks"], "female").caption is None


def test_a_last_sentence_that_tells_what_can_be_seen_is_part_of_the_caption() -> None:
    text = "The man smiles. You can also see some bags under his eyes."
    assert judge_rewrite(text, ["Smiling", "Bags_Under_Eyes"], "male").caption == text
    remark = "The man smiles here. You can change the tone if you like."
    assert judge_rewrite(remark, ["Smiling"], "male").caption == "The man smiles here."


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("The man with a big nose has a big nose.", ["Big_Nose"]),
        ("A man has wavy hair. His wavy hair is brown.", ["Wavy_Hair", "Brown_Hair"]),
    ],
)
def test_what_is_said_twice_is_a_repetition(text: str, labels: list[str]) -> None:
    assert judge_rewrite(text, labels, "male").reason == Fault.REPEATED


def test_an_english_word_is_not_taken_for_another_language() -> None:
    text = "The man wears a hat; under the hat he smiles."
    assert judge_rewrite(text, ["Wearing_Hat", "Smiling"], "male").caption == text
