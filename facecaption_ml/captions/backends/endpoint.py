"""Captions from any OpenAI-compatible chat endpoint: vLLM, llama.cpp, TGI, ``transformers serve``, a hosted model."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from facecaption_ml.captions.backends.chat import Answer, ChatModelError, ChatRequest, Failure, Sampling
from facecaption_ml.captions.backends.completion import read_body

if TYPE_CHECKING:
    import openai

    from facecaption_ml.captions.backends.options import ChatOptions

_CONNECT_TIMEOUT_S: Final = 5.0
_FAILURES_TO_GIVE_UP: Final = 16  # in a row, each after its retries; with more requests in flight, as many as those
# Servers keep seeds in 32 bits (llama.cpp, where all ones mean "random") or in a double's 53; 31 bits mean the same to all.
_SEED_RANGE: Final = 2**31 - 1
_OF_THE_SERVER: Final = frozenset(
    {Failure.UNREACHABLE, Failure.TIMEOUT, Failure.RATE_LIMITED, Failure.SERVER_ERROR, Failure.MALFORMED}
)
_log = logging.getLogger("facecaption")


class EndpointChatModel:
    """A ChatModel behind ``base_url``, the address that ends in /v1; ``model`` is the name that the server knows.

    openai's client sends the requests, at most ``concurrency`` at a time, and tries again up to ``retries`` times where that
    can help (408, 409, 429, 5xx, lost connections, time-outs), after the pause that the server asks for. ``timeout_s`` bounds
    one HTTP request, ``deadline_s`` all tries of a question together. What then still fails is an Answer with a Failure.
    After 16 such failures in a row (``concurrency``, if that is more) the endpoint is given up: every further question gets
    the last failure at once. ``model_id`` is "MODEL@HOST:PORT" unless given: name it yourself where the same weights move
    between hosts.

    Raises ChatModelError for an address, a key or a number that cannot be right, and where openai is not installed.
    """

    supports_constraints = False

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
        model_id: str | None = None,
    ) -> None:
        self.base_url = _checked_url(base_url)
        self.model = model.strip()
        if not self.model:
            raise ChatModelError("model is empty; name the one that the endpoint serves", option="model")
        self._key = (api_key or "").strip()
        if not (self._key.isascii() and self._key.isprintable()) or " " in self._key:
            raise ChatModelError("the key holds a space, a line break or a letter that no key has", option="api_key")
        if concurrency < 1 or retries < 0 or min(timeout_s, deadline_s) <= 0:
            raise ChatModelError("concurrency and the time limits of an endpoint must be positive, retries 0 or more")
        try:
            import openai  # noqa: F401
        except ImportError:
            raise ChatModelError("an endpoint needs openai: pip install 'facecaption[llm]'") from None
        self.concurrency, self.timeout_s, self.deadline_s, self.retries = concurrency, timeout_s, deadline_s, retries
        self.model_id = model_id or f"{self.model}@{urlsplit(self.base_url).netloc}"
        self._send_seed = True
        self._failures = 0
        self._given_up: Answer | None = None
        self._one_run = threading.Lock()

    @classmethod
    def from_options(cls, options: ChatOptions, **_: Any) -> EndpointChatModel:
        """See ``options.open_chat_model``; the machine's device, threads and cache do not matter."""
        key, concurrency = options.api_key.get_secret_value(), options.concurrency
        return cls(options.endpoint, options.model, key, concurrency=concurrency, timeout_s=options.timeout_s)

    def answer(self, requests: Sequence[ChatRequest], sampling: Sampling) -> list[Answer]:
        """An answer for each request, in their order. One run at a time: a second thread waits.

        Raises ChatModelError where the key or the model's name is refused, or the address is not an API.
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

            async def ask(request: ChatRequest) -> Answer:
                async with places:
                    return self._given_up or self._counted(await self._ask(client, request, sampling))

            return await asyncio.gather(*map(ask, requests))

    def _counted(self, answer: Answer) -> Answer:
        """The answer; gives the endpoint up after too many failures in a row."""
        self._failures = self._failures + 1 if answer.failure in _OF_THE_SERVER else 0
        if self._given_up is None and self._failures >= max(_FAILURES_TO_GIVE_UP, self.concurrency):
            detail = f"not asked after {self._failures} failures in a row; the last: {answer.detail}"
            self._given_up = Answer(failure=answer.failure, detail=detail)
            _log.warning("%s is given up, %s: %s", self.base_url, answer.failure, detail)
        return answer

    async def _ask(self, client: openai.AsyncOpenAI, request: ChatRequest, sampling: Sampling) -> Answer:
        import httpx2
        import openai

        with_seed = self._send_seed
        messages: Any = [{"role": role, "content": content} for role, content in request.messages]
        try:
            async with asyncio.timeout(self.deadline_s):
                response = await client.chat.completions.with_raw_response.create(
                    model=self.model,
                    messages=messages,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    max_tokens=sampling.max_new_tokens,
                    seed=request.seed % _SEED_RANGE if with_seed else openai.omit,
                )
            answer = read_body(response.content)
            return Answer(answer.text, answer.failure, self._redacted(answer.detail))
        except openai.APIStatusError as error:
            body, status = error.body if isinstance(error.body, dict) else {}, error.status_code
            code, headers = error.code or error.type, error.response.headers
            said = str(body.get("message") or headers.get("Location") or error.response.text)
        except TimeoutError:
            return Answer(failure=Failure.TIMEOUT, detail=f"no answer within {self.deadline_s:.0f} s")
        except openai.APIError as error:
            cause = error.__cause__ or error
            slow = isinstance(error, openai.APITimeoutError) and not isinstance(cause, httpx2.ConnectTimeout)
            detail = self._redacted(f"{type(cause).__name__} {cause}".strip())
            return Answer(failure=Failure.TIMEOUT if slow else Failure.UNREACHABLE, detail=detail)
        # Outside the handler: what is raised here must not carry the server's own words along as its context.
        said = self._redacted(said)
        if with_seed and status in (400, 422) and "seed" in said.lower():
            self._send_seed = False  # a server that knows no seeds
            return await self._ask(client, request, sampling)
        return self._refusal(status, code, said)

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

    def _refusal(self, status: int, code: str | None, said: str) -> Answer:
        """What an HTTP status other than 2xx means. Raises ChatModelError where it will mean the same for every request."""
        if status in (401, 403):
            raise ChatModelError(f"the key was refused by {self.base_url}: {status} {said}", option="api_key")
        if status == 404 or code == "model_not_found":
            wrong = f"model {self.model!r} or endpoint {self.base_url} is wrong: {status} {said}"
            raise ChatModelError(wrong, option="model" if code == "model_not_found" else "endpoint")
        if code == "insufficient_quota":
            raise ChatModelError(f"the quota of the key is used up at {self.base_url}: {said}", option="api_key")
        if 300 <= status < 400:
            raise ChatModelError(f"{self.base_url} leads to {said}: set the final address", option="endpoint")
        if code in ("content_filter", "content_policy_violation"):
            return Answer(failure=Failure.REFUSED, detail=said)
        failure = Failure.RATE_LIMITED if status == 429 else Failure.SERVER_ERROR
        return Answer(failure=failure, detail=f"{status} {said}")

    def _redacted(self, text: str) -> str:
        """One line of at most 200 characters without the key, which servers like to quote."""
        if self._key:
            text = text.replace(self._key, "[key]")
        return " ".join(text[:400].split())[:200]


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
