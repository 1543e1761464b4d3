"""The prompt file: its examples are what they preach, and a broken one says what is wrong with it."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

import facecaption_ml.captions
from facecaption_ml.captions import check_faithful, find_attributes, judge_rewrite, template_caption
from facecaption_ml.captions.rewrite.prompt import PromptError, RewritingPrompt
from facecaption_ml.taxonomy import ATTRIBUTES, FEMALE, Gender

BUNDLED = (Path(facecaption_ml.captions.__file__).parent / "rewrite" / "rewriting.toml").read_text()
EXAMPLES = tomllib.loads(BUNDLED)["examples"]
GUIDED = tomllib.loads(BUNDLED)["guided_examples"]


def labels_of(template: str) -> tuple[list[str], Gender | None]:
    asserted, _ = find_attributes(template)
    gender: Gender | None = "male" if "Male" in asserted else "female" if FEMALE in asserted else None
    return [name for name in asserted if name != FEMALE], gender


@pytest.mark.parametrize("example", [*EXAMPLES, *GUIDED], ids=lambda example: example["template"][:60])
def test_examples_are_faithful_rewrites_in_other_words(example: dict[str, str]) -> None:
    labels, gender = labels_of(example["template"])
    assert labels
    assert check_faithful(example["template"], labels, gender).faithful
    judgement = judge_rewrite(example["rewrite"], labels, gender, template=example["template"])
    assert (judgement.caption, judgement.reason) == (example["rewrite"], None), judgement


def test_there_are_many_examples_of_captions_as_long_as_the_data_sets() -> None:
    sizes = [len(labels_of(example["template"])[0]) for example in EXAMPLES]
    assert len(sizes) >= 30
    assert all(6 <= size <= 14 for size in sizes)
    said = {name for example in EXAMPLES for name in labels_of(example["template"])[0]}
    assert said == set(ATTRIBUTES)
    openings = {" ".join(example["rewrite"].split()[:3]) for example in EXAMPLES}
    assert len(openings) >= 0.7 * len(EXAMPLES)


def test_no_example_stands_in_every_other_prompt() -> None:
    """Of captions of random labels; 22 % on the labels of 2,000 real faces."""
    prompt, shown = RewritingPrompt.load(), Counter[str]()
    random = Random(3)
    for seed in range(150):
        gender = random.choice(["male", "female"])
        few = ["Mustache", "Goatee", "Sideburns", "5_o_Clock_Shadow", "Bald", "Male", "No_Beard"]
        labels = random.sample([name for name in ATTRIBUTES if name not in few], random.randint(6, 11))
        messages = prompt.messages(template_caption(labels, gender, seed=seed))  # type: ignore[arg-type]
        assert len(messages) == 2 + 2 * 3
        shown.update(text for role, text in messages[:-1] if role == "user")
    assert max(shown.values()) < 0.35 * 150
    assert len(shown) > 35


def test_a_second_try_is_told_what_was_wrong() -> None:
    prompt = RewritingPrompt.load()
    again = prompt.retry("A man.", ["Bags_Under_Eyes", "Wavy_Hair"], ["Wearing_Hat"])
    assert '"A man."' in again
    assert "leaves out: bags under the eyes, wavy hair." in again
    assert "adds what the description does not say: hat." in again
    assert "adds" not in prompt.retry("A man.", ["Wavy_Hair"], [])
    assert prompt.retry("A man.", [], []) == ""
    first, second = prompt.messages("A man with a hat."), prompt.messages("A man with a hat.", again=again)
    assert second[0] == ("system", f"{first[0][1]}\n\n{again}")
    assert second[1:] == first[1:]


def test_question_comes_last_and_the_examples_before_it_as_a_conversation() -> None:
    messages = RewritingPrompt.load().messages("A man with a hat.")
    assert [role for role, _ in messages] == ["system", *["user", "assistant"] * 3, "user"]
    assert messages[-1] == ("user", "A man with a hat.")
    rewrite_of = {example["template"]: example["rewrite"] for example in EXAMPLES}
    for (_, template), (_, rewrite) in zip(messages[1:-1:2], messages[2:-1:2], strict=True):
        assert rewrite_of[template] == rewrite


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["template"][:60])
def test_the_example_most_like_the_caption_stands_next_to_it(example: dict[str, str]) -> None:
    messages = RewritingPrompt.load().messages(example["template"])
    assert messages[-3:-1] == (("user", example["template"]), ("assistant", example["rewrite"]))


def test_guided_prompts_differ_in_the_question_only() -> None:
    prompt = RewritingPrompt.load()
    one, other = prompt.messages("A man with a hat.", guided=True), prompt.messages("A bald man.", guided=True)
    assert one[:-1] == other[:-1]
    assert prompt.messages(EXAMPLES[-1]["template"])[:-1] != one[:-1]


def test_version_follows_the_content(tmp_path: Path) -> None:
    same, changed = tmp_path / "same.toml", tmp_path / "changed.toml"
    same.write_text(BUNDLED)
    changed.write_text(BUNDLED.replace("You rewrite", "Please rewrite"))
    bundled = RewritingPrompt.load()
    assert RewritingPrompt.load(str(same)).version == bundled.version
    assert RewritingPrompt.load(str(changed)).version != bundled.version
    assert RewritingPrompt.load(str(changed)).system.startswith("Please rewrite")


BROKEN: dict[str, tuple[Callable[[str], str], str]] = {
    "no system message": (lambda text: text.replace("system = ", "sistem = "), "system"),
    "example without rewrite": (lambda text: text.replace("rewrite = ", "other = ", 1), "rewrite"),
    "no vocabulary": (lambda text: text.partition("[vocabulary]")[0], "vocabulary"),
    "unknown attribute": (lambda text: text.replace("Wavy_Hair = ", "Curly_Hair = "), "Curly_Hair"),
    "missing attribute": (lambda text: text.replace('Mustache = { texts = ["a mustache"] }\n', ""), "Mustache"),
    "unknown slot": (lambda text: text.replace('features = "has ( HAVE |', 'features = "has ( HAFE |'), "HAFE"),
    "unknown part of a form": (lambda text: text.replace("told = ", "tolled = "), "told"),
    "form that is not closed": (lambda text: text.replace('wears = "( wears', 'wears = "( ( wears'), "wears"),
    "form with a digit": (lambda text: text.replace('worn = "WEAR', 'worn = "WEAR 2'), "worn"),
    "bad TOML": (lambda text: text + "\n= 3\n", "line"),
    "a number for the table": (lambda text: "vocabulary = 3\n" + text.partition("[vocabulary]")[0], ""),
    "examples_shown is a word": (lambda text: text.replace("examples_shown = 3", 'examples_shown = "few"'), "few"),
    "vocabulary without people": (lambda text: text.replace("[vocabulary.people]", "[vocabulary.persons]"), "people"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_file_is_named_with_what_is_wrong(name: str, tmp_path: Path) -> None:
    breaking, word = BROKEN[name]
    broken = breaking(BUNDLED)
    assert broken != BUNDLED
    file = tmp_path / "mine.toml"
    file.write_text(broken)
    with pytest.raises(PromptError) as caught:
        RewritingPrompt.load(str(file))
    assert str(file) in str(caught.value)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_folder_and_undecodable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b'version = "\xff"')
    for path in (tmp_path / "none.toml", tmp_path, tmp_path / "latin.toml"):
        with pytest.raises(PromptError, match=r"^prompt: [^\n]*$") as caught:
            RewritingPrompt.load(str(path))
        assert str(path) in str(caught.value)
