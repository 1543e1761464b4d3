"""What an endpoint does not take, will not do or charges for: fields left out, the asking that ends, words, tokens."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from facecaption_ml.captions.backends.chat import ChatModelError, ChatRequest, Failure, Sampling
from facecaption_ml.captions.backends.client_errors import HttpError
from facecaption_ml.captions.backends.completion import read_body
from facecaption_ml.captions.backends.server_words import error_message, one_line
from facecaption_ml.captions.rewrite.options import RewritingOptions
from llm_server import ChatServer, completion, running_chat_server

pytest.importorskip("openai", reason="the llm extra is not installed")

from facecaption_ml.captions.backends.endpoint import EndpointChatModel

KEY = "sk-secret-1"
SAMPLING = Sampling()


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with running_chat_server() as running:
        yield running


def model(base_url: str, **changes: Any) -> EndpointChatModel:
    return EndpointChatModel(base_url, "some-model", KEY, **{"timeout_s": 5.0, "retries": 1, **changes})


def questions(count: int) -> list[ChatRequest]:
    return [ChatRequest((("user", f"caption {i}"),), i) for i in range(count)]


def test_fields_that_a_reasoning_model_refuses_are_renamed_or_left_out(server: ChatServer) -> None:
    chat = model(server.url("reasoning"), concurrency=1)
    assert all(answer.text for answer in chat.answer(questions(6), SAMPLING))
    assert len(server.bodies) == 6 + 3  # one refusal each: max_tokens, temperature, top_p
    last = server.bodies[-1]
    assert last["max_completion_tokens"] == SAMPLING.max_new_tokens
    assert not {"max_tokens", "temperature", "top_p"} & last.keys()
    assert "seed" in last
    assert chat.fields.left_out == {"temperature", "top_p"}


def test_many_requests_in_flight_learn_together(server: ChatServer) -> None:
    answers = model(server.url("reasoning"), concurrency=16).answer(questions(60), SAMPLING)
    assert all(answer.text for answer in answers)
    assert len(server.bodies) <= 60 + 3 * 16


def test_of_two_fields_that_exclude_each_other_one_stays(server: ChatServer) -> None:
    assert model(server.url("one-of-two")).answer(questions(1), SAMPLING)[0].text
    assert "temperature" in server.bodies[-1]
    assert "top_p" not in server.bodies[-1]


def test_a_server_that_knows_max_tokens_alone_gets_it(server: ChatServer) -> None:
    chat = model(server.url("old"))
    chat.fields.limit = "max_completion_tokens"
    assert chat.answer(questions(1), SAMPLING)[0].text
    assert "max_tokens" in server.bodies[-1]


def test_the_extra_body_is_merged_into_each_request(server: ChatServer) -> None:
    extra = '{"chat_template_kwargs": {"enable_thinking": false}, '
    extra += '"top_p": null, "max_completion_tokens": 600, "temperature": 1}'
    sampling = RewritingOptions(extra_body=extra).sampling  # type: ignore[arg-type]
    assert model(server.url()).answer(questions(1), sampling)[0].text
    body = server.bodies[-1]
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert (body["temperature"], body["max_completion_tokens"]) == (1, 600)
    assert not {"top_p", "max_tokens"} & body.keys()


def test_a_field_of_the_extra_body_that_is_refused_ends_the_asking(server: ChatServer) -> None:
    sampling = RewritingOptions(extra_body={"colour": "blue"}).sampling
    with pytest.raises(ChatModelError, match=r"422 body\.colour: Extra inputs are not permitted"):
        model(server.url("422-unknown-field")).answer(questions(100), sampling)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("{", "not JSON"),
        ("[1]", "JSON object"),
        ("3", "JSON object"),
        ('{"model": "x"}', "'model' cannot be set here"),
        ('{"stream": true}', "'stream' cannot be set here"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
    ],
)
def test_an_extra_body_that_cannot_be_right_is_named(given: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RewritingOptions(extra_body=given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("402", "402 This request requires more credits."),
        ("400", "400 this model's context is 16 tokens"),
        ("400-counted", "400 prompt of"),
        ("400-text", "400 prompt too long"),
        ("400-detail", "Unexpected fields in the request"),
        ("400-page", "400 Bad Request"),
    ],
)
def test_equal_client_errors_end_the_asking_with_the_servers_words(
    server: ChatServer, behaviour: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    chat = model(server.url(behaviour), client_errors=5, concurrency=4)
    with pytest.raises(ChatModelError) as caught:
        chat.answer(questions(300), SAMPLING)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert 5 <= len(server.times) <= 5 + 3  # what was in flight
    assert caught.value.__context__ is None
    assert words in caplog.text
    with pytest.raises(ChatModelError):
        chat.answer(questions(1), SAMPLING)
    assert len(server.times) <= 5 + 3  # nothing more is asked


def test_answers_before_the_end_of_the_credit_are_handed_over(server: ChatServer) -> None:
    server.credit = 20
    with pytest.raises(ChatModelError, match="402") as caught:
        model(server.url("credit"), concurrency=4).answer(questions(100), SAMPLING)
    assert len(caught.value.answers) == 100
    assert sum(answer is not None and answer.text is not None for answer in caught.value.answers) == 20


def test_client_errors_between_good_answers_end_nothing(server: ChatServer) -> None:
    answers = model(server.url("every-other-400"), client_errors=2, concurrency=1).answer(questions(40), SAMPLING)
    assert [answer.failure for answer in answers] == [Failure.SERVER_ERROR, None] * 20
    assert answers[0].reason == "endpoint error: 400 this model's context is 16 tokens"


def test_errors_are_alike_whatever_numbers_they_name() -> None:
    errors = [HttpError(400, None, f"prompt of {n} tokens is too long (request id: 7f{n}a)") for n in range(3)]
    assert len({error.kind for error in errors}) == 1
    assert HttpError(400, None, "temperature is too hot").kind != errors[0].kind


def test_usage_is_read_and_thinking_in_a_field_of_its_own_is_not_text(server: ChatServer) -> None:
    (answer,) = model(server.url("usage")).answer(questions(1), SAMPLING)
    assert (answer.prompt_tokens, answer.completion_tokens) == (200, 30)
    (answer,) = model(server.url("thinking-apart")).answer(questions(1), SAMPLING)
    assert answer.text == "A woman."


@pytest.mark.parametrize(
    "usage", ["none", None, {}, {"prompt_tokens": "7"}, {"prompt_tokens": -7}, {"prompt_tokens": True}]
)
def test_usage_that_is_none_counts_nothing(usage: object) -> None:
    import json

    answer = read_body(json.dumps({**completion("A woman."), "usage": usage}).encode())
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == ("A woman.", 0, 0)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "no credit"}}, "no credit"),
        ({"error": "no credit", "error_type": "validation"}, "no credit"),
        ({"detail": "no credit"}, "no credit"),
        ({"detail": [{"loc": ["body", "n"], "msg": "too many"}]}, "body.n: too many"),
        ({"message": "no credit", "code": 402}, "no credit"),
        ({"error": {"error": {"message": "no credit"}}}, "no credit"),
        ({"errors": ["no credit"]}, "no credit"),
        ({"error": None, "x": 1}, None),
        ([1], None),
        (None, None),
    ],
)
def test_the_words_of_an_error_are_found_however_it_is_spelt(body: object, message: str | None) -> None:
    assert error_message(body) == message


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-Abc123def456ghi789",
        "Authorization: Bearer abcdef.123456",
        "api_key=abcdef123456",
        '"x-api-key": "abcdef123456"',
        "https://user:abcdef123456@host/v1",
        "https://host/v1?token=abcdef123456",
        "hf_Abcdef123456",
        "eyJhbGciOiJIUzI1NiJ9.abcdef123456",
    ],
)
def test_words_of_a_server_carry_no_secret(secret: str) -> None:
    said = one_line(f"wrong: {secret} was given", "sk-other")
    assert "abcdef" not in said.lower()
    assert "Abc123" not in said
    assert said.startswith("wrong: ")


@examples(200)
@given(st.text(max_size=500))
def test_words_of_a_server_are_one_short_plain_line(text: str) -> None:
    said = one_line(text + KEY, KEY)
    assert len(said) <= 200
    assert said.isprintable()
    assert KEY not in said


def test_log_names_each_kind_of_error_once(server: ChatServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    model(server.url("500"), retries=0).answer(questions(10), SAMPLING)
    assert caplog.text.count("answers 500 oh") == 1
