"""Captions from any OpenAI-compatible chat endpoint: vLLM, llama.cpp, TGI, ``transformers serve``, a hosted model."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from facecaption_ml.captions.backends.chat import Answer, ChatModelError, ChatRequest, Failure, Sampling
from facecaption_ml.captions.backends.completion import read_completion
from facecaption_ml.captions.backends.pacing import Pacing

if TYPE_CHECKING:
    import httpx2
    import openai

_MAX_BACKOFF_S = 30.0
# Servers keep seeds in 32 bits (llama.cpp, where all ones mean "random") or in a double's 53; 31 bits mean the same to all.
_SEED_RANGE = 2**31 - 1


class _BodyRejectedError(Exception):
    """The body is too long to be a chat completion, or compressed although that was not asked for."""


@dataclass(frozen=True)
class _Attempt:
    """What one HTTP request brought.

    ``final``: asking again would bring the same. ``retry_after_s``: the pause the server asked for. ``about_seed``: the server
    complains about the seed.
    """

    answer: Answer
    final: bool
    retry_after_s: float | None = None
    about_seed: bool = False


class EndpointChatModel:
    """A ChatModel behind ``base_url``, the address that ends in /v1.

    Every problem of one request ends as an Answer with a Failure, after ``retries`` retries with exponential backoff (jitter
    from the request's seed) where trying again can help. ``timeout_s`` bounds one HTTP request from connecting to the last
    byte, ``connect_timeout_s`` the connecting, ``deadline_s`` all attempts of a request together with their pauses.
    A Retry-After is honoured up to ``max_pause_s`` and holds for all requests. See pacing.Pacing for rate limits and for what
    happens with a dead endpoint. Bodies over ``max_body_bytes`` are not read to their end. ``model_id`` is
    "MODEL@HOST:PORT" unless given: name it yourself where the same weights move between hosts.

    Raises ChatModelError for an address, a key or a number that cannot be right, and where openai is not installed.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None = None,
        *,
        concurrency: int = 16,
        timeout_s: float = 60.0,
        connect_timeout_s: float = 5.0,
        deadline_s: float = 300.0,
        retries: int = 4,
        backoff_s: float = 0.5,
        max_pause_s: float = 60.0,
        max_body_bytes: int = 1 << 20,
        patience_s: float = 10.0,
        probe_after_s: float = 5.0,
        model_id: str | None = None,
    ) -> None:
        self.base_url = _checked_url(base_url)
        self.model = model.strip()
        if not self.model:
            raise ChatModelError("FACECAPTION_LLM_MODEL is empty; name the model that the endpoint serves")
        self._key = (api_key or "").strip()
        if not (self._key.isascii() and self._key.isprintable()) or " " in self._key:
            raise ChatModelError("FACECAPTION_LLM_API_KEY holds a space, a line break or a letter that no key has")
        if concurrency < 1 or retries < 0 or min(timeout_s, connect_timeout_s, deadline_s) <= 0:
            raise ChatModelError("concurrency and the time limits of an endpoint must be positive, retries 0 or more")
        try:
            import openai  # noqa: F401
        except ImportError:
            raise ChatModelError("FACECAPTION_LLM_ENDPOINT needs openai: pip install 'facecaption[llm]'") from None
        self.concurrency, self.retries, self.backoff_s = concurrency, retries, backoff_s
        self.timeout_s, self.connect_timeout_s, self.deadline_s = timeout_s, connect_timeout_s, deadline_s
        self.max_pause_s, self.max_body_bytes = max_pause_s, max_body_bytes
        self.model_id = model_id or f"{self.model}@{urlsplit(self.base_url).netloc}"
        self.pacing = Pacing(concurrency, max(16, 2 * concurrency), patience_s, probe_after_s)
        self._send_seed = True
        self._one_run = threading.Lock()

    def answer(
        self,
        requests: Sequence[ChatRequest],
        sampling: Sampling,
        on_answer: Callable[[int, Answer], None] | None = None,
    ) -> list[Answer]:
        """An answer for each request, in their order.

        ``on_answer`` is called in the caller's thread, or where that thread already runs an event loop, in another one; no
        request is read while it runs. What it raises ends the run. One run at a time: a second thread waits.

        Raises ChatModelError where the key or the model's name is refused, or the address is not an API.
        """

        def run() -> list[Answer]:
            return asyncio.run(self._answer_all(requests, sampling, on_answer))

        with self._one_run:
            if not _in_event_loop():
                return run()
            with ThreadPoolExecutor(1) as thread:
                return thread.submit(run).result()

    def close(self) -> None:
        """Nothing stays open between runs."""

    async def _answer_all(
        self, requests: Sequence[ChatRequest], sampling: Sampling, on_answer: Callable[[int, Answer], None] | None
    ) -> list[Answer]:
        self.pacing.begin()
        answers: list[Answer | None] = [None] * len(requests)
        indices = iter(range(len(requests)))
        async with self._client() as client:
            ask = self._asker(client, sampling)

            async def work() -> None:
                for index in indices:
                    answer = await self._with_retries(ask, requests[index])
                    answers[index] = answer
                    if on_answer:
                        on_answer(index, answer)

            workers = [asyncio.create_task(work()) for _ in range(min(self.concurrency, len(requests)))]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        return [answer for answer in answers if answer is not None]

    async def _with_retries(self, ask: Any, request: ChatRequest) -> Answer:
        jitter = random.Random(request.seed)
        deadline: float | None = None
        last: Answer | None = None
        for retry in range(self.retries + 1):
            closed = await self.pacing.enter()
            if closed:
                return last or closed
            try:
                sent_at = time.monotonic()
                deadline = deadline or sent_at + self.deadline_s
                if last and sent_at >= deadline:
                    return last
                attempt = await self._attempt(ask, request, min(self.timeout_s, deadline - sent_at))
                pause = min(_MAX_BACKOFF_S, self.backoff_s * 2**retry) * (0.5 + 0.5 * jitter.random())
                pause = self._report(attempt, sent_at, pause, last_try=retry == self.retries)
            finally:
                await self.pacing.leave()
            last = attempt.answer
            if attempt.final or retry == self.retries or time.monotonic() + pause >= deadline:
                return last
            await asyncio.sleep(pause)
        raise AssertionError("the last retry returns")

    async def _attempt(self, ask: Any, request: ChatRequest, timeout_s: float) -> _Attempt:
        attempt = await ask(request, timeout_s, self._send_seed)
        if attempt.about_seed and self._send_seed:
            attempt = await ask(request, timeout_s, False)
            self._send_seed = attempt.answer.failure is Failure.SERVER_ERROR
        return attempt

    def _report(self, attempt: _Attempt, sent_at: float, pause_s: float, last_try: bool) -> float:
        """Tell the pacing what an attempt brought; the pause before the next one, in seconds."""
        failure = attempt.answer.failure
        asked_for = attempt.retry_after_s
        if asked_for is not None:
            pause_s = max(pause_s, min(asked_for, self.max_pause_s))
        if failure is Failure.RATE_LIMITED or asked_for is not None:
            self.pacing.rate_limited(sent_at, pause_s)
        if attempt.final:
            self.pacing.succeeded()
        elif failure is not Failure.RATE_LIMITED or last_try:
            self.pacing.failed(attempt.answer)
        return pause_s

    def _client(self) -> openai.AsyncOpenAI:
        import httpx2
        import openai

        timeout = httpx2.Timeout(self.timeout_s, connect=self.connect_timeout_s)
        limits = httpx2.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        http = openai.DefaultAsyncHttpxClient(
            timeout=timeout, limits=limits, follow_redirects=False, event_hooks={"response": [self._bound_body]}
        )
        # An explicit key, or openai would send the one for its own service from the environment to this endpoint.
        return openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._key or "none",
            max_retries=0,
            timeout=timeout,
            http_client=http,
            default_headers={"Accept-Encoding": "identity"},
        )

    async def _bound_body(self, response: httpx2.Response) -> None:
        import httpx2

        limit = self.max_body_bytes
        inner = cast("httpx2.AsyncByteStream", response.stream)
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            await response.aclose()
            raise _BodyRejectedError("a compressed body, which was not asked for")

        class Bounded(httpx2.AsyncByteStream):
            async def __aiter__(self) -> AsyncIterator[bytes]:
                read = 0
                async for piece in inner:
                    read += len(piece)
                    if read > limit:
                        raise _BodyRejectedError(f"a body over {limit} bytes")
                    yield piece

            async def aclose(self) -> None:
                await inner.aclose()

        response.stream = Bounded()

    def _asker(self, client: openai.AsyncOpenAI, sampling: Sampling) -> Any:
        import httpx2
        import openai

        async def ask(request: ChatRequest, timeout_s: float, send_seed: bool) -> _Attempt:
            messages: Any = [{"role": role, "content": content} for role, content in request.messages]
            try:
                async with asyncio.timeout(timeout_s):
                    response = await client.chat.completions.with_raw_response.create(
                        model=self.model,
                        messages=messages,
                        temperature=sampling.temperature,
                        top_p=sampling.top_p,
                        max_tokens=sampling.max_new_tokens,
                        seed=request.seed % _SEED_RANGE if send_seed else openai.omit,
                    )
                answer = _read_body(response.content)
                detail = self._redacted(answer.detail)
                return _Attempt(
                    Answer(answer.text, answer.failure, detail), final=answer.failure is not Failure.MALFORMED
                )
            except openai.APIStatusError as error:
                refused = error.response
            except TimeoutError:
                return self._failed(Failure.TIMEOUT, f"no answer within {timeout_s:.0f} s")
            except _BodyRejectedError as error:
                return self._failed(Failure.MALFORMED, str(error))
            except (openai.APIError, httpx2.HTTPError, OSError) as error:
                cause = error.__cause__ or error
                slow = isinstance(cause, httpx2.TimeoutException) and not isinstance(cause, httpx2.ConnectTimeout)
                detail = f"{type(cause).__name__} {cause}".strip()
                return self._failed(Failure.TIMEOUT if slow else Failure.UNREACHABLE, detail)
            # Outside the handler: what is raised here must not carry the server's own words along as its context.
            return self._status(refused)

        return ask

    def _status(self, response: httpx2.Response) -> _Attempt:
        """What an HTTP status other than 2xx means. Raises ChatModelError where it will mean the same for every request."""
        status, (code, message) = response.status_code, _error_object(response.content)
        said = self._redacted(message or response.text)
        if status in (401, 403):
            raise ChatModelError(f"FACECAPTION_LLM_API_KEY was refused by {self.base_url}: {status} {said}")
        if status == 404 or code == "model_not_found":
            raise ChatModelError(
                f"FACECAPTION_LLM_MODEL {self.model!r} or FACECAPTION_LLM_ENDPOINT {self.base_url} is wrong: {status} {said}"
            )
        if code == "insufficient_quota":
            raise ChatModelError(f"the quota of FACECAPTION_LLM_API_KEY is used up at {self.base_url}: {said}")
        if 300 <= status < 400:
            target = self._redacted(response.headers.get("Location", "elsewhere"))
            raise ChatModelError(f"FACECAPTION_LLM_ENDPOINT {self.base_url} leads to {target}: set the final address")
        if status == 429:
            return self._failed(Failure.RATE_LIMITED, f"429 {said}", _retry_after(response.headers.get("Retry-After")))
        if code in ("content_filter", "content_policy_violation"):
            return _Attempt(Answer(failure=Failure.REFUSED, detail=said), final=True)
        if status >= 500 or status in (408, 409, 425):
            wait = _retry_after(response.headers.get("Retry-After")) if status == 503 else None
            return self._failed(Failure.SERVER_ERROR, f"{status} {said}", wait)
        about_seed = status in (400, 422) and "seed" in said.lower()
        answer = Answer(failure=Failure.SERVER_ERROR, detail=f"{status} {said}")
        return _Attempt(answer, final=True, about_seed=about_seed)

    def _failed(self, failure: Failure, detail: str, retry_after_s: float | None = None) -> _Attempt:
        return _Attempt(Answer(failure=failure, detail=self._redacted(detail)), False, retry_after_s)

    def _redacted(self, text: str) -> str:
        """One line of at most 200 characters without the key, which servers like to quote."""
        if self._key:
            text = text.replace(self._key, "[key]")
        return " ".join(text[:400].split())[:200]


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


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
        raise ChatModelError(
            "FACECAPTION_LLM_ENDPOINT holds a user or a password; put the key into FACECAPTION_LLM_API_KEY"
        )
    if not valid or parts.query or parts.fragment:
        raise ChatModelError(f"FACECAPTION_LLM_ENDPOINT {url!r} is no address like http://host:8000/v1")
    return url


