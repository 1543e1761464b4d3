"""Answers as chat models give them: what is taken off, what is stored, and the reason where nothing can be."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml.captions import check_faithful, judge_rewrite
from facecaption_ml.captions.backends.completion import read_completion
from facecaption_ml.captions.backends.spoken import spoken
from facecaption_ml.captions.rewrite.answers import take_apart
from facecaption_ml.captions.rewrite.judgement import unclean

DATA: dict[str, Any] = tomllib.loads((Path(__file__).parent / "chat_answers.toml").read_text(encoding="utf-8"))
CAPTION: str = DATA["caption"]
LABELS, GENDER = DATA["labels"], DATA["gender"]
BEFORE = [
    "",
    "Sure! ",
    "Here is the rewritten description: ",
    "Of course.\n\n",
    "**Caption:** ",
    "## Caption\n\n",
    "1. ",
    "> ",
    "<think>\n\n</think>\n\n",
    "<think>a hat</think>",
    "Okay, here's a rewrite:\n\n",
    "😊 ",
    "<|im_start|>assistant\n",
]
AROUND = [
    ("", ""),
    ('"', '"'),
    ("“", "”"),
    ("**", "**"),
    ("```\n", "\n```"),
    ("*", "*"),
    ("<answer>", "</answer>"),
    ('{"caption": "', '"}'),
    ("`", "`"),
    ("[", "]"),
]
BEHIND = [
    "",
    "\n\n(Note: every attribute was kept.)",
    " 😊",
    "\n\nLet me know if you need anything else!",
    "<|im_end|>",
    "</s>",
    "\n\n---\nThis version keeps all attributes.",
    "\n\nI hope this helps!",
]


@pytest.mark.parametrize("entry", DATA["answers"], ids=lambda entry: entry["kind"].replace(" ", "-"))
def test_kinds_of_answers(entry: dict[str, str]) -> None:
    judgement = judge_rewrite(entry["answer"].replace("CAPTION", CAPTION), LABELS, GENDER)
    expected = None if "reason" in entry else entry.get("caption", CAPTION)
    assert (judgement.caption, judgement.reason) == (expected, entry.get("reason"))


def test_there_are_enough_kinds_and_each_is_there_once() -> None:
    kinds = [entry["kind"] for entry in DATA["answers"]]
    assert len(set(kinds)) == len(kinds) >= 60
    assert len({entry["answer"] for entry in DATA["answers"]}) == len(kinds)


@pytest.mark.slow
@examples(300)
@given(st.sampled_from(BEFORE), st.sampled_from(BEFORE), st.sampled_from(AROUND), st.sampled_from(BEHIND))
def test_what_stands_around_a_caption_in_any_combination_goes(
    first: str, second: str, around: tuple[str, str], behind: str
) -> None:
    if "think" in second or "<|" in second:  # thinking and marks come first
        first, second = second, ""
    answer = f"{first}{second}{around[0]}{CAPTION}{around[1]}{behind}"
    assert judge_rewrite(answer, LABELS, GENDER).caption == CAPTION


@examples(300)
@given(st.text(max_size=200), st.text(max_size=200))
def test_nothing_that_is_taken_off_makes_a_caption_unclean_or_unfaithful(before: str, behind: str) -> None:
    caption = judge_rewrite(f"{before}{CAPTION}{behind}", LABELS, GENDER).caption
    assert caption is None or (check_faithful(caption, LABELS, GENDER).faithful and unclean(caption) is None)


@examples(300)
@given(st.text(alphabet=st.sampled_from("<>|[]{}()\"'`*_#:-.\n aThinkste/◁▷1😊"), max_size=60))
def test_taking_apart_ends_and_loses_no_reason(text: str) -> None:
    taken = take_apart(text)
    assert taken.reason is None or taken.reason
    again = take_apart(taken.text)
    assert taken.reason is not None or again.reason is not None or len(again.text) <= len(taken.text)


@pytest.mark.parametrize(
    "caption",
    [
        "This description-worthy face is that of a smiling man.",
        "A man with a five o'clock shadow and 'bushy' eyebrows smiles.",
        "She's smiling, and her hair (which is wavy) is brown.",
        "All her hair is gray. No beard is there.",
        "Her features are these: an oval face, a pointed nose and high cheekbones.",
        "The woman's earrings - two of them - are big.",
        "Both eyes are narrow; the man thinks.",
        "I",
    ],
)
def test_plain_sentences_are_left_as_they_are(caption: str) -> None:
    assert take_apart(caption).text == caption


def test_an_endless_answer_is_not_searched() -> None:
    assert take_apart(" a" * 100_000).reason == "much too long"
    assert spoken("<think>" * 50_000) is None
    assert spoken("\n" * 50_000) == ""


def test_thinking_is_told_apart_from_an_answer_that_is_cut_off() -> None:
    assert read_completion("<think>The user wants", "length").reason == "thinking cut off"
    assert read_completion("<think>ok</think>A young woman with", "length").reason == "cut off"
    assert read_completion("<think>As an AI I must think.</think>A man smiles.", "stop").text == "A man smiles."
