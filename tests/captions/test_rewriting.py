"""Best of n: which rewrite wins, what a row says when none does, and what is asked only once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml import captions
from facecaption_ml.captions import check_faithful
from facecaption_ml.captions.backends.chat import Answer, ChatModelError, ChatRequest, Failure, Sampling
from facecaption_ml.captions.rewrite.answer_cache import AnswerCache
from facecaption_ml.captions.rewrite.judgement import Fault, judge_rewrite, repetition, tidied, unclean
from facecaption_ml.captions.rewrite.prompt import RewritingPrompt
from facecaption_ml.captions.rewrite.rewriting import Rewriter, unwritten
from facecaption_ml.schemas import SCHEMAS, empty
from facecaption_ml.storage.store import Store

TEMPLATE = "This is a photo of a smiling young woman. She has blond hair. She is wearing a necklace."
LABELS = ["Blond_Hair", "Smiling", "Wearing_Necklace", "Young"]
GOOD = "A smiling young woman with blond hair wears a necklace."
OTHER = "With a necklace and blond hair, the young woman smiles."
REPETITIVE = (
    "The young woman with blond hair is smiling today, and the young woman with blond hair also wears a necklace, as far as "
    "one can see from here, where nothing else at all of note appears around her."
)
LOST = "A smiling young woman wears a necklace."
ADDED = "A smiling young woman with blond hair wears a necklace and a hat."


class Scripted:
    """A backend whose texts are known: the judged thing here is what the rewriter makes of them."""

    def __init__(self, *texts: str | Failure, name: str = "scripted") -> None:
        self.texts, self.model_id, self.asked = texts, name, 0
        self.turn: dict[str, int] = {}

    def answer(self, requests: Sequence[ChatRequest], sampling: Sampling) -> list[Answer]:
        answers = []
        for request in requests:
            self.asked += 1
            template = request.messages[-1][1]
            text = self.texts[self.turn.get(template, 0) % len(self.texts)]
            self.turn[template] = self.turn.get(template, 0) + 1
            answers.append(Answer(failure=text) if isinstance(text, Failure) else Answer(text))
        return answers

    def close(self) -> None:
        pass


def templates(*rows: tuple[str, str, list[str], str | None]) -> pl.DataFrame:
    return pl.DataFrame(rows or [("f_0", TEMPLATE, LABELS, "female")], dict(SCHEMAS["template_captions"]), orient="row")


def rewrite(model: Scripted, frame: pl.DataFrame | None = None, cache: AnswerCache | None = None, **how: int) -> dict:  # type: ignore[type-arg]
    frame = templates() if frame is None else frame
    return Rewriter(model, RewritingPrompt.load(), **how).rewrite(frame, cache).row(0, named=True)  # type: ignore[arg-type]


def test_the_first_faithful_rewrite_wins() -> None:
    row = rewrite(Scripted(LOST, ADDED, GOOD, OTHER))
    assert (row["caption"], row["caption_source"], row["attempts"]) == (GOOD, "llm", 3)
    assert (row["missing"], row["invented"], row["reason"]) == ([], [], None)


def test_without_a_faithful_one_the_template_stays_and_the_row_says_what_was_wrong() -> None:
    row = rewrite(Scripted(ADDED, "A smiling woman in a hat with a tie and glasses."), attempts=2)
    assert (row["caption"], row["caption_source"], row["attempts"]) == (TEMPLATE, "template", 2)
    assert (row["missing"], row["invented"]) == ([], ["Wearing_Hat"])  # of the closest
    assert row["reason"] == "unfaithful"


def test_a_rewrite_that_repeats_itself_is_not_taken() -> None:
    assert repetition(REPETITIVE) > 0.05
    assert rewrite(Scripted(REPETITIVE), attempts=2)["reason"] == Fault.REPEATED
    assert rewrite(Scripted(REPETITIVE, GOOD), attempts=2)["caption"] == GOOD
    assert rewrite(Scripted(f"{GOOD} {GOOD}"), attempts=1)["caption_source"] == "template"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (Failure.UNREACHABLE, "endpoint unreachable"),
        (Failure.TIMEOUT, "endpoint too slow"),
        (Failure.EMPTY, "empty answer"),
        (Failure.REFUSED, "refusal"),
        (TEMPLATE, "same words as the template"),
        (GOOD.replace("necklace", "<b>necklace</b>"), "markup"),
        (f"<i>{GOOD[:-1]}</i> <u>here</u>.", "markup"),
        (f"{GOOD} \N{CJK UNIFIED IDEOGRAPH-4E00}", "another language"),
        (f"{GOOD} Ella tiene el pelo rubio.", "another language"),
        (f"{GOOD} Sie hat blonde Haare und ist jung.", "another language"),
        (f"{GOOD[:-1]}\x07.", "control characters"),
        (f"{GOOD[:-1]}\N{RIGHT-TO-LEFT OVERRIDE}.", "control characters"),
        ("Yes.", "too short or too long"),
        (GOOD + " It is a very nice day today and there is nothing else to say about it" * 8, "too short or too long"),
    ],
)
def test_what_never_reaches_the_table(text: str | Failure, reason: str) -> None:
    row = rewrite(Scripted(text), attempts=2)
    assert (row["caption"], row["caption_source"], row["reason"]) == (TEMPLATE, "template", reason)


@examples(150)
@given(st.text(max_size=300))
def test_whatever_a_model_says_the_caption_is_clean_and_faithful(text: str) -> None:
    row = rewrite(Scripted(text, GOOD + text), attempts=2)
    assert check_faithful(row["caption"], LABELS, "female").faithful
    assert unclean(row["caption"]) is None
    assert (row["caption_source"] == "llm") == (row["reason"] is None)


def test_quotes_and_headings_around_an_answer_go() -> None:
    assert tidied(f'"{GOOD}"') == GOOD
    assert tidied(f"Rewritten description:\n{GOOD}\n") == GOOD
    assert tidied(GOOD.replace(" ", "  ").rstrip(".")) == GOOD


def test_a_text_that_the_model_itself_finds_unlikely_is_not_fluent() -> None:
    answer = Answer(GOOD, fluency=-2.0)
    assert judge_rewrite(answer, LABELS, "female", template=TEMPLATE, least_fluency=-1.2).reason == Fault.NOT_FLUENT
    assert judge_rewrite(answer, LABELS, "female", template=TEMPLATE).reason is None


def test_a_raw_answer_is_judged_as_the_pipeline_would() -> None:
    good = captions.judge_rewrite(f' "{GOOD}"\n', LABELS, "female")
    assert (good.caption, good.reason) == (GOOD, None)
    lost = captions.judge_rewrite(LOST, LABELS, "female")
    assert (lost.caption, lost.reason, lost.missing, lost.text) == (None, "unfaithful", ("Blond_Hair",), LOST)
    added = captions.judge_rewrite(ADDED, LABELS, "female")
    assert (added.caption, added.invented) == (None, ("Wearing_Hat",))
    for answer, reason in [
        ("I'm sorry, but I can't help with that.", Failure.REFUSED),
        ("  ", Failure.EMPTY),
        (GOOD.replace("blond", "<b>blond</b>"), Fault.MARKUP),
    ]:
        judgement = captions.judge_rewrite(answer, LABELS, "female")
        assert (judgement.caption, judgement.reason) == (None, reason)
    assert captions.judge_rewrite(TEMPLATE, LABELS, "female").caption == TEMPLATE
    assert captions.judge_rewrite(TEMPLATE, LABELS, "female", template=TEMPLATE).reason == Fault.UNCHANGED
    with pytest.raises(ValueError, match="Beautiful"):
        captions.judge_rewrite(GOOD, ["Beautiful"], None)


def test_an_empty_shard_gives_an_empty_table() -> None:
    model = Scripted(GOOD)
    found = Rewriter(model, RewritingPrompt.load()).rewrite(empty("template_captions"))
    assert found.equals(empty("llm_captions"))
    assert model.asked == 0
    assert unwritten(empty("template_captions"), "off").equals(empty("llm_captions"))


def test_one_label_and_no_gender_is_enough() -> None:
    frame = templates(("f_0", "A photo of a person. They are smiling.", ["Smiling"], None))
    row = rewrite(Scripted("The person in this photo is smiling."), frame)
    assert row["caption_source"] == "llm"


def test_identical_work_is_done_once(tmp_path: Path) -> None:
    store, model = Store(str(tmp_path)), Scripted(LOST, GOOD)
    frame = templates(*[(f"f_{i}", TEMPLATE, LABELS, "female") for i in range(5)])
    rewriter = Rewriter(model, RewritingPrompt.load(), attempts=2)
    first = rewriter.rewrite(frame, AnswerCache(store, "m/shard"))
    assert model.asked == 2  # one template, two attempts
    assert set(first["caption"]) == {GOOD}
    again = rewriter.rewrite(frame, AnswerCache(store, "m/shard"))
    assert model.asked == 2
    assert again.equals(first)
    other = Rewriter(Scripted(OTHER, name="another model"), RewritingPrompt.load())
    assert other.rewrite(frame, AnswerCache(store, "m/shard"))["caption"][0] == OTHER


def test_a_failure_that_may_pass_is_asked_again_on_the_next_run(tmp_path: Path) -> None:
    cache = AnswerCache(Store(str(tmp_path)), "m/shard")
    down = rewrite(Scripted(Failure.UNREACHABLE), cache=cache, attempts=2)
    assert down["reason"] == "endpoint unreachable"
    back = rewrite(Scripted(GOOD), cache=AnswerCache(Store(str(tmp_path)), "m/shard"))
    assert back["caption"] == GOOD


def test_a_cache_can_forget_what_nobody_asks_for_any_more(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    cache = AnswerCache(store, "m/shard")
    for key in ("kept", "gone", "also gone"):
        cache.put(key, Answer(key, None))
    cache.save()
    opened = AnswerCache(store, "m/shard")
    assert opened.get("kept")
    opened.put("new", Answer("new", None))
    assert opened.keep_only_used() == 2
    again = AnswerCache(store, "m/shard")
    assert [key for key in ("kept", "gone", "also gone", "new") if again.get(key)] == ["kept", "new"]
    assert b"also gone" not in (tmp_path / "llm_answers" / "m" / "shard.parquet").read_bytes()


def test_a_run_that_dies_keeps_its_answers(tmp_path: Path) -> None:
    class Dying(Scripted):
        def answer(self, *arguments: object) -> list[Answer]:
            if self.asked >= 4:
                raise ChatModelError("the model is gone")
            return super().answer(*arguments)  # type: ignore[arg-type]

    rows = [(f"f_{i}", f"{TEMPLATE[:-1]}{'' if i == 0 else ', ' + 'really ' * i}.", LABELS, "female") for i in range(8)]
    prompt, frame = RewritingPrompt.load(), templates(*rows)
    with pytest.raises(ChatModelError):
        Rewriter(Dying(GOOD), prompt, chunk=2).rewrite(frame, AnswerCache(Store(str(tmp_path)), "m/shard"))
    model = Scripted(GOOD)
    Rewriter(model, prompt, chunk=2).rewrite(frame, AnswerCache(Store(str(tmp_path)), "m/shard"))
    assert model.asked == 4


def test_the_order_of_the_rows_changes_nothing() -> None:
    rows = [(f"f_{i}", TEMPLATE.replace("young", "young " * (i % 3 + 1)), LABELS, "female") for i in range(9)]
    rewriter = Rewriter(Scripted(GOOD), RewritingPrompt.load(), chunk=2)
    forward = rewriter.rewrite(templates(*rows))
    backward = Rewriter(Scripted(GOOD), RewritingPrompt.load(), chunk=2).rewrite(templates(*rows[::-1]))
    assert forward.sort("face_id").equals(backward.sort("face_id"))


def test_progress_counts_what_is_settled_up_to_all() -> None:
    rows = [(f"f_{i}", TEMPLATE.replace("young", "young " * (i + 1)), LABELS, "female") for i in range(5)]
    calls: list[tuple[int, int]] = []
    rewriter = Rewriter(Scripted(LOST, LOST, GOOD), RewritingPrompt.load(), attempts=3, chunk=2)
    rewriter.rewrite(templates(*rows), on_progress=lambda done, total: calls.append((done, total)))
    assert {total for _, total in calls} == {5}
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)
    assert calls[0][0] == 0
    assert calls[-1] == (5, 5)