def _read_body(body: bytes) -> Answer:
    """The Answer in the body of a chat completion (the OpenAI API's object), whatever the body really is."""
    try:
        parsed = json.loads(body)
        choice = parsed["choices"][0]
        message, finish_reason = choice["message"], choice.get("finish_reason")
        text, refusal = message.get("content"), message.get("refusal")
        for value in (text, refusal, finish_reason):
            if not (value is None or isinstance(value, str)):
                raise TypeError(f"a {type(value).__name__} instead of text")
        (text or "").encode()  # half a surrogate pair, which JSON can spell, fits in no table
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        start = body[:100].decode("utf-8", "replace")
        return Answer(failure=Failure.MALFORMED, detail=f"{type(error).__name__} {error} in {start!r}")
    return read_completion(text, finish_reason, refusal)


def _error_object(body: bytes) -> tuple[str | None, str | None]:
    """Code and message of an OpenAI error object, None where the body has none."""
    try:
        error = json.loads(body)["error"]
        code, message = error.get("code") or error.get("type"), error.get("message")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None, None
    return code if isinstance(code, str) else None, message if isinstance(message, str) else None


def _retry_after(header: str | None) -> float | None:
    """Seconds from now, 0 or more, of a Retry-After header (RFC 9110 §10.2.3): a number or an HTTP date."""
    if not header:
        return None
    try:
        if header.strip().isdecimal():
            return float(header)
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None
