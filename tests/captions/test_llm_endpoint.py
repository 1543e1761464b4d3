from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("openai", reason="the llm extra is not installed")

from facecaption_ml.captions.backends.chat import Answer, ChatModelError, ChatRequest, Failure, Sampling
from facecaption_ml.captions.backends.completion import is_refusal, read_completion
from facecaption_ml.captions.backends.endpoint import EndpointChatModel
from llm_server import ChatServer, running_chat_server

KEY = "sk-secret-1"
SAMPLING = Sampling()


@pytest.fixture(scope="module")
def _shared_server() -> Iterator[ChatServer]:
    with running_chat_server() as server:
        yield server


@pytest.fixture
def server(_shared_server: ChatServer) -> ChatServer:
    fresh = ChatServer(port=_shared_server.port)
    vars(_shared_server).update(vars(fresh))
    return _shared_server


def model(base_url: str, **changes: Any) -> EndpointChatModel:
    settings = {"timeout_s": 5.0, "retries": 1} | changes
    return EndpointChatModel(base_url, "some-model", KEY, **settings)


def questions(count: int) -> list[ChatRequest]:
    return [ChatRequest((("system", "Rewrite."), ("user", f"caption {i}")), 2**62 + i) for i in range(count)]


def one(base_url: str, **changes: Any) -> Answer:
    return model(base_url, **changes).answer(questions(1), SAMPLING)[0]


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that refuses: bound, so that nobody else gets it, and not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def test_request_carries_the_question_the_sampling_and_the_key(server: ChatServer) -> None:
    request = ChatRequest((("system", "Rewrite."), ("user", "hello")), 2**63 - 1)
    answers = model(server.url()).answer([request], Sampling(0.3, 0.8, 50))
    assert answers == [Answer("You said hello")]
    (body,) = server.bodies
    seed = body.pop("seed")
    assert 0 <= seed < 2**31
    assert body == {
        "model": "some-model",
        "messages": [{"role": "system", "content": "Rewrite."}, {"role": "user", "content": "hello"}],
        "temperature": 0.3,
        "top_p": 0.8,
        "max_tokens": 50,
    }
    assert f"authorization: bearer {KEY}" in server.heads[0].lower()


