"""An OpenAI-compatible chat endpoint on loopback that answers well, badly or not at all, by the first part of its path."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from loopback import http_answer, stream_server


def completion(content: Any, finish_reason: Any = "stop", **message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": content, **message}
    return {"object": "chat.completion", "choices": [{"index": 0, "message": said, "finish_reason": finish_reason}]}


def echo(messages: list[dict[str, str]]) -> str:
    return f"You said {messages[-1]['content']}"


def reply(status: int = 200, body: object = b"", **headers: str) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return http_answer(f"{status} Status", data, {"Content_Type": "application/json", **headers})


def error(message: str, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "code": code, "param": param}}


def refused_field(body: dict[str, Any], knows: str) -> bytes | None:
    """What OpenAI's reasoning models answer to a request with a field that they do not take; None where all are known."""
    known = {"max_completion_tokens"} if knows == "reasoning" else {"max_tokens", "temperature", "top_p", "seed"}
    if "max_tokens" in body and "max_tokens" not in known:
        said = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return reply(400, error(said, "unsupported_parameter", "max_tokens"))
    if "temperature" in body and "temperature" not in known:
        said = "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) value is supported."
        return reply(400, error(said, "unsupported_value", "temperature"))
    if "top_p" in body and "top_p" not in known:
        said = "Unsupported parameter: 'top_p' is not supported with this model."
        return reply(400, error(said, "unsupported_parameter", "top_p"))
    if "max_completion_tokens" in body and "max_completion_tokens" not in known:
        return reply(
            422, {"detail": [{"loc": ["body", "max_completion_tokens"], "msg": "Extra inputs are not permitted"}]}
        )
    return None


@dataclass
class ChatServer:
    """``url(behaviour)`` is the base URL of an API that behaves so; ``text`` makes the answers of the good ones.

    ``asked`` counts requests by (behaviour, the user's last words); ``bodies`` are the parsed requests; ``most_open`` is the
    largest number that were being answered at one time. ``credit``: requests that "credit" answers before it is used up.
    ``lost``: the question that "lost-one" always fails.
    """

    port: int = 0
    text: Callable[[list[dict[str, str]]], str] = echo
    asked: Counter[tuple[str, str]] = field(default_factory=Counter)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    open_now: int = 0
    most_open: int = 0
    granted: list[float] = field(default_factory=list)
    credit: int = 0
    lost: str = ""

    def url(self, behaviour: str = "good") -> str:
        return f"http://127.0.0.1:{self.port}/{behaviour}/v1"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                body = json.loads(await reader.readexactly(int(fields.get("content-length", 0))) or b"{}")
                self.heads.append(head)
                self.bodies.append(body)
                self.times.append(time.monotonic())
                self.open_now += 1
                self.most_open = max(self.most_open, self.open_now)
                try:
                    await self.answer(writer, head.split(" ", 2)[1], body)
                    await writer.drain()
                finally:
                    self.open_now -= 1
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def answer(self, writer: asyncio.StreamWriter, path: str, body: dict[str, Any]) -> None:
        behaviour, _, rest = path[1:].partition("/")
        if rest != "v1/chat/completions":
            writer.write(reply(404, error("no such page")))
            return
        messages = body["messages"]
        words = messages[-1]["content"]
        self.asked[behaviour, words] += 1
        first = self.asked[behaviour, words] == 1
        good = reply(body=completion(self.text(messages)))
        match behaviour:
            case "good":
                writer.write(good)
            case "shuffled":  # requests end out of order
                await asyncio.sleep(0.002 * (sum(words.encode()) * 7 % 13))
                writer.write(good)
            case "429-then-good":
                writer.write(reply(429, error("slow down"), Retry_After="1") if first else good)
            case "429-date":
                late = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 2))
                writer.write(reply(429, error("slow down"), Retry_After=late) if first else good)
            case "503-then-good":
                writer.write(reply(503, error("loading model"), Retry_After="1") if first else good)
            case "429":
                writer.write(reply(429, error("slow down")))
            case "20-per-second":
                recent = sum(moment > time.monotonic() - 1 for moment in self.granted)
                if recent < 20:
                    self.granted.append(time.monotonic())
                writer.write(good if recent < 20 else reply(429, error("slow down")))
            case "500-then-good":
                writer.write(reply(500, error("oh")) if first else good)
            case "reset-then-good":
                if first:
                    raise ConnectionError
                writer.write(good)
            case "every-other-500":
                writer.write(reply(500, error("oh")) if len(self.times) % 2 else good)
            case "no-seed":
                bad = reply(400, error("Extra inputs are not permitted: seed"))
                writer.write(bad if "seed" in body else good)
            case "reasoning" | "old":
                writer.write(refused_field(body, behaviour) or good)
            case "one-of-two":
                both = "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
                writer.write(reply(400, error(both)) if {"temperature", "top_p"} <= body.keys() else good)
            case "credit":
                self.credit -= 1
                writer.write(good if self.credit >= 0 else FIXED["402"])
            case "lost-one":
                writer.write(FIXED["500"] if words == self.lost else good)
            case "every-other-400":
                writer.write(FIXED["400"] if len(self.times) % 2 else good)
            case "400-counted":
                writer.write(
                    reply(
                        400, error(f"prompt of {len(self.times)} tokens is too long (request req_{len(self.times)}a)")
                    )
                )
            case "usage":
                used = {"prompt_tokens": 200, "completion_tokens": 30, "total_tokens": 230}
                writer.write(reply(body={**completion(self.text(messages)), "usage": used}))
            case "reset":
                writer.write(good[:-10])
                raise ConnectionError
            case "hang":
                await asyncio.sleep(60)
            case "drip":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
                for _ in range(600):
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.05)
            case "echo-key":
                writer.write(reply(500, error("the key was " + self.heads[-1])))
            case _:
                writer.write(FIXED[behaviour])


