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
    settings = {"timeout_s": 5.0, "retries": 2, "backoff_s": 0.01, "patience_s": 60.0} | changes
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
    seen: list[int] = []
    threads = set()

    def on_answer(index: int, answer: Answer) -> None:
        assert answer.text == f"You said caption {index}"
        seen.append(index)
        threads.add(threading.current_thread())

    chat = model(server.url("shuffled"), concurrency=7)
    answers = chat.answer(asked, SAMPLING, on_answer)
    assert [answer.text for answer in answers] == [f"You said caption {i}" for i in range(200)]
    assert sorted(seen) == list(range(200))
    assert seen != sorted(seen), "the server did not shuffle"
    assert threads == {threading.current_thread()}
    assert server.most_open == 7
    assert chat.answer([], SAMPLING) == []
    assert chat.answer(asked[3:5], SAMPLING) == answers[3:5]


def test_works_inside_a_running_event_loop(server: ChatServer) -> None:
    async def main() -> list[Answer]:
        return model(server.url()).answer(questions(2), SAMPLING)

    assert [answer.text for answer in asyncio.run(main())] == ["You said caption 0", "You said caption 1"]


def test_what_on_answer_raises_ends_the_run(server: ChatServer) -> None:
    def on_answer(index: int, answer: Answer) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        model(server.url("shuffled"), concurrency=4).answer(questions(50), SAMPLING, on_answer)
    assert sum(server.asked.values()) < 50


@pytest.mark.parametrize("behaviour", ["500-then-good", "reset-then-good", "padded"])
def test_passing_trouble_is_outlived(server: ChatServer, behaviour: str) -> None:
    expected = "A woman." if behaviour == "padded" else "You said caption 0"
    assert one(server.url(behaviour)) == Answer(expected)


@pytest.mark.parametrize("behaviour", ["429-then-good", "503-then-good", "429-date"])
def test_retry_after_is_honoured_by_every_request(server: ChatServer, behaviour: str) -> None:
    answers = model(server.url(behaviour), concurrency=2).answer(questions(2), SAMPLING)
    assert [answer.text for answer in answers] == [f"You said caption {i}" for i in range(2)]
    gaps = [later - earlier for earlier, later in zip(server.times, server.times[1:], strict=False)]
    # Two are asked, both told to wait; nothing else is asked meanwhile.
    assert gaps[1] > 0.9


def test_retry_after_is_honoured_up_to_a_cap(server: ChatServer) -> None:
    start = time.monotonic()
    assert one(server.url("429-then-good"), max_pause_s=0.1).text
    assert time.monotonic() - start < 0.8


def test_rate_limit_slows_the_client_down_instead_of_costing_rows(server: ChatServer) -> None:
    chat = model(server.url("20-per-second"), concurrency=16, retries=4, backoff_s=0.4)
    answers = chat.answer(questions(60), SAMPLING)
    assert [answer.failure for answer in answers] == [None] * 60
    assert chat.pacing.limit < 16


@pytest.mark.parametrize(
    ("behaviour", "failure", "attempts"),
    [
        ("429", Failure.RATE_LIMITED, 3),
        ("500", Failure.SERVER_ERROR, 3),
        ("502-page", Failure.SERVER_ERROR, 3),
        ("endless-500", Failure.MALFORMED, 3),
        ("400", Failure.SERVER_ERROR, 1),
        ("filter", Failure.REFUSED, 1),
        ("reset", Failure.UNREACHABLE, 3),
        ("page", Failure.MALFORMED, 3),
        ("html-as-json", Failure.MALFORMED, 3),
        ("truncated-json", Failure.MALFORMED, 3),
        ("no-choices", Failure.MALFORMED, 3),
        ("empty-choices", Failure.MALFORMED, 3),
        ("null", Failure.MALFORMED, 3),
        ("list", Failure.MALFORMED, 3),
        ("error-in-200", Failure.MALFORMED, 3),
        ("choice-is-text", Failure.MALFORMED, 3),
        ("content-is-list", Failure.MALFORMED, 3),
        ("content-is-number", Failure.MALFORMED, 3),
        ("half-surrogate", Failure.MALFORMED, 3),
        ("not-utf8", Failure.MALFORMED, 3),
        ("deep", Failure.MALFORMED, 3),
        ("gzip-bomb", Failure.MALFORMED, 3),
        ("endless", Failure.MALFORMED, 3),
        ("null-content", Failure.EMPTY, 1),
        ("empty", Failure.EMPTY, 1),
        ("blank", Failure.EMPTY, 1),
        ("refusal", Failure.REFUSED, 1),
        ("sorry", Failure.REFUSED, 1),
        ("as-an-ai", Failure.REFUSED, 1),
        ("content-filter", Failure.REFUSED, 1),
        ("length", Failure.TRUNCATED, 1),
    ],
)
def test_bad_answer_is_the_failure_of_its_row(
    server: ChatServer, behaviour: str, failure: Failure, attempts: int
) -> None:
    answer = one(server.url(behaviour), max_body_bytes=200_000)
    assert (answer.text, answer.failure) == (None, failure)
    assert answer.detail
    assert "\n" not in answer.detail
    assert sum(server.asked.values()) == attempts
    assert server.bytes_sent < 60_000_000  # what the kernel's buffers hold, not the two gigabytes that were to come


