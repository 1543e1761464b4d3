"""Captions from any OpenAI-compatible chat endpoint: vLLM, llama.cpp, TGI, ``transformers serve``, a hosted model."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from facecaption_ml.captions.backends.chat import Answer, ChatModelError, ChatRequest, Failure, Sampling
from facecaption_ml.captions.backends.client_errors import ClientErrors, HttpError, same_every_time, wrong_option
from facecaption_ml.captions.backends.completion import read_body
from facecaption_ml.captions.backends.request_fields import RequestFields
from facecaption_ml.captions.backends.server_words import error_message, one_line

if TYPE_CHECKING:
    import openai

    from facecaption_ml.captions.backends.options import ChatOptions

_CONNECT_TIMEOUT_S: Final = 5.0
_FAILURES_TO_GIVE_UP: Final = 16  # in a row, each after its retries; with more requests in flight, as many as those
_MOST_FIELDS_REFUSED: Final = 6
_MOST_LOGGED: Final = 20  # kinds of errors
_log = logging.getLogger("facecaption")


class EndpointChatModel:
    """A ChatModel behind ``base_url``, the address that ends in /v1; ``model`` is the name that the server knows.

    openai's client sends the requests, at most ``concurrency`` at a time, and tries again up to ``retries`` times where that
    can help (408, 409, 429, 5xx, lost connections, time-outs), after the pause that the server asks for. ``timeout_s`` bounds
    one HTTP request, ``deadline_s`` all tries of a question together. What then still fails is an Answer with a Failure.
    After 16 such failures in a row (``concurrency``, if that is more) the endpoint is given up: every further question gets
    the last failure at once. After ``client_errors`` equal client errors in a row (402, 400 …) nothing more is asked either,
    and ChatModelError says so. A field that the server refuses by name (``seed``, ``temperature``, ``top_p``) is left out from
    then on, and ``max_tokens`` becomes ``max_completion_tokens``. ``model_id`` is the model's name: the same weights keep
    their answers wherever they are served.

    Raises ChatModelError for an address, a key or a number that cannot be right, and where openai is not installed.
    """

    supports_constraints = False
    batched = False

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None = None,
        *,
        concurrency: int = 16,
        timeout_s: float = 60.0,
        deadline_s: float = 300.0,
        retries: int = 4,
        client_errors: int = 8,
        model_id: str | None = None,
    ) -> None:
        self.base_url = _checked_url(base_url)
        self.model = model.strip()
        if not self.model:
            raise ChatModelError("model is empty; name the one that the endpoint serves", option="model")
        self._key = (api_key or "").strip()
        if not (self._key.isascii() and self._key.isprintable()) or " " in self._key:
            raise ChatModelError("the key holds a space, a line break or a letter that no key has", option="api_key")
        if min(concurrency, client_errors) < 1 or retries < 0 or min(timeout_s, deadline_s) <= 0:
            raise ChatModelError("concurrency and the limits of an endpoint must be positive, retries 0 or more")
        try:
            import openai  # noqa: F401
        except ImportError:
            raise ChatModelError("an endpoint needs openai: pip install 'facecaption[llm]'") from None
        self.concurrency, self.timeout_s, self.deadline_s, self.retries = concurrency, timeout_s, deadline_s, retries
        self.model_id = model_id or self.model
        self.fields = RequestFields()
        self._client_errors = ClientErrors(client_errors)
        self._failures = 0
        self._given_up: Answer | None = None
        self._refused: ChatModelError | None = None
        self._logged: set[tuple[int, str | None, str]] = set()
        self._one_run = threading.Lock()

    @classmethod
    def from_options(cls, options: ChatOptions, **_: Any) -> EndpointChatModel:
        """See ``options.open_chat_model``; the machine's device, threads and cache do not matter."""
        return cls(
            options.endpoint,
            options.model,
            options.api_key.get_secret_value(),
            concurrency=options.concurrency,
            timeout_s=options.timeout_s,
            client_errors=options.client_errors,
        )

    def answer(self, requests: Sequence[ChatRequest], sampling: Sampling) -> list[Answer]:
        """An answer for each request, in their order. One run at a time: a second thread waits.

        Raises ChatModelError where the key or the model's name is refused, the address is not an API, or every request gets
        the same client error; what was answered before is in its ``answers``.
        """
        running = None
        with contextlib.suppress(RuntimeError):
            running = asyncio.get_running_loop()
        with self._one_run:
            if running is None:
                return asyncio.run(self._answer_all(requests, sampling))
            with ThreadPoolExecutor(1) as thread:  # a notebook's thread, which runs a loop already
                return thread.submit(asyncio.run, self._answer_all(requests, sampling)).result()

    def close(self) -> None:
        """Nothing stays open between runs."""

    async def _answer_all(self, requests: Sequence[ChatRequest], sampling: Sampling) -> list[Answer]:
        places = asyncio.Semaphore(self.concurrency)
        async with self._client() as client:

            async def ask(request: ChatRequest) -> Answer | None:
                async with places:
                    if self._refused:
                        return None
                    return self._given_up or self._counted(await self._ask(client, request, sampling))

            answers = await asyncio.gather(*map(ask, requests))
        if self._refused:
            error = ChatModelError(str(self._refused.args[0]), self._refused.option)
            error.answers = answers
            raise error
        return [answer for answer in answers if answer is not None]

    def _counted(self, answer: Answer) -> Answer:
        """The answer; gives the endpoint up after too many failures in a row."""
        self._failures = self._failures + 1 if answer.failure and answer.failure.of_server else 0
        if self._given_up is None and self._failures >= max(_FAILURES_TO_GIVE_UP, self.concurrency):
            detail = f"not asked after {self._failures} failures in a row; the last: {answer.detail}"
            self._given_up = Answer(failure=answer.failure, detail=detail, said=answer.said, asked=False)
            _log.warning("%s is given up, %s: %s", self.base_url, answer.failure, detail)
        return answer

    async def _ask(self, client: openai.AsyncOpenAI, request: ChatRequest, sampling: Sampling) -> Answer:
        for _ in range(_MOST_FIELDS_REFUSED):
            fields = self.fields.of(sampling, request.seed)
            answer = await self._sent(client, request, fields)
            if isinstance(answer, Answer):
                return answer
            if not self.fields.learn(fields, sampling, answer.status, answer.code, answer.said):
                break
        return self._refusal(answer)

    async def _sent(
        self, client: openai.AsyncOpenAI, request: ChatRequest, fields: dict[str, Any]
    ) -> Answer | HttpError:
        import httpx2
        import openai

        messages: Any = [{"role": role, "content": content} for role, content in request.messages]
        try:
            async with asyncio.timeout(self.deadline_s):
                response = await client.chat.completions.with_raw_response.create(
                    model=self.model, messages=messages, extra_body=fields
                )
            answer = read_body(response.content)
            self._client_errors.good_answer()
            return replace(answer, detail=self._redacted(answer.detail), said=self._redacted(answer.said))
        except openai.APIStatusError as error:
            said = error_message(error.body) or error.response.headers.get("Location") or error.response.text
            # Made of plain texts: what is raised later must not carry the server's own words along as its context.
            return HttpError(error.status_code, error.code or error.type, self._redacted(str(said)))
        except TimeoutError:
            return Answer(failure=Failure.TIMEOUT, detail=f"no answer within {self.deadline_s:.0f} s")
        except openai.APIError as error:
            cause = error.__cause__ or error
            slow = isinstance(error, openai.APITimeoutError) and not isinstance(cause, httpx2.ConnectTimeout)
            detail = self._redacted(f"{type(cause).__name__} {cause}".strip())
            return Answer(failure=Failure.TIMEOUT if slow else Failure.UNREACHABLE, detail=detail)

    def _client(self) -> openai.AsyncOpenAI:
        import openai

        timeout = openai.Timeout(self.timeout_s, connect=_CONNECT_TIMEOUT_S)
        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._key or "none",  # explicit, or openai would send its own service's key from the environment
            max_retries=self.retries,
            timeout=timeout,
            http_client=openai.DefaultAsyncHttpxClient(timeout=timeout, follow_redirects=False),
        )

    def _refusal(self, error: HttpError) -> Answer:
        """What an HTTP status other than 2xx means for its row; notes where it will mean the same for every request."""
        if error.kind not in self._logged and len(self._logged) < _MOST_LOGGED:
            self._logged.add(error.kind)
            _log.warning("%s answers %s", self.base_url, error.words)
        refused = wrong_option(error, self.base_url, self.model)
        if refused is None and self._client_errors.ends_asking(error):
            refused = same_every_time(error, self.base_url, self._client_errors.most)
        self._refused = self._refused or refused
        return error.answer

    def _redacted(self, text: str) -> str:
        """One line of at most 200 characters without the key, which servers like to quote."""
        return one_line(text, self._key)


def _checked_url(base_url: str) -> str:
    """The address without a trailing slash. Raises ChatModelError, which never shows a password in it."""
    url = base_url.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
        parts = urlsplit("")
    if "@" in url:
        raise ChatModelError("the address holds a user or a password; the key has its own option", option="endpoint")
    if not valid or parts.query or parts.fragment:
        raise ChatModelError(f"endpoint {url!r} is no address like http://host:8000/v1", option="endpoint")
    return url
