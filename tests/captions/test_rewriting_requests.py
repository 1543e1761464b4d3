"""What is asked of a chat model, how often, and what it took: nothing is paid for twice."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from facecaption_ml.captions.backends.chat import Answer, ChatModelError, ChatRequest, Failure, Sampling
from facecaption_ml.captions.rewrite.answer_cache import AnswerCache
from facecaption_ml.captions.rewrite.prompt import RewritingPrompt
from facecaption_ml.captions.rewrite.rewriting import Rewriter
from facecaption_ml.captions.rewrite.usage import Prices, Usage
from facecaption_ml.schemas import SCHEMAS
from facecaption_ml.storage.store import Store

LABELS = ["Blond_Hair", "Smiling", "Wearing_Necklace", "Young"]
TEMPLATE = "This is a photo of a smiling young woman. She has blond hair. She is wearing a necklace."
GOOD = "A smiling young woman with blond hair wears a necklace."
LOST = "A smiling young woman wears a hat and a necklace."
# Faithful, and with three words that come twice.
TRIGRAM = (
    "The young woman is smiling, and the young woman has blond hair and wears a necklace, as far as one can see from here in "
    "this photo of her, which shows no more than that."
)


class Desk:
    """A backend that answers by what its script says of a caption, and writes down what it was asked."""

    model_id = "desk"
    supports_constraints = False
    batched = False

    def __init__(self, *texts: str | Failure) -> None:
        self.texts = texts
        self.asked: list[ChatRequest] = []
        self.lost: set[str] = set()
        self.ends_after = 10**9

    def answer(self, requests: Sequence[ChatRequest], sampling: Sampling) -> list[Answer]:
        answers: list[Answer | None] = []
        for request in requests:
            if len(self.asked) >= self.ends_after:
                answers.append(None)
                continue
            template = request.messages[-1][1]
            times = sum(other.messages[-1][1] == template for other in self.asked)
            self.asked.append(request)
            text = Failure.SERVER_ERROR if template in self.lost else self.texts[times % len(self.texts)]
            used = {"prompt_tokens": 100, "completion_tokens": 10}
            failed = isinstance(text, Failure)
            answers.append(Answer(failure=text, said="500 oh") if failed else Answer(text, **used))  # type: ignore[arg-type]
        if None in answers:
            error = ChatModelError("402 no more credit")
            error.answers = answers
            raise error
        return [answer for answer in answers if answer]

    def close(self) -> None:
        pass


def templates(count: int) -> pl.DataFrame:
    rows = [(f"f_{i}", f"{TEMPLATE[:-1]}{', ' + 'really ' * i if i else ''}.", LABELS, "female") for i in range(count)]
    return pl.DataFrame(rows, dict(SCHEMAS["template_captions"]), orient="row")


def rewriter(model: Desk, **how: int) -> Rewriter:
    return Rewriter(model, RewritingPrompt.load(), **how)  # type: ignore[arg-type]


def test_one_lost_answer_is_one_request_of_the_next_run(tmp_path: Path) -> None:
    store, frame = Store(str(tmp_path)), templates(30)
    model = Desk(GOOD)
    model.lost = {frame["template_caption"][7]}
    first = rewriter(model, attempts=3, chunk=20).rewrite(frame, AnswerCache(store, "m/s"))
    assert len(model.asked) == 29 + 3
    lost = first.filter(caption_source="template").row(0, named=True)
    assert (lost["face_id"], lost["reason"], lost["attempts"]) == ("f_7", "endpoint error: 500 oh", 3)
    back = Desk(GOOD)
    again = rewriter(back, attempts=3, chunk=20).rewrite(frame, AnswerCache(store, "m/s"))
    assert len(back.asked) == 1
    assert set(again["caption_source"]) == {"llm"}


def test_a_lost_answer_is_asked_for_again_with_its_own_seed(tmp_path: Path) -> None:
    model = Desk(Failure.TIMEOUT, GOOD)
    assert rewriter(model, attempts=2).rewrite(templates(1)).row(0, named=True)["caption"] == GOOD
    first, second = model.asked
    assert (first.seed, first.messages) == (second.seed, second.messages)


def test_a_good_answer_that_repeats_three_words_is_not_asked_for_again() -> None:
    model = Desk(TRIGRAM)
    found = rewriter(model).rewrite(templates(1)).row(0, named=True)
    assert (found["caption"], found["attempts"], len(model.asked)) == (TRIGRAM, 1, 1)


def test_attempts_are_made_one_by_one_and_a_second_one_hears_what_was_wrong() -> None:
    model = Desk(LOST, GOOD)
    found = rewriter(model, attempts=4).rewrite(templates(3))
    assert set(found["attempts"]) == {2}
    assert len(model.asked) == 6
    system = model.asked[3].messages[0][1]
    assert LOST in system
    assert "leaves out: blond hair." in system
    assert "does not say: hat." in system
    assert model.asked[3].messages[1:] == model.asked[0].messages[1:]
    assert model.asked[3].seed != model.asked[0].seed


def test_what_was_paid_before_the_credit_ended_is_kept(tmp_path: Path) -> None:
    store, frame = Store(str(tmp_path)), templates(10)
    model, usage = Desk(GOOD), Usage()
    model.ends_after = 6
    with pytest.raises(ChatModelError, match="no more credit"):
        rewriter(model).rewrite(frame, AnswerCache(store, "m/s"), usage=usage)
    assert (usage.requests, usage.prompt_tokens, usage.completion_tokens) == (6, 600, 60)
    back, rest = Desk(GOOD), Usage()
    rewriter(back).rewrite(frame, AnswerCache(store, "m/s"), usage=rest)
    assert len(back.asked) == 4
    assert (rest.kept, rest.kept_prompt_tokens, rest.prompt_tokens) == (6, 600, 400)


def test_a_model_whose_answers_depend_on_their_batch_is_asked_by_whole_chunks(tmp_path: Path) -> None:
    store, frame = Store(str(tmp_path)), templates(8)
    rewriter(Desk(GOOD), chunk=4).rewrite(frame.head(5), AnswerCache(store, "m/s"))
    batched = Desk(GOOD)
    batched.batched = True
    rewriter(batched, chunk=4).rewrite(frame, AnswerCache(store, "m/s"))
    assert len(batched.asked) == 4  # the second chunk, of which one row was there already


def test_the_answers_name_is_what_decides_whose_they_are(tmp_path: Path) -> None:
    store, frame = Store(str(tmp_path)), templates(2)
    prompt = RewritingPrompt.load()
    Rewriter(Desk(GOOD), prompt, model_name="weights 1").rewrite(frame, AnswerCache(store, "m/s"))
    other = Desk(GOOD)
    other.model_id = "the same weights elsewhere"
    found = Rewriter(other, prompt, model_name="weights 1").rewrite(frame, AnswerCache(store, "m/s"))
    assert other.asked == []
    assert set(found["model"]) == {"weights 1"}


def test_another_extra_body_is_another_question(tmp_path: Path) -> None:
    store, frame, prompt = Store(str(tmp_path)), templates(1), RewritingPrompt.load()
    for extra, asked in (("{}", 1), ('{"reasoning_effort": "low"}', 1), ("{}", 0)):
        model = Desk(GOOD)
        Rewriter(model, prompt, Sampling(extra_body=extra)).rewrite(frame, AnswerCache(store, "m/s"))
        assert len(model.asked) == asked


def test_answers_kept_by_an_earlier_version_are_read(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    buffer = io.BytesIO()
    pl.DataFrame({"key": ["k"], "text": ["A man."], "failure": [None], "fluency": [None]}).write_parquet(buffer)
    store.write_bytes("llm_answers/m/s.parquet", buffer.getvalue())
    assert AnswerCache(store, "m/s").get("k") == Answer("A man.")


def test_usage_adds_up_and_has_a_price() -> None:
    usage, run = Usage(), Usage()
    usage.add(Answer("A man.", prompt_tokens=2_000_000, completion_tokens=500_000))
    usage.add(Answer(failure=Failure.RATE_LIMITED, said="429 slow down"))
    usage.add(Answer(failure=Failure.RATE_LIMITED, said="429 slow down", asked=False))
    run.add_all(usage)
    run.add_all(usage)
    assert (run.requests, run.prompt_tokens) == (4, 4_000_000)
    assert run.errors == {"rate limit: 429 slow down": 2}
    assert Prices(0.5, 2.0).cost(usage.prompt_tokens, usage.completion_tokens) == pytest.approx(2.0)
    assert usage.told(Prices(0.5, 2.0)) == "2 answers asked for, 2,000,000 + 500,000 tokens, cost 2.0000"
    assert json.dumps(run.errors)
