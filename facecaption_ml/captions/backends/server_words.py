"""What a server says about an error, fit for a row, a log and a run: one short line, plain text, no secret."""

from __future__ import annotations

import html
import json
import re
from typing import Any, Final

_LONGEST: Final = 200
_NAMED_SECRET: Final = r"\b(authorization|x-api-key|api[-_ ]?key|cookie)(\"?'?\s*[:=]\s*\"?'?)(?:bearer\s+)?[^\s\"',;]+"
_KEY: Final = r"\b(?:sk|pk|rk|hf|gsk|xai|key|tok|ghp)[-_][\w*.-]{6,}|\bAIza[\w-]{20,}|\beyJ[\w-]{10,}\.[\w.-]+"
# What servers like to quote of a request: keys by their usual shapes, Authorization headers, what addresses hide.
_SECRETS: Final = (
    (re.compile(_NAMED_SECRET, re.IGNORECASE), r"\1\2[key]"),
    (re.compile(r"\bbearer\s+[^\s\"',;]+", re.IGNORECASE), "Bearer [key]"),
    (re.compile(_KEY), "[key]"),
    (re.compile(r"(//)[^/@\s]+@"), r"\1…@"),
    (re.compile(r"(https?://[^\s?#\"']+)[?#][^\s\"']*"), r"\1"),
)
_TAG: Final = re.compile(r"<(?:script|style)\b.*?</(?:script|style)>|<[^<>]*>", re.DOTALL | re.IGNORECASE)


def one_line(text: str, secret: str = "") -> str:
    """At most 200 printable characters without ``secret`` and whatever else looks like a key; tags of HTML are taken out."""
    text = text[: 20 * _LONGEST]
    if secret:
        text = text.replace(secret, "[key]")
    for shape, instead in _SECRETS:
        text = shape.sub(instead, text)
    text = html.unescape(_TAG.sub(" ", text))
    return "".join(c for c in " ".join(text.split()) if c.isprintable())[:_LONGEST].strip()


def error_message(parsed: Any) -> str | None:
    """The message in an error's body, by the spellings in use: OpenAI's ``error.message``, TGI's and Ollama's ``error``,
    FastAPI's ``detail``, llama.cpp's and others' ``message``; None where it is no such object."""
    if not isinstance(parsed, dict):
        return parsed if isinstance(parsed, str) and parsed else None
    for name in ("error", "message", "detail", "errors"):
        value = parsed.get(name)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, dict) and (inner := error_message(value)):
            return inner
        if isinstance(value, list) and value:
            first = value[0]
            if isinstance(first, dict) and isinstance(first.get("msg"), str):  # pydantic's list, field by field
                return f"{'.'.join(map(str, first.get('loc', ())))}: {first['msg']}"
            return error_message(first) or json.dumps(first)
    return None