FIXED = {
    "401": reply(401, error("Incorrect API key provided: sk-secret-1")),
    "403": reply(403, error("no")),
    "404": reply(404, error("The model `nobody` does not exist.", "model_not_found")),
    "400-model": reply(400, error("no such model", "model_not_found")),
    "400": reply(400, error("this model's context is 16 tokens", "context_length_exceeded")),
    "402": reply(402, error("This request requires more credits.", "insufficient_credits")),
    "422-unknown-field": reply(422, {"detail": [{"loc": ["body", "colour"], "msg": "Extra inputs are not permitted"}]}),
    "400-text": reply(400, {"error": "prompt too long"}),
    "400-detail": reply(400, {"detail": "Unexpected fields in the request: {'colour'}"}),
    "400-page": reply(400, b"<html><head><title>Bad Request</title></head></html>", Content_Type="text/html"),
    "thinking-apart": reply(body=completion("A woman.", reasoning_content="She has no hat.")),
    "thinking-only": reply(body=completion(None, "length", reasoning_content="She has")),
    "thinking-cut": reply(body=completion("<think>She has", "length")),
    "500": reply(500, error("oh")),
    "502-page": reply(502, b"<html>Bad gateway</html>", Content_Type="text/html"),
    "301": reply(301, b"", Location="https://elsewhere.example/v1"),
    "quota": reply(429, error("You exceeded your current quota", "insufficient_quota")),
    "filter": reply(400, error("filtered", "content_filter")),
    "page": reply(body=b"<html>Welcome</html>", Content_Type="text/html"),
    "html-as-json": reply(body=b"<html>Welcome</html>"),
    "truncated-json": reply(body=json.dumps(completion("A woman.")).encode()[:-7]),
    "no-choices": reply(body={"object": "chat.completion"}),
    "empty-choices": reply(body={"choices": []}),
    "null": reply(body=b"null"),
    "list": reply(body=[1, 2]),
    "error-in-200": reply(body=error("busy")),
    "choice-is-text": reply(body={"choices": ["A woman."]}),
    "content-is-list": reply(body=completion([{"type": "text", "text": "A woman."}])),
    "content-is-number": reply(body=completion(3)),
    "half-surrogate": reply(body=b'{"choices":[{"message":{"content":"A \\ud83d woman"},"finish_reason":"stop"}]}'),
    "not-utf8": reply(body=b'{"choices":[{"message":{"content":"\xff\xfe"}}]}'),
    "deep": reply(body=b"[" * 100_000),
    "null-content": reply(body=completion(None)),
    "empty": reply(body=completion("")),
    "blank": reply(body=completion(" \n ")),
    "refusal": reply(body=completion(None, refusal="I cannot help with that.")),
    "sorry": reply(body=completion("I\u2019m sorry, but I can\u2019t describe people.")),
    "as-an-ai": reply(body=completion("As an AI language model, I do not see pictures.")),
    "content-filter": reply(body=completion("A wo", "content_filter")),
    "length": reply(body=completion("A woman with long brown", "length")),
    "padded": reply(body=completion("\n  A woman.  \n")),
}


@contextlib.contextmanager
def running_chat_server(port: int = 0) -> Iterator[ChatServer]:
    """On a free port unless one is given."""
    server = ChatServer()
    with stream_server(server.handle, port) as server.port:
        yield server