def test_key_of_openai_itself_is_never_sent_to_another_endpoint(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    assert EndpointChatModel(server.url(), "m").answer(questions(1), SAMPLING)[0].text
    assert "sk-of-openai" not in server.heads[0]


def test_answers_keep_their_order_and_the_bound_on_concurrency(server: ChatServer) -> None:
    asked = questions(200)
    chat = model(server.url("shuffled"), concurrency=7)
    answers = chat.answer(asked, SAMPLING)
    assert [answer.text for answer in answers] == [f"You said caption {i}" for i in range(200)]
    assert 2 <= server.most_open <= 7  # on a busy machine not all seven are open at once
    assert chat.answer([], SAMPLING) == []
    assert chat.answer(asked[3:5], SAMPLING) == answers[3:5]


def test_works_inside_a_running_event_loop(server: ChatServer) -> None:
    async def main() -> list[Answer]:
        return model(server.url()).answer(questions(2), SAMPLING)

    assert [answer.text for answer in asyncio.run(main())] == ["You said caption 0", "You said caption 1"]


@pytest.mark.parametrize("behaviour", ["500-then-good", "reset-then-good", "padded"])
def test_passing_trouble_is_outlived(server: ChatServer, behaviour: str) -> None:
    expected = "A woman." if behaviour == "padded" else "You said caption 0"
    assert one(server.url(behaviour)) == Answer(expected)


@pytest.mark.parametrize("behaviour", ["429-then-good", "503-then-good", "429-date"])
def test_retry_after_is_honoured(server: ChatServer, behaviour: str) -> None:
    assert one(server.url(behaviour)).text == "You said caption 0"
    asked, again = server.times
    assert again - asked > 0.9


def test_rate_limit_slows_the_client_down_instead_of_costing_rows(server: ChatServer) -> None:
    answers = model(server.url("20-per-second"), concurrency=16, retries=4).answer(questions(40), SAMPLING)
    assert [answer.failure for answer in answers] == [None] * 40


@pytest.mark.parametrize(
    ("behaviour", "failure", "attempts"),
    [
        ("429", Failure.RATE_LIMITED, 2),
        ("500", Failure.SERVER_ERROR, 2),
        ("502-page", Failure.SERVER_ERROR, 2),
        ("400", Failure.SERVER_ERROR, 1),
        ("filter", Failure.REFUSED, 1),
        ("reset", Failure.UNREACHABLE, 2),
        ("page", Failure.MALFORMED, 1),
        ("html-as-json", Failure.MALFORMED, 1),
        ("truncated-json", Failure.MALFORMED, 1),
        ("no-choices", Failure.MALFORMED, 1),
        ("empty-choices", Failure.MALFORMED, 1),
        ("null", Failure.MALFORMED, 1),
        ("list", Failure.MALFORMED, 1),
        ("error-in-200", Failure.MALFORMED, 1),
        ("choice-is-text", Failure.MALFORMED, 1),
        ("content-is-list", Failure.MALFORMED, 1),
        ("content-is-number", Failure.MALFORMED, 1),
        ("half-surrogate", Failure.MALFORMED, 1),
        ("not-utf8", Failure.MALFORMED, 1),
        ("deep", Failure.MALFORMED, 1),
        ("null-content", Failure.EMPTY, 1),
        ("empty", Failure.EMPTY, 1),
        ("blank", Failure.EMPTY, 1),
        ("refusal", Failure.REFUSED, 1),
        ("sorry", Failure.REFUSED, 1),
        ("as-an-ai", Failure.REFUSED, 1),
        ("content-filter", Failure.REFUSED, 1),
        ("length", Failure.TRUNCATED, 1),
        ("thinking-cut", Failure.THINKING, 1),
        ("thinking-only", Failure.THINKING, 1),
    ],
)
def test_bad_answer_is_the_failure_of_its_row(
    server: ChatServer, behaviour: str, failure: Failure, attempts: int
) -> None:
    answer = one(server.url(behaviour))
    assert (answer.text, answer.failure) == (None, failure)
    assert answer.detail
    assert "\n" not in answer.detail
    assert sum(server.asked.values()) == attempts


def test_slow_endpoint_is_a_timeout(server: ChatServer) -> None:
    start = time.monotonic()
    assert one(server.url("hang"), timeout_s=0.3).failure is Failure.TIMEOUT
    assert 0.6 <= time.monotonic() - start < 20


@pytest.mark.parametrize("behaviour", ["hang", "drip"])
def test_deadline_bounds_all_tries_together(server: ChatServer, behaviour: str) -> None:
    start = time.monotonic()
    assert one(server.url(behaviour), timeout_s=0.4, retries=50, deadline_s=1).failure is Failure.TIMEOUT
    assert time.monotonic() - start < 10  # not the 20 that 50 tries take


def test_seed_is_left_out_where_the_endpoint_knows_none(server: ChatServer) -> None:
    chat = model(server.url("no-seed"), concurrency=1)
    assert all(answer.text for answer in chat.answer(questions(5), SAMPLING))
    assert ["seed" in body for body in server.bodies] == [True] + [False] * 5
    assert all(answer.text for answer in model(server.url("no-seed"), concurrency=8).answer(questions(20), SAMPLING))


def test_host_without_a_name_is_unreachable() -> None:
    answer = one("http://no-such-host.invalid/v1")
    assert answer.failure is Failure.UNREACHABLE


@pytest.mark.parametrize(
    ("behaviour", "option", "words"),
    [
        ("401", "api_key", "key was refused"),
        ("403", "api_key", "key was refused"),
        ("quota", "api_key", "quota"),
        ("404", "model", "model 'some-model'"),
        ("400-model", "model", "model 'some-model'"),
        ("good/wrong", "endpoint", "endpoint http"),
        ("301", "endpoint", "elsewhere.example"),
    ],
)
def test_wrong_option_ends_the_run_with_one_line(
    server: ChatServer, behaviour: str, option: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ChatModelError, match=words) as raised:
        model(server.url(behaviour)).answer(questions(100), SAMPLING)
    assert raised.value.option == option
    assert "\n" not in str(raised.value)
    assert len(server.times) <= 32  # the requests that were in flight, and what they were tried again
    assert raised.value.__context__ is None
    assert KEY not in "".join(traceback.format_exception(raised.value))
    assert KEY not in caplog.text


def test_key_is_in_no_answer_log_or_representation(server: ChatServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    chat = model(server.url("echo-key"))
    (answer,) = chat.answer(questions(1), SAMPLING)
    assert answer.failure is Failure.SERVER_ERROR
    assert KEY not in answer.detail + repr(chat) + caplog.text + chat.model_id


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000/v1", "ftp://host/v1", "http://", "http://host:99999/v1", "http://[::1/v1", "http://h/?a=1"],
)
def test_wrong_address_is_named(url: str) -> None:
    with pytest.raises(ChatModelError, match=r"^endpoint .* is no address[^\n]*$"):
        EndpointChatModel(url, "m")


def test_secrets_in_the_wrong_place_are_not_repeated() -> None:
    with pytest.raises(ChatModelError, match="endpoint") as raised:
        EndpointChatModel("http://me:hunter2@host/v1", "m")
    assert "hunter2" not in str(raised.value)
    with pytest.raises(ChatModelError, match="api_key") as raised:
        EndpointChatModel("http://host/v1", "m", "sk hunter2")
    assert "hunter2" not in str(raised.value)
    with pytest.raises(ChatModelError, match="model"):
        EndpointChatModel("http://host/v1", " ")


def test_model_id_is_the_model_wherever_it_is_served() -> None:
    assert EndpointChatModel("http://host:8000/v1/", "org/m").model_id == "org/m"
    assert EndpointChatModel("http://other:8001/v1/", "org/m").model_id == "org/m"
    assert EndpointChatModel("http://host:8000/v1", "org/m", model_id="mine").model_id == "mine"


def test_dead_endpoint_is_given_up(dead_port: int, caplog: pytest.LogCaptureFixture) -> None:
    chat = model(f"http://127.0.0.1:{dead_port}/v1", retries=1)
    start = time.monotonic()
    answers = chat.answer(questions(5_000), SAMPLING)
    assert time.monotonic() - start < 8
    assert {answer.failure for answer in answers} == {Failure.UNREACHABLE}
    assert "not asked" in answers[-1].detail
    assert caplog.text.count("is given up") == 1
    start = time.monotonic()
    assert chat.answer(questions(100), SAMPLING)[-1].failure is Failure.UNREACHABLE
    assert time.monotonic() - start < 5


@pytest.mark.slow
@pytest.mark.parametrize(("behaviour", "failure"), [("hang", Failure.TIMEOUT), ("500", Failure.SERVER_ERROR)])
def test_endpoint_that_never_answers_well_is_left_alone(server: ChatServer, behaviour: str, failure: Failure) -> None:
    chat = model(server.url(behaviour), timeout_s=0.2, retries=0)
    answers = chat.answer(questions(2000), SAMPLING)
    assert {answer.failure for answer in answers} == {failure}
    assert len(server.times) < 100


def test_failures_between_good_answers_give_nothing_up(server: ChatServer) -> None:
    answers = model(server.url("every-other-500"), retries=0, concurrency=1).answer(questions(60), SAMPLING)
    assert [answer.failure for answer in answers] == [Failure.SERVER_ERROR, None] * 30


def test_restart_of_the_endpoint_costs_no_row() -> None:
    with running_chat_server() as server:
        port = server.port
    chat = model(f"http://127.0.0.1:{port}/good/v1", retries=5)
    answers: list[Answer] = []
    run = threading.Thread(target=lambda: answers.extend(chat.answer(questions(100), SAMPLING)))
    run.start()
    time.sleep(0.8)
    with running_chat_server(port):
        run.join(20)
    assert [answer.failure for answer in answers] == [None] * 100


def test_two_threads_share_one_model(server: ChatServer) -> None:
    chat = model(server.url("shuffled"), concurrency=3)
    results: dict[int, list[Answer]] = {}
    threads = [
        threading.Thread(target=lambda n=n: results.update({n: chat.answer(questions(20 + n), SAMPLING)}))
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert {n: len(answers) for n, answers in results.items()} == {0: 20, 1: 21, 2: 22}
    assert all(answer.text for answers in results.values() for answer in answers)
    assert server.most_open <= 3


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I am really sorry. I cannot describe people.",
        "Sorry, I can't do that.",
        "I cannot assist with describing faces.",
        "Unfortunately, I'm unable to rewrite this.",
        "I apologize, but this is not possible.",
        "I must decline this request.",
        "As a large language model, I have no eyes.",
        "Of course, but as an AI I can only guess.",
    ],
)
def test_usual_refusals_are_recognised(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "A woman with a sorry look and brown hair.",
        "He is unable to hide his smile, and his hair is black.",
        "As an aide of the king, he has a beard.",
        "The man, I must say, wears a hat.",
        "Icy eyes and an oval face make her attractive.",
    ],
)
def test_captions_are_not_taken_for_refusals(text: str) -> None:
    assert not is_refusal(text)
    assert read_completion(text, "stop") == Answer(text)


def test_vllm_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from facecaption_ml.captions.backends.vllm_offline import VllmChatModel

    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ChatModelError, match=r"pip install 'facecaption\[vllm\]'"):
        VllmChatModel("some/model")
