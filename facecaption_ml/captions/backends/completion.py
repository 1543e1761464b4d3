"""What a chat model's completion amounts to: a text, or one of the ways of not being one."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from facecaption_ml.captions.backends.chat import Answer, Failure
from facecaption_ml.captions.backends.server_words import error_message, one_line
from facecaption_ml.captions.backends.spoken import spoken

# A caption describes a face in the third person, so a first person that declines at the start, or a model that speaks of
# itself anywhere, is a refusal.
_DECLINES = re.compile(
    r"""^\W*(
        (i\s+am|i'm)\s+((really|very|so|truly|deeply)\s+)?sorry\b
      | (sorry|apologies)\b[\s,.:;!-]+(but\s+)?(i|as)\b
      | (i\s+apologi[sz]e|my\s+apologies)\b
      | (unfortunately,?\s+)?i\s*(can't|can\s*not|could\s+not|couldn't|won't|will\s+not)\b
      | (unfortunately,?\s+)?(i\s+am|i'm)\s+(unable|not\s+able|not\s+allowed|not\s+comfortable)\b
      | i\s+(must|have\s+to)\s+(decline|refuse)\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_SPEAKS_OF_ITSELF = re.compile(
    r"\bas\s+an?\s+(ai\b|artificial\s+intelligence|(large\s+)?language\s+model)", re.IGNORECASE
)


def is_refusal(text: str) -> bool:
    """Whether a text declines the task instead of doing it, by the usual English phrases."""
    plain = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return bool(_DECLINES.search(plain) or _SPEAKS_OF_ITSELF.search(plain))


def read_completion(text: str | None, finish_reason: str | None, refusal: str | None = None) -> Answer:
    """The Answer for one completion: what the model says, without what it thinks aloud and the marks of its chat template.

    ``finish_reason`` and ``refusal`` are the fields of the OpenAI chat API: "length" means that the token limit cut the
    text off, "content_filter" that a filter withheld it. Nothing is kept of a text that is cut off.
    """
    said = spoken(text or "")
    if refusal or finish_reason == "content_filter" or is_refusal(said or ""):
        return Answer(failure=Failure.REFUSED, detail=(refusal or said or "content filter")[:200])
    if said is None:
        return Answer(failure=Failure.THINKING, detail="its thinking has no end; raise max_new_tokens or switch it off")
    if finish_reason == "length":
        return Answer(failure=Failure.TRUNCATED, detail="the answer reached max_new_tokens")
    if not said:
        only = "nothing after its thinking or marks" if (text or "").strip() else f"finish_reason {finish_reason}"
        return Answer(failure=Failure.EMPTY, detail=only)
    return Answer(text=said)


def read_body(body: bytes) -> Answer:
    """The Answer in the body of a chat completion (the OpenAI API's object), whatever the body really is.

    Thinking in a field of its own (``reasoning_content``, ``reasoning``) is not part of the text. ``usage`` becomes the
    Answer's tokens. An error that comes with status 200 is a malformed answer with the server's words.
    """
    try:
        parsed = json.loads(body)
        if isinstance(parsed, dict) and parsed.get("error") and not parsed.get("choices"):
            said = one_line(error_message(parsed) or "")
            return Answer(failure=Failure.MALFORMED, detail=said or "an error without words", said=said)
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
    answer = read_completion(text, finish_reason, refusal)
    if finish_reason == "length" and not (text or "").strip() and _thought(message):
        answer = replace(answer, failure=Failure.THINKING, detail="max_new_tokens went into its thinking")
    usage = parsed.get("usage")
    asked, written = (_count(usage, name) for name in ("prompt_tokens", "completion_tokens"))
    return replace(answer, prompt_tokens=asked, completion_tokens=written)


def _thought(message: dict[str, Any]) -> bool:
    return any(message.get(name) for name in ("reasoning_content", "reasoning", "thinking"))


def _count(usage: Any, name: str) -> int:
    """A number of tokens; 0 where the server says none, or something that is none."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else 0
