"""Rows that join and leave a batch under way, against one row decoded alone; small random models in float32."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers", reason="the llm extra is not installed")

from facecaption_ml.captions import template_caption
from facecaption_ml.captions.backends import checkpoints, shared_prefix
from facecaption_ml.captions.backends.chat import Answer, ChatRequest, Failure, Sampling
from facecaption_ml.captions.backends.local_chat import LocalChatModel
from facecaption_ml.captions.backends.running_batch import RunningBatch
from facecaption_ml.captions.guided.constraint import Constraint
from facecaption_ml.captions.rewrite.prompt import RewritingPrompt
from tiny_chat_models import FACES, save_tiny, tiny

GREEDY = Sampling(temperature=0.0, max_new_tokens=24)
HOT = Sampling(temperature=20.0, top_p=1.0, max_new_tokens=60)
HOT_AND_SHORT = Sampling(temperature=20.0, top_p=1.0, max_new_tokens=24)


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def chat(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., LocalChatModel]]:
    """Opens the small model with a batch size and a number of threads."""
    monkeypatch.setattr(checkpoints, "compute_dtype", lambda precision, device: torch.float32)
    opened: list[LocalChatModel] = []

    def make(batch_size: int, threads: int = 1) -> LocalChatModel:
        opened.append(LocalChatModel(str(tiny_folder), tmp_path, batch_size=batch_size, threads=threads))
        return opened[-1]

    yield make
    for model in opened:
        model.close()


def free_questions(with_prefix: bool, count: int = 24) -> list[ChatRequest]:
    """Prompts of many lengths, some of them asked with several seeds."""
    system = (("system", "Rewrite what follows."),) if with_prefix else ()
    return [ChatRequest((*system, ("user", "ab " * (7 * i % 17) + chr(97 + i % 17))), seed=i) for i in range(count)]


def guided_questions(with_prefix: bool, count: int = 20) -> list[ChatRequest]:
    vocabulary = RewritingPrompt.load().vocabulary
    asked = []
    for seed in range(count):
        labels, gender = FACES[seed % len(FACES)]
        template = template_caption(labels, gender, seed)
        system = (("system", "Rewrite."),) if with_prefix else ()
        asked.append(
            ChatRequest((*system, ("user", template)), seed, partial(Constraint, template, labels, gender, vocabulary))
        )
    return asked


def texts(answers: list[Answer]) -> list[tuple[str | None, Failure | None]]:
    return [(answer.text, answer.failure) for answer in answers]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampling", "questions", "with_prefix", "threads"),
    [
        (GREEDY, free_questions, True, 1),
        (GREEDY, guided_questions, False, 2),
        (GREEDY, guided_questions, True, 1),
        (HOT_AND_SHORT, free_questions, False, 2),
        (HOT_AND_SHORT, guided_questions, True, 2),
    ],
)
def test_answers_equal_those_of_one_row_at_a_time(
    chat: Callable[..., LocalChatModel],
    sampling: Sampling,
    questions: Callable[[bool], list[ChatRequest]],
    with_prefix: bool,
    threads: int,
) -> None:
    asked = questions(with_prefix)
    batched = chat(4, threads).answer(asked, sampling)
    alone = [chat(1).answer([request], sampling)[0] for request in asked]
    assert texts(batched) == texts(alone)
    for together, single in zip(batched, alone, strict=True):
        assert together.fluency == (None if single.fluency is None else pytest.approx(single.fluency, abs=1e-3))


@pytest.mark.slow
def test_any_order_of_requests_gives_the_very_same_answers(chat: Callable[..., LocalChatModel]) -> None:
    asked = free_questions(with_prefix=True, count=40)
    order = random.Random(5).sample(range(40), 40)
    model = chat(4, threads=2)
    answers = model.answer(asked, HOT)
    shuffled = model.answer([asked[i] for i in order], HOT)
    assert len({answer.text for answer in answers}) > 5
    # Fluencies too, to the last bit: the same rows met in the same batches.
    assert shuffled == [answers[i] for i in order]


@pytest.mark.slow
def test_waiting_rows_join_the_batch_under_way(chat: Callable[..., LocalChatModel]) -> None:
    model = chat(4)
    asked = sorted(guided_questions(with_prefix=True, count=32), key=lambda request: len(request.messages[-1][1]))
    model.answer(asked[:1], HOT)
    rows_per_pass: list[int] = []

    def count(_: Any, __: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        if inputs["input_ids"].shape[1] == 1:
            rows_per_pass.append(inputs["input_ids"].shape[0])

    def passes(requests: list[ChatRequest]) -> int:
        rows_per_pass.clear()
        model.answer(requests, HOT)
        return len(rows_per_pass)

    hook = model._model.register_forward_pre_hook(count, with_kwargs=True)
    in_turns = sum(passes(asked[start : start + 4]) for start in range(0, 32, 4))
    together = passes(asked)
    hook.remove()
    assert together < 0.85 * in_turns
    full = sum(rows == 4 for rows in rows_per_pass)
    assert full > 0.8 * together


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Llama", "Qwen2"])
@pytest.mark.parametrize("prefix_tokens", [0, 11])
def test_logits_are_those_of_each_whole_text(kind: str, prefix_tokens: int) -> None:
    draw = random.Random(prefix_tokens)
    model, plain = tiny(kind), tiny(kind)  # the latter with the library's own attention
    assert shared_prefix.supports(model)
    shared = [draw.randrange(256) for _ in range(prefix_tokens)]
    shared_prefix.prepare(model)
    prefix = None
    if shared:
        with torch.inference_mode():
            prefix = shared_prefix.encode(model, torch.tensor([shared]))
    batch = RunningBatch(model, "cpu", prefix)
    rows: list[list[int]] = []

    def check(logits: torch.Tensor, found: list[list[int]]) -> None:
        assert logits.shape == (len(found), 258)
        for got, row in zip(logits, found, strict=True):
            with torch.inference_mode():
                expected = plain(torch.tensor([shared + row])).logits[0, -1]
            torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-3)

    for _ in range(60):
        action = draw.choice(["join", "step", "step", "step", "keep"]) if rows else "join"
        if action == "join":
            joining = [
                [draw.randrange(256) for _ in range(draw.choice([1, 3, 9, 30]))] for _ in range(draw.choice([1, 3]))
            ]
            joining += joining[: draw.randrange(2)]
            check(batch.join(joining), joining)
            rows += [list(row) for row in joining]
        elif action == "step":
            tokens = [draw.randrange(256) for _ in rows]
            rows = [[*row, token] for row, token in zip(rows, tokens, strict=True)]
            check(batch.step(tokens), rows)
        else:
            kept = sorted(draw.sample(range(len(rows)), draw.randrange(len(rows) + 1)))
            batch.keep(kept)
            rows = [rows[k] for k in kept]
        # Columns go with the rows that used them.
        if rows:
            assert batch._block is not None
            assert batch._block.mask.shape[1] == max(len(row) for row in rows)


def test_long_prompts_are_read_in_parts() -> None:
    model = tiny("Llama")
    shared_prefix.prepare(model)
    sizes: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _, __, inputs: sizes.append(inputs["input_ids"].numel()), with_kwargs=True
    )
    draw = random.Random(0)
    prompts = [[draw.randrange(256) for _ in range(length)] for length in (700, 700, 400, 400, 200, 100, 1500, 3)]
    logits = RunningBatch(model, "cpu").join(prompts)
    hook.remove()
    assert max(sizes) == 1500
    assert len(sizes) == 6
    for got, prompt in zip(logits, prompts, strict=True):
        with torch.inference_mode():
            expected = model(torch.tensor([prompt])).logits[0, -1]
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-3)