@pytest.mark.parametrize("behaviour", ["hang", "drip"])
def test_slow_endpoint_is_a_timeout(server: ChatServer, behaviour: str) -> None:
    start = time.monotonic()
    assert one(server.url(behaviour), timeout_s=0.3, retries=1).failure is Failure.TIMEOUT
    assert 0.6 <= time.monotonic() - start < 2


def test_deadline_bounds_all_attempts_together(server: ChatServer) -> None:
    start = time.monotonic()
    assert one(server.url("hang"), timeout_s=0.4, retries=50, deadline_s=1).failure is Failure.TIMEOUT
    assert time.monotonic() - start < 2


def test_seed_is_left_out_where_the_endpoint_knows_none(server: ChatServer) -> None:
    chat = model(server.url("no-seed"), concurrency=1)
    assert all(answer.text for answer in chat.answer(questions(5), SAMPLING))
    assert ["seed" in body for body in server.bodies] == [True] + [False] * 5


def test_host_without_a_name_is_unreachable() -> None:
    answer = one("http://no-such-host.invalid/v1")
    assert answer.failure is Failure.UNREACHABLE


@pytest.mark.parametrize(
    ("behaviour", "setting"),
    [
        ("401", "FACECAPTION_LLM_API_KEY"),
        ("403", "FACECAPTION_LLM_API_KEY"),
        ("quota", "FACECAPTION_LLM_API_KEY"),
        ("404", "FACECAPTION_LLM_MODEL 'some-model'"),
        ("400-model", "FACECAPTION_LLM_MODEL 'some-model'"),
        ("good/wrong", "FACECAPTION_LLM_ENDPOINT"),
        ("301", "FACECAPTION_LLM_ENDPOINT"),
    ],
)
def test_wrong_setting_ends_the_run_with_one_line(
    server: ChatServer, behaviour: str, setting: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ChatModelError, match=setting) as raised:
        model(server.url(behaviour)).answer(questions(100), SAMPLING)
    assert "\n" not in str(raised.value)
    assert len(server.times) <= 32  # the requests that were in flight
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
    with pytest.raises(ChatModelError, match=r"^FACECAPTION_LLM_ENDPOINT .* is no address[^\n]*$"):
        EndpointChatModel(url, "m")


def test_secrets_in_the_wrong_place_are_not_repeated() -> None:
    with pytest.raises(ChatModelError, match="FACECAPTION_LLM_API_KEY") as raised:
        EndpointChatModel("http://me:hunter2@host/v1", "m")
    assert "hunter2" not in str(raised.value)
    with pytest.raises(ChatModelError, match="FACECAPTION_LLM_API_KEY") as raised:
        EndpointChatModel("http://host/v1", "m", "sk hunter2")
    assert "hunter2" not in str(raised.value)
    with pytest.raises(ChatModelError, match="FACECAPTION_LLM_MODEL"):
        EndpointChatModel("http://host/v1", " ")


def test_model_id_names_model_and_host() -> None:
    assert EndpointChatModel("http://host:8000/v1/", "org/m").model_id == "org/m@host:8000"
    assert EndpointChatModel("http://host/v1", "m", model_id="m@2024").model_id == "m@2024"


def test_dead_endpoint_costs_no_retries_per_row(dead_port: int) -> None:
    chat = model(f"http://127.0.0.1:{dead_port}/v1", retries=4, patience_s=1, backoff_s=0.2)
    start = time.monotonic()
    answers = chat.answer(questions(10_000), SAMPLING)
    assert time.monotonic() - start < 8
    assert {answer.failure for answer in answers} == {Failure.UNREACHABLE}
    assert "not asked" in answers[-1].detail
    start = time.monotonic()
    assert chat.answer(questions(100), SAMPLING)[-1].failure is Failure.UNREACHABLE
    assert time.monotonic() - start < 1


@pytest.mark.parametrize(("behaviour", "failure"), [("hang", Failure.TIMEOUT), ("500", Failure.SERVER_ERROR)])
def test_endpoint_that_never_answers_well_is_left_alone(server: ChatServer, behaviour: str, failure: Failure) -> None:
    chat = model(server.url(behaviour), timeout_s=0.2, patience_s=0, probe_after_s=60)
    answers = chat.answer(questions(2000), SAMPLING)
    assert {answer.failure for answer in answers} == {failure}
    assert len(server.times) < 100


def test_endpoint_that_comes_back_is_found_by_one_probe(server: ChatServer) -> None:
    chat = model(server.url(), concurrency=8, patience_s=0, probe_after_s=0.3)
    server.down = True
    assert chat.answer(questions(500), SAMPLING)[-1].failure is Failure.UNREACHABLE
    time.sleep(0.35)
    before = len(server.times)
    chat.answer(questions(500), SAMPLING)
    assert len(server.times) == before + 1  # the probe
    server.down = False
    time.sleep(0.65)
    answers = chat.answer(questions(500), SAMPLING)
    # While the probe is under way, the others are still turned away; after it everything flows.
    assert [answer.failure for answer in chat.answer(questions(500), SAMPLING)] == [None] * 500
    assert any(answer.text for answer in answers)


def test_restart_of_the_endpoint_costs_no_row() -> None:
    with running_chat_server() as server:
        port = server.port
    chat = model(f"http://127.0.0.1:{port}/good/v1", retries=5, backoff_s=0.2, patience_s=10)
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
